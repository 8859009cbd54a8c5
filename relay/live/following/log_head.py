"""The newest sequence of the log, for monitoring: known also while no client is connected.

Owns when to ask: a relay without links follows nothing, so each scrape asks the log, at most once in a while.
"""

import asyncio
from typing import Final

from relay.live.following.feed import Feed
from relay.live.hub import Hub

_FRESH_S: Final = 1.0
"""How long an answer is used again. Anybody may scrape, as often as they like."""
_ANSWER_S: Final = 2.0
"""How long a scrape waits for the log; Prometheus waits 10 s for a scrape by default."""


class LogHead:
    """Asks the hub while it follows the log, and else the log."""

    def __init__(self, feed: Feed, hub: Hub) -> None:
        self._feed = feed
        self._hub = hub
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._newest: int | None = None

    async def sequence(self) -> int | None:
        """Return the sequence of the newest round, 0 in an empty log; None while the log cannot be reached."""
        if not self._feed.connected:
            return None
        if self._feed.is_following:
            self._feed.look()
            return self._hub.head.sequence
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now >= self._asked_at + _FRESH_S:
                self._newest = await self._feed.last_stored(within_s=_ANSWER_S)
                self._asked_at = asyncio.get_running_loop().time()
        return self._newest
