"""The state machine of one connection: `h2`, without what an established connection does not need.

Owns the use of h2 and hpack, the parts of theirs that are replaced, and the check that the installed versions have
them. h2 reads HEADERS and DATA, and knows the state of each stream, as far as the peer's frames decide it.
What we send is written by `relay.http2.http2_frames`; h2 only learns that a stream ended. An `H2Connection` and its
first stream hold 17 KB, of which 12 are settings and empty tables; this one holds 4.
"""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any, Final

import h2.connection
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import DataReceived, Event, RequestReceived, StreamReset, TrailersReceived
from h2.exceptions import InvalidBodyLengthError, ProtocolError, StreamClosedError
from h2.settings import SettingCodes, Settings
from h2.stream import H2Stream
from hpack import Decoder, Encoder
from hpack.struct import HeaderTuple
from hpack.table import HeaderTable

from relay.errors import StartError
from relay.http2.http2_frames import DEFAULT_WINDOW, MAX_WINDOW, PREFACE, Http2Code

__all__ = [
    "DataReceived",
    "Event",
    "H2Machine",
    "ProtocolError",
    "RequestReceived",
    "StreamReset",
    "TrailersReceived",
    "check_h2",
    "is_stream_error",
    "reason_of",
]

_CONFIG: Final = H2Configuration(client_side=False, header_encoding=None)
_SEEN_STREAMS: Final = 100
"""Ended streams of a connection that are remembered, to tell late frames from wrong ones. h2's own limit is 65,536."""
_SHARED_FIELDS: Final = 1000
"""Header fields that connections share, at most."""
_SHARED_BYTES: Final = 100
"""The longest of them: a token is longer, and belongs to one client."""
_AUTHORITIES: Final = frozenset((b":authority", b"host"))
"""A request has one of them, for h2. HTTP/2 requires neither, and HAProxy's health checks have neither by default."""
_METHODS: Final[dict[type, str]] = {
    kind: method.__name__ for kind, method in getattr(H2Connection(_CONFIG), "_frame_dispatch_table", {}).items()
}
"""Which method of `H2Connection` handles which frame."""

_shared: Final[dict[tuple[bytes, bytes], tuple[bytes, bytes]]] = {}


_LOCAL: Final = Settings(
    client=False,
    initial_values={
        SettingCodes.INITIAL_WINDOW_SIZE: DEFAULT_WINDOW,
        SettingCodes.MAX_CONCURRENT_STREAMS: MAX_WINDOW,  # more are refused one by one, where h2 ends the connection
    },
)
_REMOTE: Final = Settings(client=True)
"""Not used: what we send does not pass h2."""
_ENCODER: Final = Encoder()
"""Not used: our header blocks have no state, and are made elsewhere."""


class H2Machine(H2Connection):
    """One connection of a server, as h2 sees it. Methods return the bytes that h2 wants to send."""

    MAX_CLOSED_STREAMS = _SEEN_STREAMS

    def __init__(self, *, header_bytes: int) -> None:
        """`header_bytes`: the size of a header list at which the connection ends."""
        super().__init__(_CONFIG)
        self.local_settings, self.remote_settings = _LOCAL, _REMOTE
        self.encoder = _ENCODER
        self.decoder: _Decoder = _Decoder(header_bytes)
        self.incoming_buffer.add_data(PREFACE)  # it was read before

    @property
    def _frame_dispatch_table(self) -> Any:
        """Stand for h2's table of twelve bound methods, which each connection has for itself."""
        return _Dispatch(self)

    @_frame_dispatch_table.setter
    def _frame_dispatch_table(self, _table: Any) -> None:
        """Drop the table that h2 makes."""

    @property
    def open_inbound_streams(self) -> int:
        """Spare h2 a look at all streams for each new one: streams are counted, and refused, elsewhere."""
        return 0

    def tidy(self, open_streams: int) -> None:
        """Drop streams that have ended, when they are many beside those that are open."""
        if len(self.streams) > open_streams + open_streams // 4 + 4:
            super().open_inbound_streams  # noqa: B018 - it drops them

    def receive(self, frame: bytes) -> list[Event]:
        """Handle one frame of the peer; raise h2's `ProtocolError` for a wrong one."""
        return self.receive_data(frame)

    def output(self) -> bytes:
        """Take what h2 wants to send."""
        return self.data_to_send() if self._data_to_send else b""

    def missing_bytes(self, stream_id: int) -> int:
        """Return how much of the body that an open stream has announced has not come; h2 asks only with DATA."""
        stream: Any = self.streams.get(stream_id)
        announced = None if stream is None else stream._expected_content_length  # noqa: SLF001 - see `check_h2`
        return 0 if announced is None else announced - stream._actual_content_length  # noqa: SLF001 - see `check_h2`

    def taken(self, stream_id: int | None, size: int) -> None:
        """Let the peer send `size` more bytes: on an open stream, or on the connection (None)."""
        self.increment_flow_control_window(size, stream_id)

    def end(self, stream_id: int) -> None:
        """Learn that we have sent the end of a stream."""
        self.end_stream(stream_id)
        self.clear_outbound_data_buffer()

    def reset(self, stream_id: int, code: int) -> None:
        """Learn that we have reset a stream; do nothing when it is over."""
        try:
            self.reset_stream(stream_id, code)
        except (StreamClosedError, ProtocolError):
            self.state_machine.state = ConnectionState.SERVER_OPEN
        self.clear_outbound_data_buffer()

    def go_on(self) -> None:
        """Forget an error of one stream, which h2 takes for the end of the connection."""
        self.state_machine.state = ConnectionState.SERVER_OPEN
        self.clear_outbound_data_buffer()

    def receive_headers(self, frame: bytes) -> list[Event]:
        """Handle HEADERS or CONTINUATION."""
        self.decoder.has_decoded = False
        return self.receive_data(frame)


