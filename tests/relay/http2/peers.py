"""A connection of the engine in memory, with `h2` as the client at its other end."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    PingAckReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.settings import SettingCodes, Settings

from relay.http2 import (
    Fault,
    HeaderFields,
    Http2Connections,
    Http2Limits,
    Http2Protocol,
    Http2Stream,
)

REQUEST: Final = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/a"),
    (b":authority", b"localhost"),
    (b"te", b"trailers"),
)
ANSWER: Final = ((b":status", b"200"), (b"content-type", b"application/octet-stream"))
TRAILERS: Final = ((b"x-end", b"0"),)


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class MemoryTransport(asyncio.Transport):
    """Keeps what is written. While `holds`, it counts as unsent until the client takes it, as with a full kernel."""

    def __init__(self, *, holds: bool = False) -> None:
        super().__init__()
        self.written = bytearray()
        self.writes = 0
        self.holds = holds
        self.is_closed = self.is_aborted = False
        self.protocol: Http2Protocol | None = None
        self._high = 64 << 10
        self._is_paused = False

    def write(self, data: Any) -> None:
        if not self.is_closed:
            self.written += data
            self.writes += 1
            if self.get_write_buffer_size() > self._high and not self._is_paused and self.protocol is not None:
                self._is_paused = True
                self.protocol.pause_writing()

    def take(self, size: int | None = None) -> bytes:
        """Take bytes as the client."""
        taken = bytes(self.written[:size])
        del self.written[: len(taken)]
        if self._is_paused and self.get_write_buffer_size() <= self._high // 4 and self.protocol is not None:
            self._is_paused = False
            self.protocol.resume_writing()
        return taken

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.holds else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = high or 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 5) if name == "peername" else default

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True


class Received:
    """A request as a service gets it, and the stream to answer it."""

    def __init__(self, stream: Http2Stream, headers: HeaderFields) -> None:
        self.stream = stream
        self.headers = headers
        self.body = bytearray()
        self.is_complete = False
        self.losses: list[int | None] = []

    def data(self, data: bytes, ended: bool) -> None:
        assert not self.is_complete
        self.body += data
        self.is_complete = ended

    def lost(self, code: int | None) -> None:
        self.losses.append(code)


class Recorder:
    """A service that answers only when a test does; or as `on_request` does."""

    def __init__(self, on_request: Callable[[Received], None] | None = None) -> None:
        self.requests: list[Received] = []
        self._on_request = on_request

    def begin(self, stream: Http2Stream, headers: HeaderFields) -> Received:
        received = Received(stream, headers)
        self.requests.append(received)
        if self._on_request is not None:
            self._on_request(received)
        return received


class Pair:
    """A connection of the engine, and its client."""

    def __init__(
        self,
        service: Any = None,
        *,
        limits: Http2Limits | None = None,
        window: int = 65_535,
        holds: bool = False,
        cuts: Iterable[int] = (1 << 30,),
        connections: Http2Connections | None = None,
    ) -> None:
        """Connect. `window` is the client's for each stream; `cuts` how many bytes go at a time, in both directions."""
        self.service = service or Recorder()
        self.clock = Clock()
        self.faults: list[Fault] = []
        if connections is None:
            connections = Http2Connections(limits or Http2Limits(), clock=self.clock, on_fault=self.faults.append)
        self.connections = connections
        self.transport = MemoryTransport(holds=holds)
        self.server = self.transport.protocol = Http2Protocol(self.service, self.connections)
        self.client = H2Connection(H2Configuration(client_side=True))
        self.client.local_settings = Settings(
            client=True, initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.ENABLE_PUSH: 0}
        )
        self.client.initiate_connection()
        self.events: list[Event] = []
        self._cuts = itertools.cycle(cuts)
        self.server.connection_made(self.transport)
        self.upload()
        self.download()

    # --- bytes ---------------------------------------------------------------------------------------------------

    def upload(self, data: bytes | None = None) -> None:
        """Give the server what the client has to send, or other bytes."""
        data = self.client.data_to_send() if data is None else data
        while data:
            size = next(self._cuts)
            has_more = self.server.data_received(data[:size])
            while has_more:
                has_more = self.server.data_received(b"")
            data = data[size:]

    def download(self, size: int | None = None) -> None:
        """Give the client what the server has sent, and the server what the client answers by itself."""
        data = self.transport.take(size)
        while data:
            cut = next(self._cuts)
            self.events += self.client.receive_data(data[:cut])
            data = data[cut:]
        self.upload()

    def settle(self) -> None:
        """Move bytes until both have nothing to send."""
        self.upload()
        while self.transport.written:
            self.download()

    # --- the client ----------------------------------------------------------------------------------------------

    def request(
        self, headers: Sequence[tuple[bytes, bytes]] = REQUEST, *, body: bytes = b"", ended: bool = True
    ) -> int:
        """Send a request; return its stream's id."""
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(stream_id, headers, end_stream=ended and not body)
        if body:
            self.client.send_data(stream_id, body, end_stream=ended)
        self.settle()
        return stream_id

    def body(self, stream_id: int) -> bytes:
        """Return all data that the client has received on a stream."""
        return b"".join(
            event.data for event in self.events if isinstance(event, DataReceived) and event.stream_id == stream_id
        )

    def headers(self, stream_id: int) -> list[list[tuple[bytes, bytes]]]:
        """Return the headers and trailers that the client has received on a stream."""
        return [
            [(name, value) for name, value in event.headers]
            for event in self.events
            if isinstance(event, ResponseReceived | TrailersReceived) and event.stream_id == stream_id
        ]

    def has_ended(self, stream_id: int) -> bool:
        """Whether the client has received the end of a stream."""
        return any(isinstance(event, StreamEnded) and event.stream_id == stream_id for event in self.events)

    def resets(self) -> list[tuple[int, int]]:
        """Return the streams that the server has reset, with their codes."""
        return [
            (event.stream_id, int(event.error_code))
            for event in self.events
            if isinstance(event, StreamReset) and event.remote_reset
        ]

    def goaways(self) -> list[tuple[int, int, bytes | None]]:
        """Return each GOAWAY that the client has received: last stream, code, text."""
        return [
            (event.last_stream_id or 0, int(event.error_code or 0), event.additional_data)
            for event in self.events
            if isinstance(event, ConnectionTerminated)
        ]

    def pongs(self) -> int:
        """Return how many answers to pings the client has received."""
        return sum(isinstance(event, PingAckReceived) for event in self.events)
