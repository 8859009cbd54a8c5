"""Fill memory backwards: read rounds of not long ago from the log into the ring, once for every reader that asks.

A relay that has just started gets many clients that another one has disconnected: they have nearly the same cursors,
and the first of them reads for all.
"""

import asyncio
from typing import Final

from relay.history.reading.pages import ALL_GAMES, PAGE, PageSource
from relay.history.reading.payer import RELAY, Payer
from relay.live.hub import Hub
from relay.live.item import Item

NEAR: Final = 10 * PAGE
"""How far behind the head a position may be for memory to reach back to it."""


class ReachBack:
    """Reads for one ring. One per process."""

    def __init__(self, hub: Hub, pages: PageSource) -> None:
        self._hub = hub
        self._pages = pages
        self._reading: asyncio.Task[None] | None = None

    async def reach(self, position: int, games: frozenset[str], payer: Payer = RELAY) -> None:
        """Read into memory what came after `position`, unless that is long ago, or memory was full before.

        The first that asks pays, unless it is over its limit: then nothing is read. The reads are the relay's: those
        that wait for them do not wait behind other readers of that key.

        Raises:
            LogUnavailable: The log does not answer; for every caller that waits.
        """
        ring = self._hub.ring
        while self._hub.head.sequence - NEAR <= position < ring.begun_at == ring.whole_from(games):
            begun_at = ring.begun_at
            if self._reading is None:
                if not payer.may_read:
                    return
                self._reading = asyncio.create_task(self._read(position, payer), name="reach-back")
                self._reading.add_done_callback(self._read_done)
            await asyncio.shield(self._reading)
            if ring.begun_at >= begun_at:  # what is older was purged
                return

    async def _read(self, position: int, payer: Payer) -> None:
        hub, ring = self._hub, self._hub.ring
        generation, begun_at = hub.generation, ring.begun_at
        at = max(0, min(position, begun_at - PAGE))
        start = at = at - at % PAGE  # where pages begin
        items = list[Item]()
        while at < begun_at:
            is_at_hand = self._pages.has(at, ALL_GAMES, generation, limit=PAGE, finds_gaps=True)
            stretch = await self._pages.read(at, ALL_GAMES, generation=generation)
            payer.charge(0 if is_at_hand else len(stretch.entries))
            if stretch.gap is not None:
                start, items = stretch.gap.end.sequence, []
            if stretch.holes:  # memory has no gaps: a reader that began before this one gets it from the log
                start, items = stretch.holes[-1].end.sequence, []
            items += (item for item in stretch.items() if start < item.sequence <= begun_at)
            at = max(at + 1, stretch.covered_to)
        if (hub.generation, ring.begun_at) == (generation, begun_at) and start < begun_at:
            ring.reach_back(start, items)

    def _read_done(self, task: asyncio.Task[None]) -> None:
        self._reading = None
        if not task.cancelled():
            task.exception()  # callers that still wait get it; without any, asyncio would log it
