"""One timer wheel for all links: heartbeats, pings and ages, without a timer or a task per link.

Owns when a link is due. Links are spread over the slots of a wheel that turns once per heartbeat interval: 5,000 idle
links cost a few hundred small writes a second and are never due together. Does not know what a heartbeat looks like.
"""

import asyncio
import itertools
from typing import Final

from relay.live.link import CloseReason, Link

_SLOTS: Final = 64


class Heartbeats:
    """Calls `Link.heartbeat` once per interval and ends links that are too old or do not answer."""

    def __init__(self, *, interval_s: float) -> None:
        self._tick_s = interval_s / _SLOTS
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
        """Serve the links of one slot at loop time `now`."""
        for link in tuple(slot):
            if link.ended is not None:
                continue
            if now >= link.expires_at:
                link.end(CloseReason.MAX_AGE)
            elif not link.heartbeat():
                link.end(CloseReason.UNRESPONSIVE)
