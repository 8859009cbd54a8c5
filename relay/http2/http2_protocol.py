"""One HTTP/2 connection of a server: its bytes, and its end.

Owns the cutting of bytes into frames, and how the connection is closed. Frames are handled in
`relay.http2.peer_frames`, bodies sent by `relay.http2.http2_stream`. It is the receiver of a
`relay.links.intake.Intake`, which bounds how much is read, and when.
"""

import asyncio
from collections.abc import Callable
from typing import Final

from relay.http2.guards.http1_refusal import http1_refusal
from relay.http2.h2_machine import H2Machine
from relay.http2.http2_connections import Fault, Http2Connections
from relay.http2.http2_frames import (
    FRAME_BYTES,
    HEAD_BYTES,
    PREFACE,
    Http2Code,
    goaway_frame,
)
from relay.http2.http2_stream import Http2Service
from relay.http2.peer_budget import FaultReason, PeerError
from relay.http2.peer_frames import PeerFrames
from relay.http2.send_turns import AHEAD_BYTES, SendTurns
from relay.live.closed import CLOSED

_COSTS: Final = 16
"""Cost of the frames that are handled before others have a turn: 0.2 ms."""
_UNREAD_BYTES: Final = 4 * AHEAD_BYTES
"""Bytes in the transport at which a peer that sends does not read: streams stop at a quarter of it."""


class Http2Protocol(PeerFrames):
    """A connection. It is made for an `Intake`, or for a caller that does as one."""

    __slots__ = (
        "_place",
        "_rest",
        "closed_at",
        "expires_at",
        "partial_since",
        "pinged_at",
    )

    holds_reading = False
    """See `relay.links.intake.Receiver`."""

    def __init__(self, service: Http2Service, connections: Http2Connections) -> None:
        """Wait for a transport, and for the preface."""
        super().__init__(service, connections)
        self._rest = b""
        now = self.heard_at
        self.expires_at = now + connections.age_s()
        self.partial_since: float | None = now
        self.pinged_at: float | None = None
        self.closed_at: float | None = None

    # --- what the event loop calls, through `Intake` --------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for the preface. Our settings are sent after it, so that a client of HTTP/1 gets only an answer."""
        self._transport = transport  # type: ignore[assignment]  # as of any stream
        self._transport.set_write_buffer_limits(high=AHEAD_BYTES)
        self._turns = SendTurns(self._transport)
        self._place = self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> Callable[[], None] | None:
        """Stop; return the rest of the work, which may wait for a later turn."""
        self._connections.remove(self, self._place)
        self.closed_at = self._connections.now()
        self._transport = self._turns.transport = CLOSED
        self._machine, self._rest = None, b""
        return self._drop_streams()

    def pause_writing(self) -> None:
        self._turns.is_paused = True

    def resume_writing(self) -> None:
        self._turns.is_paused = False
        self._turns.pump()
        self._turns.wake()

    def eof_received(self) -> bool:
        """Close: a peer that cannot send cannot allow more data."""
        return False

    def data_received(self, data: bytes) -> bool:
        """Handle some of the frames that have come; return whether to call again, with ``b""``, for the others."""
        if self.closed_at is not None:
            return False
        self.heard_at = self._connections.now()
        if self._rest:
            data = self._rest + data
        self._turns.collect()
        try:
            self._rest, has_more = self._frames(data)
        except PeerError as error:
            self._rest = b""
            self.fail(error)
            return False
        finally:
            self._turns.flush()
        if self._turns.is_paused and self._turns.transport.get_write_buffer_size() > _UNREAD_BYTES:
            self._report(PeerError(Http2Code.ENHANCE_YOUR_CALM, "answers are not read", FaultReason.UNREAD))
            self.abort()
        elif self._turns.waiting:
            self._turns.pump()
        return has_more

    # --- for `Http2Connections` ----------------------------------------------------------------------------------

    def fail(self, error: PeerError) -> None:
        """End the connection because of its peer, and say why."""
        self._report(error)
        if self._machine is not None:
            self._turns.send(goaway_frame(self._last_id(), error.code, error.text.encode("ascii", "replace")))
        self.close()

    def close(self) -> None:
        """Close the connection, after what was written; its streams are lost."""
        if self.closed_at is None:
            self._turns.flush()
            self.closed_at = self._connections.now()
            self._turns.transport = CLOSED
            self._transport.close()
            if (report := self._drop_streams()) is not None:
                report()

    def abort(self) -> None:
        """Cut the connection; its streams are lost soon after."""
        if self.closed_at is None:
            self.closed_at = self._connections.now()
            self._turns.transport = CLOSED
        self._transport.abort()

    # --- its own -------------------------------------------------------------------------------------------------

    def _report(self, error: PeerError) -> None:
        fault = Fault(error.code, error.text, self.info("peername"), len(self._streams), error.reason)
        self._connections.on_fault(fault)

    def _frames(self, data: bytes) -> tuple[bytes, bool]:
        """Handle frames; return the bytes that are left, and whether there may be frames in them."""
        machine, at = self._machine, 0
        if machine is None:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                self._turns.send(http1_refusal(data))
                text = "the connection does not begin as HTTP/2 does"
                raise PeerError(Http2Code.PROTOCOL_ERROR, text, FaultReason.NOT_HTTP2)
            if len(data) < len(PREFACE):
                return data, False
            machine, at = H2Machine(header_bytes=self._max_header_bytes), len(PREFACE)
            self._machine = machine
            self._turns.send(self._connections.greeting)
            tls = self.info("ssl_object")
            if tls is not None and tls.selected_alpn_protocol() != "h2":  # RFC 9113 section 3.2
                raise PeerError(Http2Code.INADEQUATE_SECURITY, "TLS without ALPN h2", FaultReason.NOT_HTTP2)
        first, cost = at, 0
        while cost < _COSTS and self.closed_at is None and (end := _end_of_frame(data, at)) is not None:
            cost += self._frame(machine, data[at:end])
            at = end
        rest = data[at:]
        if not rest and self._block is None and self._has_settings:
            self.partial_since = None
        elif self.partial_since is None or (at > first and self._block is None):
            self.partial_since = self.heard_at
        return rest, cost >= _COSTS and len(rest) >= HEAD_BYTES


def _end_of_frame(data: bytes, at: int) -> int | None:
    """Return where the frame at `at` ends; None when it is not complete."""
    if len(data) - at < HEAD_BYTES:
        return None
    length = data[at] << 16 | data[at + 1] << 8 | data[at + 2]
    if length > FRAME_BYTES:
        raise PeerError(Http2Code.FRAME_SIZE_ERROR, "a frame is too long")
    end = at + HEAD_BYTES + length
    return end if end <= len(data) else None
