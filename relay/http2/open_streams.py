"""The open streams of one connection: how each begins, and how it ends.

Owns which streams there are, and what their service learns. Does not read frames: see `relay.http2.peer_frames`.
"""

import asyncio
import math
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog

from relay.http2.connection_care import Leaving
from relay.http2.header_blocks import NO_TABLE, HeaderFields, header_block
from relay.http2.http2_connections import Http2Connections
from relay.http2.http2_frames import DEFAULT_WINDOW, Http2Code, header_frames, reset_frame
from relay.http2.http2_stream import Http2Service, Http2Stream
from relay.http2.peer_budget import PeerBudget
from relay.http2.send_turns import SendTurns

if TYPE_CHECKING:
    from relay.http2.h2_machine import H2Machine

log = structlog.get_logger()

_REFUSED_COST: Final = 5
"""What a refused stream takes from the allowance for frames."""
_RAPID_S: Final = 1.0
"""A stream that was open for this long is not reset rapidly."""


class OpenStreams:
    """The part of a connection that knows its streams."""

    __slots__ = (
        "_budget",
        "_connections",
        "_has_encoded",
        "_initial_window",
        "_machine",
        "_service",
        "_streams",
        "_transport",
        "_turns",
        "_unread",
        "heard_at",
        "leaving",
        "quiet_since",
    )

    _transport: asyncio.Transport
    _turns: SendTurns

    def __init__(self, service: Http2Service, connections: Http2Connections) -> None:
        self._service = service
        self._connections = connections
        self._has_encoded = False
        self._initial_window = DEFAULT_WINDOW
        self._machine: H2Machine | None = None  # since the preface, while there is a connection
        self._streams: dict[int, Http2Stream] = {}
        self._unread: dict[int, float] = {}
        """Streams that were answered before their request was complete, and since when. curl misses an answer that a
        reset follows at once, so the rest of the request is dropped for a while."""
        self.heard_at = now = connections.now()
        self.quiet_since: float | None = now
        self.leaving = Leaving.NO
        self._budget = PeerBudget(connections.limits, now)

    @property
    def open_streams(self) -> Collection[Http2Stream]:
        return self._streams.values()

    # --- for `Http2Stream` ---------------------------------------------------------------------------------------

    def info(self, name: str) -> Any:
        return self._transport.get_extra_info(name)

    def encode(self, stream_id: int, fields: HeaderFields, *, ended: bool) -> bytes:
        block = header_block(tuple(fields))
        if not self._has_encoded:
            self._has_encoded = True
            block = NO_TABLE + block
        return header_frames(stream_id, block, ended=ended)

    def taken(self, stream: Http2Stream, size: int) -> None:
        if self._machine is not None and not stream.is_over():
            self._machine.taken(stream.id, size)
            self._turns.send(self._machine.output())

    def stream_ended(self, stream: Http2Stream) -> None:
        self._forget(stream)
        if self._machine is not None:
            self._machine.end(stream.id)
            if not stream.is_request_complete:
                self._unread[stream.id] = self._connections.now()
                if len(self._unread) + len(self._streams) > self._connections.limits.streams:
                    self.reset_unread(before=math.inf)
        self._done(stream)

    def reset_stream(self, stream: Http2Stream, code: int) -> None:
        self._forget(stream)
        stream.over()
        self._reset(stream.id, code)
        self._turns.wake()
        self._done(stream)

    def credential_accepted(self, stream: Http2Stream) -> bool:
        """See `relay.http2.guards.guarded_http2`; without guards each connection is kept."""
        return True

    def became_link(self, stream: Http2Stream) -> None:
        """See `relay.http2.guards.guarded_http2`."""

    # --- for `Http2Connections` ----------------------------------------------------------------------------------

    def reset_unread(self, before: float) -> None:
        """Ask the peer to stop the requests that were answered before a time (RFC 9113 section 8.1)."""
        for stream_id in [stream_id for stream_id, since in self._unread.items() if since < before]:
            del self._unread[stream_id]
            self._reset(stream_id, Http2Code.NO_ERROR)

    # --- for the frames of the peer ------------------------------------------------------------------------------

    def _begin(self, stream_id: int, headers: HeaderFields, *, ended: bool) -> None:
        """Open a stream, and give it to the service."""
        if len(self._streams) >= self._connections.limits.streams or self.leaving is Leaving.FINAL:
            self._budget.spend(self.heard_at, self._turns.sent, _REFUSED_COST)
            self._reset(stream_id, Http2Code.REFUSED_STREAM)
            return
        stream = self._streams[stream_id] = Http2Stream(
            stream_id,
            self,
            self._turns,
            window=self._initial_window,
            header_bytes=sum(len(name) + len(value) + 32 for name, value in headers),
            now=self.heard_at,
        )
        stream.is_request_complete = ended
        self.quiet_since = None

        def begin() -> None:
            receiver = self._service.begin(stream, headers)
            if not stream.is_over():
                stream.receiver = receiver
                if ended:
                    receiver.data(b"", True)

        self._call(stream, begin)

    def _deliver(self, stream_id: int, data: bytes, *, ended: bool) -> None:
        """Give bytes of a request to the service, if their stream is still open."""
        stream = self._streams.get(stream_id)
        if ended:
            self._unread.pop(stream_id, None)
        if stream is not None:
            stream.is_request_complete = ended
            self._call(stream, partial(stream.receiver.data, data, ended))

    def _stream_failed(self, stream_id: int, code: Http2Code) -> None:
        """Reset a stream because of its peer; the service may not know it yet."""
        self._reset(stream_id, code)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._budget.spend_reset(self.heard_at)
        else:
            self._lose(stream, code)

    def _lose(self, stream: Http2Stream, code: int) -> None:
        """End a stream that its peer has reset, or that was reset for an error of it."""
        self._forget(stream)
        receiver = stream.receiver
        stream.over()
        self._call(stream, partial(receiver.lost, code))
        self._turns.wake()
        if self.heard_at - stream.began_at < _RAPID_S:
            self._budget.spend_reset(self.heard_at)

    # --- for the connection --------------------------------------------------------------------------------------

    def _drop_streams(self) -> Callable[[], None] | None:
        """End all streams: the connection is lost. Return what tells the service."""
        dropped = [*self._streams.values()]
        self._streams = {}
        for stream in dropped:
            stream.stop()
        self._turns.waiting = None
        self._turns.wake()
        return partial(self._report_all, dropped) if dropped else None

    # --- its own -------------------------------------------------------------------------------------------------

    def _reset(self, stream_id: int, code: int) -> None:
        if self._machine is not None:
            self._machine.reset(stream_id, code)
            self._turns.send(reset_frame(stream_id, code))

    def _forget(self, stream: Http2Stream) -> None:
        self._streams.pop(stream.id, None)
        if not self._streams:
            self.quiet_since = self._connections.now()

    def _done(self, stream: Http2Stream) -> None:
        done, stream.on_done = stream.on_done, None
        if done is not None:
            self._call(stream, done)

    def _report_all(self, dropped: list[Http2Stream]) -> None:
        for stream in dropped:
            receiver = stream.receiver  # a service may have handed the stream over since the connection was lost
            stream.over()
            self._call(stream, partial(receiver.lost, None))

    def _call(self, stream: Http2Stream, step: Callable[[], None]) -> None:
        """Call the service; a bug in it ends one stream."""
        try:
            step()
        except Exception:
            log.exception("http2_stream_failed", stream=stream.id)
            stream.reset(Http2Code.INTERNAL_ERROR)
