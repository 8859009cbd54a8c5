"""What one peer may cause without a use for it: counted in constant memory.

Owns the allowances for frames that bring nothing, for resets and for pings, and the error that ends a connection
because of its peer. Does not know what a frame means.
"""

from typing import Final

from relay.http2.http2_frames import Http2Code
from relay.http2.http2_limits import Http2Limits

_SENT_BYTES: Final = 32
"""Bytes that we send which allow one more frame: clients answer a small message with two window updates and a ping."""
_STRIKES: Final = 2
"""Pings that may come too soon; the timers of peers and networks are not exact."""


class PeerError(Exception):
    """The connection ends because of what its peer sent. `text` is sent to it, and logged."""

    def __init__(self, code: Http2Code, text: str) -> None:
        super().__init__(code, text)
        self.code, self.text = code, text


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
                raise PeerError(Http2Code.ENHANCE_YOUR_CALM, "too many frames without data")

    def spend_reset(self, now: float) -> None:
        """Count a stream that was reset soon after it began; raise `PeerError` when there were too many."""
        self._resets -= 1
        if self._resets < 0:
            limits = self._limits
            self._resets = min(limits.resets, self._resets + (now - self._resets_at) * limits.resets_per_s)
            self._resets_at = now
            if self._resets < 0:
                raise PeerError(Http2Code.ENHANCE_YOUR_CALM, "too many streams were reset")

    def spend_ping(self, now: float, sent: int) -> bool:
        """Count a ping; return whether data was sent since the last one. Raise `PeerError` for too many without."""
        at, sent_then = self._pinged_at
        self._pinged_at = now, sent
        if sent != sent_then:
            self._strikes = 0
            return True
        if now - at < self._limits.ping_s:
            self._strikes += 1
            if self._strikes > _STRIKES:
                raise PeerError(Http2Code.ENHANCE_YOUR_CALM, "too_many_pings")  # the word that gRPC clients know
        return False
