"""End links: what a client gets when the relay ends its link or refuses it one.

Owns the reconnect delay by reason, the cursor, and the steps of an end: unsubscribe, write the disconnect, cut the
connection of a client that does not read it. Does not know why a link is ended, nor what a disconnect looks like.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

import structlog

from relay.errors import Unavailable
from relay.live.hub import Hub
from relay.live.link import CloseReason, Disconnect, Link

log = structlog.get_logger()


class _Spread(NamedTuple):
    """The range of a delay, in multiples of the configured ``retry_ms``; each client's is drawn evenly from it."""

    least: int
    most: int


_NONE: Final = _Spread(0, 0)
_SOON: Final = _Spread(0, 1)
_LATER: Final = _Spread(1, 3)

_AFTER_END: Final[Mapping[CloseReason, _Spread]] = {
    # The relay ends the link. Many may end together: in a drain, after a stall, when the log was rebuilt, in a burst of
    # rounds that slow clients do not take.
    CloseReason.DRAINING: _SOON,
    CloseReason.MAX_AGE: _SOON,
    CloseReason.LOG_UNAVAILABLE: _SOON,
    CloseReason.SLOW: _SOON,
    CloseReason.UNRESPONSIVE: _SOON,
    CloseReason.FAILED: _SOON,
    CloseReason.GAP: _SOON,
    CloseReason.CAPACITY: _LATER,
    # Only event streams are sent it: an EventSource comes back, is refused, and then stays away.
    CloseReason.REVOKED: _SOON,
    CloseReason.RATE_LIMITED: _LATER,
    # The client caused the end: it is not sent a delay.
    CloseReason.CLIENT: _NONE,
    CloseReason.BAD_MESSAGE: _NONE,
    CloseReason.DEADLINE: _NONE,
    CloseReason.COMPLETED: _NONE,
}
"""The delay after the end of an open link."""
_AFTER_REFUSAL: Final = _LATER
"""The delay of a client that gets no link, or no answer: this relay must recover first."""


_REVOKED_LINGER_S: Final = 0.7
"""The most that a client whose key was taken back has to read its disconnect: it is to be away within a second."""
_LATE_S: Final = 1.0
"""A timer that is later than this waited for a process that stood still."""


class ReconnectDelays:
    """Draws reconnect delays. Each client gets its own, so that clients do not reconnect at the same time."""

    def __init__(self, retry_ms: int) -> None:
        """`retry_ms`: the configured base of all delays."""
        self._retry_ms = retry_ms

    def after_end(self, reason: CloseReason) -> int:
        """Draw the delay of a client whose link is ended, in ms."""
        return self._draw(_AFTER_END[reason])

    def after_refusal(self) -> int:
        """Draw the delay of a client that is refused, in ms."""
        return self._draw(_AFTER_REFUSAL)

    def _draw(self, spread: _Spread) -> int:
        least, most = self._retry_ms * spread.least, self._retry_ms * spread.most
        return random.randint(least, most)  # noqa: S311 - spreads reconnects, keeps no secret


class Ender:
    """Ends links of all protocols. There is one per process."""

    def __init__(self, hub: Hub, delays: ReconnectDelays, *, linger_s: float) -> None:
        """Start with no link ended.

        Args:
            hub: What links are subscribed to.
            delays: Draws the reconnect delays.
            linger_s: Seconds a client has to read its disconnect before the connection is cut.
        """
        self.delays = delays
        self.ended: Counter[CloseReason] = Counter()
        """Open links that were ended here, by reason, since the start of this process."""
        self._hub = hub
        self._linger_s = linger_s

    def end(self, link: Link, reason: CloseReason) -> None:
        """End an open link: unsubscribe it and write why, up to where rounds were written, and when to come back.

        A link that has been ended already stays as it is. Nothing may be written to the link after this.
        """
        if link.ended is None:
            self.ended[reason] += 1
            self._disconnect(link, reason, self.delays.after_end(reason))

    def cut(self, link: Link, reason: CloseReason) -> None:
        """End a link that may lack rounds. Nothing is written: its cursor would be wrong, and the client has its own.

        The connection is cut at once, also when the link has been ended already; the first reason stands.
        """
        if link.ended is None:
            self.ended[reason] += 1
            link.ended = Disconnect(reason, None, self.delays.after_end(reason))
        self._hub.remove(link)
        link.abort()

    def refuse(self, link: Link, refusal: Unavailable) -> None:
        """End a link that was opened only to write why its client is refused."""
        self._disconnect(link, CloseReason(refusal.reason), refusal.retry_ms)

    def _disconnect(self, link: Link, reason: CloseReason, retry_ms: int) -> None:
        self._hub.remove(link)
        link.ended = Disconnect(reason, None, retry_ms)  # also when the cursor fails
        try:
            cursor = None if link.cursor is None else link.cursor()
            link.ended = Disconnect(reason, None if cursor is None else str(cursor), retry_ms)
            link.write_disconnect(link.ended)
        except Exception:  # a bug in one link; who ends several ends the others too
            log.exception("link_failed", link=link.id)
            link.abort()
        # A client that has stopped reading would otherwise hold its buffer for ever.
        wait_s = self._linger_s if reason is not CloseReason.REVOKED else min(self._linger_s, _REVOKED_LINGER_S)
        self._abort_later(link, wait_s)

    def _abort_later(self, link: Link, wait_s: float) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(wait_s, self._abort, link, loop.time() + wait_s)

    def _abort(self, link: Link, due_at: float) -> None:
        if asyncio.get_running_loop().time() - due_at > _LATE_S:
            # This process stood still. What was to be written and read meanwhile comes now.
            self._abort_later(link, min(self._linger_s, _LATE_S))
        else:
            link.abort()
