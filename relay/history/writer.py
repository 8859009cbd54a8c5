"""Write a replay's rounds to its link: in slices and turns, as fast as the client takes them, or when they are due.

Owns when a slice is written, in turns by payer, and what is done for a client that does not keep up: the rest of a page
is dropped after a short wait, and read again later, in smaller pages. Knows nothing of where rounds come from.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from relay.history.history import History
from relay.history.pace import ReplayPace
from relay.history.reading.budget import FEW
from relay.history.reading.pages import Pages
from relay.history.reading.payer import Payer
from relay.history.reading.stretch import Stretch
from relay.history.selection import ReplaySelection
from relay.history.shared_tails import Part
from relay.history.walk import Walk
from relay.live.item import Item
from relay.live.link import Link
from relay.live.stored import Written, joined

_SLICE: Final = 125
"""Rounds handled per turn, for all replays together: about a millisecond, so that live rounds hardly notice."""
_STORED_SLICES: Final = 2
"""Slices that are handled in one turn where rounds are written without items, which takes less than half the time."""
_PATIENCE_S: Final = 0.25
"""How long the rest of a page is kept for a client that does not take what it was sent; then it is read again."""


class ReplayWriter:
    """Writes what one link gets of history, and advances its walk."""

    def __init__(
        self,
        history: History,
        link: Link,
        walk: Walk,
        pages: Pages,
        selection: ReplaySelection,
        pace: ReplayPace | None,
        payer: Payer,
    ) -> None:
        self._history = history
        self._link = link
        self._walk = walk
        self._pages = pages
        self._selection = selection
        self._pace = pace
        self._payer = payer

    @property
    def slice(self) -> int:
        """The most rounds to take from memory at a time: few of a paced replay, which holds them until they are due."""
        return _SLICE if self._pace is None else FEW

    def write(self, items: Sequence[Item]) -> None:
        """Write those of `items` that are selected, in one write; the walk advances past all of them."""
        if self._link.ended is not None:  # its disconnect named the cursor
            return
        data = self._selection.rendered(items, self._link.form)
        if data:
            send(self._history, self._link, joined(self._link.form, data))
        if items:
            self._walk.advance(items[-1].sequence)

    async def write_part(self, stretch: Stretch, span: range, covered_to: int) -> None:
        """Write a part of a page as `write_page` does; without items where every round of it is to be sent."""
        if self._pace is not None or not self._selection.is_plain or stretch.is_merged:
            await self.write_page(stretch.items()[span.start : span.stop], covered_to)
            return
        size = _STORED_SLICES * _SLICE
        for at in range(span.start, span.stop, size):
            if at > span.start and not await self._keeps_up():
                return
            async with self._history.slices.turn(self._payer):
                if self._walk.generation == self._history.hub.generation:
                    self._write_stored(stretch, at, min(at + size, span.stop))
            if self._is_over:
                return
        self._walk.advance(covered_to)

    def _write_stored(self, stretch: Stretch, at: int, end: int) -> None:
        """Write the entries of a page from one index up to another."""
        if self._link.ended is not None:
            return
        try:
            found = stretch.written(self._link.form, at, end, self._selection.wanted.games)
        except Exception:  # noqa: BLE001 - the items of these rounds log which one it was
            self.write(stretch.items()[at:end])
            return
        send(self._history, self._link, found)
        self._walk.advance(stretch.entries[end - 1].sequence)

    async def write_page(self, items: Sequence[Item], covered_to: int) -> None:
        """Write a page, slice by slice, up to where the client keeps up, or the page is still valid.

        What was not written is to be read again. When all was, the walk advances to `covered_to`.
        """
        for at in range(0, len(items), _SLICE):
            if at and not await self._keeps_up():
                return
            if not await self.write_slice(items[at : at + _SLICE]) or self._is_over:
                return
        self._walk.advance(covered_to)

    async def write_slice(self, items: Sequence[Item]) -> bool:
        """Write a slice, each round when it is due; return False when the rest was dropped."""
        if self._pace is None:
            await self._write_in_turn(items)
            return True
        return await self._write_paced(self._pace, items)

    async def write_shared(self, part: Part) -> None:
        """Write a part of what is in memory, when it is this replay's turn."""
        async with self._history.slices.turn(self._payer):
            if self._walk.generation == self._history.hub.generation and self._link.ended is None:
                send(self._history, self._link, part.written)
                self._walk.advance(part.end)

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written; when that is long, hold no page meanwhile."""
        if not await self._keeps_up():
            self._pages.drop()
            await self._link.drained()

    async def _write_paced(self, pace: ReplayPace, items: Sequence[Item]) -> bool:
        at = 0
        while at < len(items) and not self._is_over:
            due, wait_s = self._due(pace, items, at)
            if due > at:
                await self._write_in_turn(items[at:due])
                at = due
                if not await self._keeps_up():
                    return False
                continue
            may_hold = self._pages.is_few
            self._pages.shrink()
            if not may_hold:
                return False
            await asyncio.sleep(wait_s)
        return True

    def _due(self, pace: ReplayPace, items: Sequence[Item], at: int) -> tuple[int, float]:
        """Return the index, from `at` on, up to which all is due, and in how many seconds the next round is."""
        now_s = time.monotonic()
        for index in range(at, len(items)):
            if self._selection.has(items[index]):
                wait_s = pace.due_at_s(items[index].round.timestamp, now_s) - now_s
                if wait_s > 0:
                    return index, wait_s
        return len(items), 0

    async def _write_in_turn(self, items: Sequence[Item]) -> None:
        """Write a slice when it is this replay's turn."""
        async with self._history.slices.turn(self._payer):
            if self._walk.generation == self._history.hub.generation:
                self.write(items)

    async def _keeps_up(self) -> bool:
        """Wait briefly for the client to take most of what was written; return whether it has."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._link.drained()
        except TimeoutError:
            self._pages.shrink()
            return False
        return True

    @property
    def _is_over(self) -> bool:
        """Whether what was read is not to be written any more."""
        return (
            self._link.ended is not None
            or self._selection.is_past_end
            or self._walk.generation != self._history.hub.generation
        )


def most_in_a_turn() -> int:
    """Return how many rounds may be written in one turn of the loop."""
    return _SLICE


def send(history: History, link: Link, found: Written) -> None:
    """Write rounds to a link, and count them."""
    if not found.rounds:
        return
    link.write_past(found.data, found.checksum)
    history.stats.rounds += found.rounds
    if link.account is not None:
        link.account.sent(found.rounds, found.size)
