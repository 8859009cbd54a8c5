"""The frames of the peer of one connection, and what follows from each.

Owns the order in which frames may come, and the errors of the peer. `relay.http2.h2_machine` judges requests and their
bodies. Pings, window updates, settings, priorities and resets are handled here: a long stream has hardly anything else.
Does not read from a transport.
"""

from collections.abc import Callable
from typing import ClassVar, Final

from relay.http2.connection_care import Leaving
from relay.http2.h2_machine import (
    DataReceived,
    Event,
    H2Machine,
    ProtocolError,
    RequestReceived,
    StreamReset,
    TrailersReceived,
    is_stream_error,
    reason_of,
)
from relay.http2.http2_connections import Http2Connections
from relay.http2.http2_frames import (
    ACK,
    END_HEADERS,
    FRAME_BYTES,
    HALF_WINDOW,
    HEAD_BYTES,
    MAX_STREAM_ID,
    MAX_WINDOW,
    SETTING,
    FrameKind,
    Http2Code,
    SettingId,
    goaway_frame,
    number,
    ping_frame,
    settings_frame,
)
from relay.http2.http2_stream import Http2Service
from relay.http2.open_streams import OpenStreams
from relay.http2.peer_budget import FaultReason, PeerError

_KEEPALIVE: Final = b"keepaliv"
_LEAVING: Final = b"leaving?"
"""The ping whose answer says that the peer has read our first GOAWAY."""

_STATEFUL: Final = 8
"""The cost of a frame that h2 handles: as many of the others take as long."""
_BLOCK_FRAMES: Final = 16
"""Frames of one header block; `Http2Limits.header_bytes` needs four."""
_OVERSIZE: Final = 4
"""How much larger than announced a header list may be until the connection ends."""
_SETTINGS: Final = 64
"""Settings in one frame. Ten are known; some clients add random ones."""
_SETTINGS_COST: Final = 5
_SETTINGS_ACK: Final = settings_frame({}, ack=True)
_ANY: Final = (0, 2**32 - 1, Http2Code.PROTOCOL_ERROR)
_ALLOWED: Final = {
    SettingId.ENABLE_PUSH: (0, 1, Http2Code.PROTOCOL_ERROR),
    SettingId.INITIAL_WINDOW_SIZE: (0, MAX_WINDOW, Http2Code.FLOW_CONTROL_ERROR),
    SettingId.MAX_FRAME_SIZE: (FRAME_BYTES, 2**24 - 1, Http2Code.PROTOCOL_ERROR),
}
"""Values of settings, and the code of others (section 6.5.2). We use less than those but the window allow."""