class _Dispatch:
    __slots__ = ("_machine",)

    def __init__(self, machine: H2Machine) -> None:
        self._machine = machine

    def __getitem__(self, kind: type) -> Any:
        return getattr(self._machine, _METHODS[kind])


class _Entries(list[tuple[bytes, bytes]]):
    """The fields in a header table: a list holds nothing while it is empty, where a deque holds 700 bytes."""

    __slots__ = ()

    def appendleft(self, field: tuple[bytes, bytes]) -> None:
        if len(field[0]) + len(field[1]) <= _SHARED_BYTES:
            if len(_shared) >= _SHARED_FIELDS:
                _shared.clear()  # what peers have made up would stay otherwise
            field = _shared.setdefault(field, field)
        self.insert(0, field)


class _Decoder(Decoder):
    """Reads header blocks."""

    def __init__(self, max_header_list_size: int) -> None:
        super().__init__(max_header_list_size)
        self.header_table.dynamic_entries = _Entries()  # type: ignore[assignment]
        self.has_decoded = False
        """Whether the last header block was read to its end, so that later ones can be read too."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:
        headers = super().decode(data, raw)
        self.has_decoded = True
        names = {header[0] for header in headers}
        if b":method" in names and not names & _AUTHORITIES:
            return [HeaderTuple(b":authority", b""), *headers]
        return headers


def reason_of(error: ProtocolError) -> tuple[Http2Code, str]:
    """Return the code of an error, and what it says; h2 has PROTOCOL_ERROR for header blocks that cannot be read."""
    text = str(error)
    if isinstance(error, StreamClosedError):
        text = f"stream {error.stream_id} has ended"
    if text.startswith("Error decoding"):
        return Http2Code.COMPRESSION_ERROR, "a header block is not valid HPACK"  # hpack's text has memory addresses
    return Http2Code(error.error_code), text


def is_stream_error(error: ProtocolError, machine: H2Machine, stream_id: int, *, in_headers: bool) -> bool:
    """Whether an error of the peer concerns one stream: a malformed request (RFC 9113 section 8.1.1).

    Other clients may share the connection, behind a proxy.
    """
    if type(error) is InvalidBodyLengthError:
        return True
    return in_headers and type(error) is ProtocolError and machine.decoder.has_decoded and stream_id in machine.streams


def check_h2(connection: Any = h2.connection.H2Connection, table: Any = HeaderTable) -> None:
    """Check that h2 and hpack have the parts that are replaced or used here.

    Raises:
        StartError: They lack some; the text names them and the installed versions.
    """
    fresh = connection(_CONFIG)
    wanted = (
        "_data_to_send",
        "_frame_dispatch_table",
        "decoder",
        "encoder",
        "incoming_buffer",
        "local_settings",
        "remote_settings",
        "state_machine",
        "streams",
    )
    missing = [f"H2Connection.{name}" for name in wanted if not hasattr(fresh, name)]
    missing += [f"HeaderTable.{name}" for name in ("STATIC_TABLE", "dynamic_entries") if not hasattr(table(), name)]
    counts = vars(H2Stream(1, _CONFIG, 0, 0))
    missing += [
        f"H2Stream.{name}" for name in ("_actual_content_length", "_expected_content_length") if name not in counts
    ]
    missing += [] if _METHODS else ["the methods for frames"]
    if missing:
        raise StartError(
            f"h2 {version('h2')} with hpack {version('hpack')} lacks {', '.join(missing)}, which this relay uses; "
            "install the versions of requirements.lock"
        )
