"""One wheel for all links: heartbeats, pings and ages, without a timer or a task per link.

Links are spread over the slots of a wheel that turns once per heartbeat interval, so that 5,000 idle links cost a few
hundred small writes a second and never come due together.
"""

import asyncio
import itertools
import random
from typing import Final

from relay.live.hub import Hub
from relay.live.link import CloseReason, Link

_SLOTS: Final = 64


class Heartbeats:
    """Calls `Link.heartbeat` once per interval and ends links that are too old or do not answer."""

    def __init__(self, hub: Hub, *, interval_s: float, retry_ms: int) -> None:
        self._hub = hub
        self._tick_s = interval_s / _SLOTS
        self._retry_ms = retry_ms
        self._slots: list[set[Link]] = [set() for _ in range(_SLOTS)]
        self._slot_of: dict[Link, set[Link]] = {}
        self._next = itertools.cycle(range(_SLOTS))

    def add(self, link: Link) -> None:
        self._slot_of[link] = slot = self._slots[next(self._next)]
        slot.add(link)

    def remove(self, link: Link) -> None:
        slot = self._slot_of.pop(link, None)
        if slot is not None:
            slot.discard(link)

    async def run(self) -> None:
        """Turn the wheel until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            for slot in self._slots:
                due += self._tick_s
                await asyncio.sleep(due - loop.time())
                self.beat(slot, loop.time())

    def beat(self, slot: set[Link], now: float) -> None:
        for link in tuple(slot):
            if link.ended is not None:
                continue
            if now >= link.expires_at:
                retry_ms = random.randrange(self._retry_ms + 1)  # noqa: S311 - spreads reconnects, keeps no secret
                self._hub.end(link, CloseReason.MAX_AGE, retry_ms=retry_ms)
            elif not link.heartbeat():
                self._hub.end(link, CloseReason.UNRESPONSIVE, retry_ms=0)