class PeerFrames(OpenStreams):
    """The part of a connection that handles frames. Its methods raise `PeerError` for what ends the connection."""

    __slots__ = ("_block", "_has_settings", "_taken_bytes", "leaving_at")

    def __init__(self, service: Http2Service, connections: Http2Connections) -> None:
        super().__init__(service, connections)
        self.leaving_at = self.heard_at
        self._has_settings = False
        self._taken_bytes = 0  # of requests, since the peer was allowed more on the connection
        self._block: tuple[int, int, int] | None = None  # stream, bytes and frames of a header block that has begun

    @property
    def _max_header_bytes(self) -> int:
        return _OVERSIZE * self._connections.limits.header_bytes

    def _frame(self, machine: H2Machine, frame: bytes) -> int:
        """Handle one frame; return its cost."""
        kind, flags, stream_id = frame[3], frame[4], number(frame, 5)
        if self._block is not None and (kind != FrameKind.CONTINUATION or stream_id != self._block[0]):
            raise PeerError(Http2Code.PROTOCOL_ERROR, "a header block is interrupted")
        if not self._has_settings:
            if kind != FrameKind.SETTINGS or flags & ACK:
                raise PeerError(Http2Code.PROTOCOL_ERROR, "the first frame is not SETTINGS")
            self._has_settings = True
        handle = self._stateful.get(kind)
        if handle is not None:
            handle(self, machine, frame, flags, stream_id)
            return _STATEFUL
        self._spend()
        handle = self._others.get(kind)
        if handle is not None:  # otherwise it is an extension, which is ignored (section 5.5)
            handle(self, machine, frame, flags, stream_id)
        return 1

    # --- long streams --------------------------------------------------------------------------------------------

    def _window_update(self, _machine: H2Machine, frame: bytes, _flags: int, stream_id: int) -> None:
        _require_size(frame, 4)
        increment = number(frame, HEAD_BYTES)
        if stream_id:
            self._widen(stream_id, increment)
            return
        turns = self._turns
        if not increment:
            raise PeerError(Http2Code.PROTOCOL_ERROR, "WINDOW_UPDATE has no increment")
        if turns.window + increment > MAX_WINDOW:
            raise PeerError(Http2Code.FLOW_CONTROL_ERROR, "the window of the connection is too large")
        turns.window += increment
        turns.granted += increment
        turns.pump()

    def _widen(self, stream_id: int, increment: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            self._require_known(stream_id)  # it may have ended before the peer knew
        elif not increment:
            self._stream_failed(stream_id, Http2Code.PROTOCOL_ERROR)
        elif stream.window + increment > MAX_WINDOW:
            self._stream_failed(stream_id, Http2Code.FLOW_CONTROL_ERROR)
        else:
            stream.widen(increment)

    def _ping(self, _machine: H2Machine, frame: bytes, flags: int, stream_id: int) -> None:
        _require_size(frame, 8)
        if stream_id:
            raise PeerError(Http2Code.PROTOCOL_ERROR, "PING has a stream")
        data = frame[HEAD_BYTES:]
        if not flags & ACK:
            self._pong(ping_frame(data, ack=True))
        elif data == _LEAVING and self.leaving is Leaving.ANNOUNCED:
            self.leave(Leaving.FINAL)

    def _pong(self, answer: bytes) -> None:
        """Answer a ping. One that measures the connection waits a little for data to go with.

        Clients such as grpc-go ping for each message until the answer has come: without the wait they double the work.
        """
        may_wait = self._budget.spend_ping(self.heard_at, self._turns.sent)
        if may_wait and self._turns.pong is None and self._streams:
            self._turns.pong = answer
            self._connections.hold_pong(self._turns)
        else:
            self._turns.send(answer)

    def _priority(self, _machine: H2Machine, frame: bytes, _flags: int, stream_id: int) -> None:
        """Check a priority; RFC 9113 no longer says what it means."""
        if not stream_id:
            raise PeerError(Http2Code.PROTOCOL_ERROR, "PRIORITY has no stream")
        _require_size(frame, 5)
        if number(frame, HEAD_BYTES) == stream_id:
            raise PeerError(Http2Code.PROTOCOL_ERROR, "a stream depends on itself")

    def _peer_reset(self, machine: H2Machine, frame: bytes, _flags: int, stream_id: int) -> None:
        _require_size(frame, 4)
        self._require_known(stream_id)
        stream = self._streams.get(stream_id)
        if stream is not None or self._unread.pop(stream_id, None) is not None:
            self._events(machine, frame, stream_id)
        if stream is not None:
            self._lose(stream, int.from_bytes(frame[HEAD_BYTES:], "big"))

    def _goaway(self, _machine: H2Machine, frame: bytes, _flags: int, stream_id: int) -> None:
        """Check it: it is about streams that we open, and we open none. The peer closes when it has no more streams."""
        if stream_id or len(frame) < HEAD_BYTES + 8:
            raise PeerError(Http2Code.PROTOCOL_ERROR, "GOAWAY is not valid")

    def _push_promise(self, _machine: H2Machine, _frame: bytes, _flags: int, _stream_id: int) -> None:
        raise PeerError(Http2Code.PROTOCOL_ERROR, "a client cannot push")

    # --- what has state ------------------------------------------------------------------------------------------

    def _settings(self, _machine: H2Machine, frame: bytes, flags: int, stream_id: int) -> None:
        size = len(frame) - HEAD_BYTES
        self._spend(_SETTINGS_COST + len(self._streams) // 10)
        if stream_id:
            raise PeerError(Http2Code.PROTOCOL_ERROR, "SETTINGS has a stream")
        if size % 6 or (flags & ACK and size):
            raise PeerError(Http2Code.FRAME_SIZE_ERROR, "SETTINGS has a wrong length")
        if size > 6 * _SETTINGS:
            raise PeerError(Http2Code.ENHANCE_YOUR_CALM, "too many settings", FaultReason.FRAMES)
        if flags & ACK:
            return
        initial_window = self._initial_window
        for at in range(HEAD_BYTES, len(frame), 6):
            name, value = SETTING.unpack_from(frame, at)
            low, high, code = _ALLOWED.get(name, _ANY)
            if not low <= value <= high:
                raise PeerError(code, f"setting {name} is {value}, not from {low} to {high}")
            if name == SettingId.INITIAL_WINDOW_SIZE:
                initial_window = value  # the last of several counts
        self._turns.send(_SETTINGS_ACK)  # before what the new windows allow
        self._change_windows(initial_window)

    def _change_windows(self, initial_window: int) -> None:
        change, self._initial_window = initial_window - self._initial_window, initial_window
        for stream in [*self._streams.values()]:
            if stream.window + change > MAX_WINDOW:
                raise PeerError(Http2Code.FLOW_CONTROL_ERROR, "the window of a stream is too large")
            stream.widen(change)

    def _headers(self, machine: H2Machine, frame: bytes, flags: int, stream_id: int) -> None:
        if not stream_id % 2:
            raise PeerError(Http2Code.PROTOCOL_ERROR, "a client has odd streams")
        if frame[3] == FrameKind.CONTINUATION:
            self._spend()
            if self._block is None:
                raise PeerError(Http2Code.PROTOCOL_ERROR, "CONTINUATION does not follow HEADERS")
        _, size, frames = self._block or (stream_id, 0, 0)
        size, frames = size + len(frame), frames + 1
        if size > self._max_header_bytes or frames > _BLOCK_FRAMES:
            raise PeerError(Http2Code.ENHANCE_YOUR_CALM, "a header block is too long")
        self._block = None if flags & END_HEADERS else (stream_id, size, frames)
        machine.tidy(len(self._streams) + len(self._unread))
        missing = machine.missing_bytes(stream_id)  # before trailers: h2 then forgets it
        for event in self._events(machine, frame, stream_id, in_headers=True):
            if isinstance(event, RequestReceived):
                ended = event.stream_ended is not None
                if ended and machine.missing_bytes(stream_id):
                    self._stream_failed(stream_id, Http2Code.PROTOCOL_ERROR)
                else:
                    self._begin(stream_id, event.headers, ended=ended)
            elif isinstance(event, TrailersReceived):
                if missing:
                    self._stream_failed(stream_id, Http2Code.PROTOCOL_ERROR)
                else:
                    self._deliver(stream_id, b"", ended=True)

    def _data(self, machine: H2Machine, frame: bytes, _flags: int, stream_id: int) -> None:
        if stream_id not in self._streams and stream_id not in self._unread:
            self._spend()
        for event in self._events(machine, frame, stream_id):
            if isinstance(event, DataReceived):
                ended = event.stream_ended is not None
                if not event.data and not ended:
                    self._spend()
                self._deliver(stream_id, event.data, ended=ended)
                self._took(machine, stream_id, event.flow_controlled_length)

    def _took(self, machine: H2Machine, stream_id: int, size: int) -> None:
        """Count bytes of a request that were handled."""
        self._taken_bytes += size
        if self._taken_bytes >= HALF_WINDOW:
            machine.taken(None, self._taken_bytes)
            self._taken_bytes = 0
            self._turns.send(machine.output())
        stream = self._streams.get(stream_id)
        if stream is not None:
            stream.took(size)

    def _events(self, machine: H2Machine, frame: bytes, stream_id: int, *, in_headers: bool = False) -> list[Event]:
        """Let h2 handle a frame; an error ends its stream or the connection."""
        try:
            events = machine.receive_headers(frame) if in_headers else machine.receive(frame)
        except ProtocolError as error:
            if not is_stream_error(error, machine, stream_id, in_headers=in_headers):
                raise PeerError(*reason_of(error)) from error
            machine.go_on()
            self._stream_failed(stream_id, Http2Code.PROTOCOL_ERROR)
            return []
        self._turns.send(machine.output())
        if any(isinstance(event, StreamReset) and not event.remote_reset for event in events):
            stream = self._streams.get(stream_id)  # h2 has reset it: data came after its end
            if stream is not None:
                self._lose(stream, Http2Code.STREAM_CLOSED)
        return events

    # --- for `Http2Connections` ----------------------------------------------------------------------------------

    def ping(self) -> None:
        """Ask the peer for a sign of life."""
        if self._machine is not None:  # our settings come first
            self._turns.send(ping_frame(_KEEPALIVE, ack=False))

    def leave(self, step: Leaving) -> None:
        """Ask the peer to open no more streams. The next step follows the peer's answer to a ping."""
        if self._machine is None:  # nothing was asked, and our settings would come first
            self.close()
            return
        self.leaving, self.leaving_at = step, self._connections.now()
        if step is Leaving.ANNOUNCED:
            self._turns.send(goaway_frame(MAX_STREAM_ID, Http2Code.NO_ERROR) + ping_frame(_LEAVING, ack=False))
        else:
            self._turns.send(goaway_frame(self._last_id(), Http2Code.NO_ERROR))

    def close(self) -> None:
        """See `relay.http2.http2_protocol`."""
        raise NotImplementedError

    # --- its own -------------------------------------------------------------------------------------------------

    def _require_known(self, stream_id: int) -> None:
        if not stream_id % 2 or stream_id > self._last_id():
            raise PeerError(Http2Code.PROTOCOL_ERROR, "a frame names a stream that was not opened")

    def _last_id(self) -> int:
        return self._machine.highest_inbound_stream_id if self._machine is not None else 0

    def _spend(self, cost: int = 1) -> None:
        self._budget.spend(self.heard_at, self._turns.sent, cost)

    _stateful: ClassVar[dict[int, "_Handler"]] = {
        FrameKind.DATA: _data,
        FrameKind.HEADERS: _headers,
        FrameKind.SETTINGS: _settings,
        FrameKind.CONTINUATION: _headers,
    }
    _others: ClassVar[dict[int, "_Handler"]] = {
        FrameKind.PRIORITY: _priority,
        FrameKind.RST_STREAM: _peer_reset,
        FrameKind.PUSH_PROMISE: _push_promise,
        FrameKind.PING: _ping,
        FrameKind.GOAWAY: _goaway,
        FrameKind.WINDOW_UPDATE: _window_update,
    }


_Handler = Callable[[PeerFrames, H2Machine, bytes, int, int], None]


def _require_size(frame: bytes, size: int) -> None:
    if len(frame) != HEAD_BYTES + size:
        raise PeerError(Http2Code.FRAME_SIZE_ERROR, f"{FrameKind(frame[3]).name} has not {size} bytes")
