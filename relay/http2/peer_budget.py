"""What one peer may cause without a use for it: counted in constant memory.

Owns the allowances for frames that bring nothing, for resets and for pings, and the error that ends a connection
because of its peer. Does not know what a frame means.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from relay.http2.http2_frames import Http2Code
from relay.http2.http2_limits import Http2Limits

_SENT_BYTES: Final = 12
"""Bytes that we send which allow one more frame: clients answer a message with two window updates and a ping, and a
compressed round has 40 bytes."""
_LITTLE_BYTES: Final = 8 << 10
"""Forty rounds."""
_STRIKES: Final = 2
"""Pings that may come too soon; the timers of peers and networks are not exact."""


class FaultReason(StrEnum):
    """Why a connection was ended because of its peer: a word for metrics and logs."""

    NOT_HTTP2 = "not_http2"  # it did not begin as HTTP/2 does
    SLOW = "slow"  # the rest of a frame or header block did not come in time
    UNREAD = "unread"  # it sends, and does not read what we answer
    FRAMES = "too_many_frames"  # without data: pings, settings, window updates, priorities, empty data
    RESETS = "too_many_resets"
    PINGS = "too_many_pings"
    HEADERS = "too_large_headers"
    FLOW_CONTROL = "flow_control"
    COMPRESSION = "compression"
    PROTOCOL = "protocol"  # any other violation of RFC 9113


_REASONS: Final[Mapping[int, FaultReason]] = {
    Http2Code.FLOW_CONTROL_ERROR: FaultReason.FLOW_CONTROL,
    Http2Code.COMPRESSION_ERROR: FaultReason.COMPRESSION,
    Http2Code.ENHANCE_YOUR_CALM: FaultReason.HEADERS,
}
"""Where nothing else is said. A list of headers that is too large is found by h2."""


class PeerError(Exception):
    """The connection ends because of what its peer sent. `text` is sent to it."""

    def __init__(self, code: Http2Code, text: str, reason: FaultReason | None = None) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text
        self.reason = reason or _REASONS.get(code, FaultReason.PROTOCOL)


class PeerBudget:
    """The allowances of one connection. `sent` is always the number of bytes of data sent on it so far."""

    __slots__ = ("_frames", "_frames_at", "_limits", "_pinged_at", "_resets", "_resets_at", "_sent", "_strikes")

    def __init__(self, limits: Http2Limits, now: float) -> None:
        self._limits = limits
        self._frames: float = limits.frames
        self._resets: float = limits.resets
        self._frames_at = self._resets_at = now
        self._sent = 0
        self._pinged_at = (now - limits.ping_s, 0)
        self._strikes = 0

    def spend(self, now: float, sent: int, cost: int = 1) -> None:
        """Count a frame that brings nothing; raise `PeerError` when there were too many."""
        self._frames -= cost
        if self._frames < 0:
            limits = self._limits
            earned = (now - self._frames_at) * limits.frames_per_s + (sent - self._sent) / _SENT_BYTES
            self._frames = min(limits.frames, self._frames + earned)
            self._frames_at, self._sent = now, sent
            if self._frames < 0:
                raise PeerError(Http2Code.ENHANCE_YOUR_CALM, "too many frames without data", FaultReason.FRAMES)

    def spend_reset(self, now: float) -> None:
        """Count a stream that was reset soon after it began; raise `PeerError` when there were too many."""
        self._resets -= 1
        if self._resets < 0:
            limits = self._limits
            self._resets = min(limits.resets, self._resets + (now - self._resets_at) * limits.resets_per_s)
            self._resets_at = now
            if self._resets < 0:
                raise PeerError(Http2Code.ENHANCE_YOUR_CALM, "too many streams were reset", FaultReason.RESETS)

    def spend_ping(self, now: float, sent: int) -> bool:
        """Count a ping; return whether a little data was sent since the last one: its answer may wait for more.

        Not when it was much: some peers measure the connection by what comes before the answer, and allow as much.

        Raises:
            PeerError: Too many pings came without data.
        """
        at, sent_then = self._pinged_at
        self._pinged_at = now, sent
        if sent != sent_then:
            self._strikes = 0
            return sent - sent_then < _LITTLE_BYTES
        if now - at < self._limits.ping_s:
            self._strikes += 1
            if self._strikes > _STRIKES:
                # The text is the word that gRPC clients know.
                raise PeerError(Http2Code.ENHANCE_YOUR_CALM, "too_many_pings", FaultReason.PINGS)
        return False
