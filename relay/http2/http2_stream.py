"""One stream of an HTTP/2 connection: a request, and its answer.

Owns what is sent on a stream: its window, its queue, its end. It is the sink of a link (`relay.live.link.Sink`), and
what is written to many streams is one `DataBatch`. When both windows allow and nothing waits, a write is one call of
the transport, with bytes that all streams share. Does not read frames: see `relay.http2.peer_frames`.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final, Protocol

from relay.http2.data_batch import DataBatch
from relay.http2.header_blocks import HeaderFields
from relay.http2.http2_frames import END_STREAM, HALF_WINDOW, FrameKind, Http2Code, data_frames, frame
from relay.http2.send_turns import AHEAD_BYTES, SHORT_BYTES, SendTurns

_LOW_BYTES: Final = AHEAD_BYTES // 4
"""Unsent bytes at which a writer that waits may continue."""

_TURN_BYTES: Final = 8 << 10
"""Bytes that a stream sends when it is its turn."""

_OPEN: Final = 0  # nothing was sent
_BODY: Final = 1  # headers were sent
_ENDED: Final = 2  # the end waits behind what is queued
_OVER: Final = 3


class Standing(IntEnum):
    """Who a stream belongs to, as far as the place of its connection is concerned."""

    STRANGER = 0
    GUEST = 1  # its client has shown a credential
    LINK = 2  # admission counts it


class StreamReceiver(Protocol):
    """Gets the body of a request, and learns the end of its stream."""

    def data(self, data: bytes, ended: bool) -> None:
        """Handle bytes of the body; `ended`: they are the last. They may be empty."""

    def lost(self, code: int | None) -> None:
        """Learn that the stream is over, and nothing more is sent or received.

        Called once, unless everything up to `Http2Stream.end` was given to the transport, or after `reset` and `abort`.
        `code`: that of the reset, by the peer or for its error; None: the connection is lost.
        """


class Http2Service(Protocol):
    """Answers requests."""

    def begin(self, stream: "Http2Stream", headers: HeaderFields) -> StreamReceiver:
        """Handle a request. Called in the turn in which its headers come; must not block.

        `headers` are checked (RFC 9113 section 8.3), and not larger than four times `Http2Limits.header_bytes`. The
        service sets a deadline for the body. An exception is logged, and ends the stream with INTERNAL_ERROR.
        """


class _Nobody:
    """The receiver of a stream that is over: what belonged to it is freed at once, without a look for cycles."""

    def data(self, data: bytes, ended: bool) -> None: ...
    def lost(self, code: int | None) -> None: ...


_NOBODY: Final = _Nobody()


class Owner(Protocol):
    """The connection of a stream."""

    def encode(self, stream_id: int, fields: HeaderFields, *, ended: bool) -> bytes:
        """Render headers."""

    def stream_ended(self, stream: "Http2Stream") -> None:
        """Learn that the last frame of a stream was sent."""

    def reset_stream(self, stream: "Http2Stream", code: int) -> None:
        """Send a reset, and forget the stream."""

    def taken(self, stream: "Http2Stream", size: int) -> None:
        """Let the peer send `size` more bytes of a request."""

    def info(self, name: str) -> Any:
        """Return a fact of the transport."""

    def credential_accepted(self, stream: "Http2Stream") -> bool:
        """Learn that the client of a stream has shown a credential; return False when there is no room for it."""

    def became_link(self, stream: "Http2Stream") -> None:
        """Learn that admission counts a stream."""


class Http2Stream:
    """A stream, made by its connection. No task and no timer belongs to it."""

    __slots__ = (
        "_end",
        "_offset",
        "_owner",
        "_queue",
        "_state",
        "_taken_bytes",
        "_turns",
        "began_at",
        "ended_at",
        "has_turns",
        "header_bytes",
        "id",
        "is_held",
        "is_request_complete",
        "on_done",
        "queued_bytes",
        "receiver",
        "standing",
        "window",
    )

    def __init__(
        self, stream_id: int, owner: Owner, turns: SendTurns, *, window: int, header_bytes: int, now: float
    ) -> None:
        self.id = stream_id
        self.began_at = now
        self.window = window
        """Bytes that the peer takes on this stream; may be negative after it has changed its settings."""
        self.header_bytes = header_bytes
        """Size of the request's headers, to be compared with `Http2Limits.header_bytes`."""
        self.is_request_complete = False
        """Whether the peer has sent all of its request."""
        self.is_held = False
        """True while the service wants no more of the request: the peer sends the rest of one window, and stops."""
        self.queued_bytes = 0
        self.has_turns = False
        self.ended_at: float | None = None  # since when its end was seen to wait behind what is queued
        self.receiver: StreamReceiver = _NOBODY
        self.standing = Standing.STRANGER
        self.on_done: Callable[[], None] | None = None
        """Called once when the stream is over and `StreamReceiver.lost` is not called: its end was sent, or a reset."""
        self._owner = owner
        self._turns = turns
        self._queue: deque[DataBatch] | None = None
        self._taken_bytes = 0  # of the request, since the peer was allowed more
        self._offset = 0  # how much of the first one was sent
        self._end: bytes | int = b""  # the last frame, when it is known, or the code of a reset
        self._state = _OPEN

    # --- for the service -----------------------------------------------------------------------------------------

    def get_extra_info(self, name: str) -> Any:
        """Return a fact of the connection, as `asyncio.BaseTransport.get_extra_info` does."""
        return self._owner.info(name)

    def own_transport(self) -> asyncio.Transport | None:
        """Return the transport when this is the first stream of its connection, as nearly all are.

        `relay/live/sending/_send_loop.c` may then send the frames of a `DataBatch` past it, when `write` would do so at
        once: it reads `_state`, `_queue`, `_turns` and `window`, and takes what it sends from both windows.
        """
        return self._turns.transport if self.id == 1 else None

    def credential_accepted(self) -> bool:
        """Keep the connection while this stream is open: its client has shown a credential.

        Returns False, and changes nothing, when as many connections of others are kept.
        """
        return self._owner.credential_accepted(self)

    def became_link(self) -> None:
        """Keep the connection while this stream is open: admission counts it, also its connection."""
        self._owner.became_link(self)

    def hold(self) -> None:
        """Let the peer send no more than 64 KB of the request, until `proceed`."""
        self.is_held = True

    def proceed(self) -> None:
        """Let the peer send on, after `hold`."""
        self.is_held = False
        self.took(0)

    def send_headers(self, fields: HeaderFields, *, ended: bool = False) -> None:
        """Send the headers of the answer, once; `ended`: they are all of it. Does nothing when the stream is over.

        Raises:
            ValueError: A header is not allowed in HTTP/2, or headers were sent before.
        """
        if self._state == _OVER:
            return
        if self._state != _OPEN:
            raise ValueError(f"headers of stream {self.id} were sent before")
        self._turns.send(self._owner.encode(self.id, fields, ended=ended))
        self._state = _BODY
        if ended:
            self._finish()

    def write(self, data: DataBatch | bytes) -> None:
        """Send bytes of the body, after the headers; never blocks. Does nothing when the stream has ended."""
        if self._state != _BODY:
            if self._state == _OPEN:
                raise ValueError(f"headers of stream {self.id} come before its body")
            return
        batch = data if type(data) is DataBatch else DataBatch(data)  # type: ignore[arg-type]
        size, turns = batch.size, self._turns
        if (
            self._queue is None
            and size <= self.window
            and size <= turns.window
            and size <= AHEAD_BYTES
            and not turns.is_paused
        ):
            self.window -= size
            turns.window -= size
            frames = batch.first if self.id == 1 else batch.frames(self.id)
            if turns.is_direct:  # nearly always: a call less, for each link and round
                turns.transport.write(frames)
            else:
                turns.send(frames)
        elif size:
            if self._queue is None:
                self._queue = deque()
            self._queue.append(batch)
            self.queued_bytes += size
            self.widen(0)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait: those of this stream, and those in the transport, which come before them."""
        return self.queued_bytes + self._turns.transport.get_write_buffer_size()

    def is_closing(self) -> bool:
        """Whether nothing more can be written."""
        return self._state >= _ENDED

    async def drained(self) -> None:
        """Wait until the peer has taken most of what was written, or the stream is over."""
        while self._state != _OVER and (self.queued_bytes > _LOW_BYTES or self._turns.is_paused):
            await self._turns.progress()

    def end(self, trailers: HeaderFields | None = None) -> None:
        """End the answer after all that was written, with trailers or without. Does nothing when it has ended.

        Raises:
            ValueError: A trailer is not allowed in HTTP/2, or headers were not sent.
        """
        if self._state == _OPEN:
            raise ValueError(f"headers of stream {self.id} come before its end")
        if self._state != _BODY:
            return
        self._end = (
            frame(FrameKind.DATA, END_STREAM, self.id)
            if trailers is None
            else self._owner.encode(self.id, trailers, ended=True)
        )
        self._state = _ENDED
        if self._queue is None:
            self._send_end()

    def end_early(self, trailers: HeaderFields, piece_end: Callable[[bytes, int], int]) -> None:
        """End the answer with `trailers`, and drop what is queued; also when `end` was called before.

        A piece of the body that has been sent in part is sent to its end: `piece_end` returns where that is, from the
        bytes of a write and the place up to which they were sent.
        """
        queue, self._queue, self.queued_bytes = self._queue, None, 0
        if queue is None or self._state not in (_BODY, _ENDED):
            self.end(trailers)
            return
        self._end = self._owner.encode(self.id, trailers, ended=True)
        self._state = _ENDED
        payload, offset = queue[0].payload, self._offset
        rest = payload[offset : piece_end(payload, offset)] if offset else b""
        self._offset = 0
        if rest:
            self._queue = deque((DataBatch(rest),))
            self.queued_bytes = len(rest)
        else:
            self._send_end()
        self._turns.wake()

    def reset(self, code: int = Http2Code.CANCEL) -> None:
        """End the stream at once, without what is queued."""
        if self._state != _OVER:
            self._owner.reset_stream(self, code)

    def reset_later(self, code: int) -> None:
        """Reset the stream after all that was written."""
        if self._state == _BODY and self._queue is not None:
            self._end, self._state = code, _ENDED
        else:
            self.reset(code)

    def abort(self) -> None:
        """End the stream at once, as a transport does."""
        self.reset()

    # --- for the connection --------------------------------------------------------------------------------------

    def took(self, size: int) -> None:
        """Count bytes of the request that were handled; let the peer send as many more when they are half a window."""
        self._taken_bytes += size
        if self._taken_bytes >= HALF_WINDOW and not self.is_held and not self.is_request_complete:
            size, self._taken_bytes = self._taken_bytes, 0
            self._owner.taken(self, size)

    def widen(self, increment: int) -> None:
        """Take more bytes from the window's peer, and send what waits."""
        self.window += increment
        if self._queue is not None and self.window > 0:
            self._turns.add(self)
            self._turns.pump()

    def send_next(self) -> bool:
        """Send a part of what is queued; return whether more can follow as far as this stream is concerned.

        The connection's window is open.
        """
        queue, turns = self._queue, self._turns
        if queue is None:  # it was reset
            return False
        room = min(self.window, turns.window, _TURN_BYTES)
        if room <= 0:
            return False
        batch, offset = queue[0], self._offset
        size = min(room, batch.size - offset)
        if size == batch.size:
            turns.send(batch.frames(self.id))
        else:
            turns.send(data_frames(self.id, batch.payload[offset : offset + size]))
        self.window -= size
        turns.window -= size
        self.queued_bytes -= size
        self._offset += size
        if size < SHORT_BYTES:
            turns.padding += SHORT_BYTES - size
        if self._offset == batch.size:
            queue.popleft()
            self._offset = 0
            if not queue:
                self._queue = None
                if self._state == _ENDED:
                    self._send_end()
                return False
        return self.window > 0

    def over(self) -> None:
        """Drop what is queued, and the receiver: the stream was reset."""
        self.stop()
        self.receiver = _NOBODY

    def stop(self) -> None:
        """Drop what is queued: the connection is lost. The receiver stays until it learns so."""
        self._state = _OVER
        self._queue, self._end = None, b""
        self.queued_bytes = 0

    def is_over(self) -> bool:
        """Whether `over` was called, or all was sent."""
        return self._state == _OVER

    def is_ending(self) -> bool:
        """Whether its end waits behind what is queued."""
        return self._state == _ENDED

    # --- its own -------------------------------------------------------------------------------------------------

    def _send_end(self) -> None:
        if isinstance(self._end, bytes):
            self._turns.send(self._end)
            self._finish()
        else:
            self._owner.reset_stream(self, self._end)

    def _finish(self) -> None:
        self._state, self.receiver = _OVER, _NOBODY
        self._owner.stream_ended(self)
