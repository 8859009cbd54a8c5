"""What was before now: stretches of the log for replays and for REST, read page by page, with fair turns.

Owns how history is found (by cursor, by time, by count) and what is said when it is gone. Knows nothing of links.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from relay.errors import NoRoundYet
from relay.history.budget import Budget
from relay.history.start import OVERRUN_MS
from relay.live.bounds import Bounds, Gap, GapReason
from relay.live.hub import Generation, Hub
from relay.live.item import Item
from roundlog.entry import LogEntry
from roundlog.errors import LogUnavailable
from roundlog.reader import LogReader
from rounds import Cursor

PAGE: Final = 500
"""Rounds asked of the log at a time: about 100 KB, some milliseconds of the server's work."""
NEAR: Final = 10 * PAGE
"""How far behind the head a place may be for memory to reach back to it."""
_HELD: Final = 32 * PAGE
"""Rounds that all replays together may hold while they write them: some 10 MB; 32 MB when rounds are large."""
TURN_S: Final = 10.0
"""How long a reader waits for its turn: a log that has stopped to answer must not make a queue of its readers."""
_ALL_GAMES: Final = frozenset[str]()
"""For `History.stretch`: every game there is, rather than each of many."""
_CLOCK_SKEW_MS: Final = 2000
"""How far the clock of the log may be behind that of the source."""


class LogChanged(LogUnavailable):
    """The log was made anew, or lost its tail, while it was read: what was read is nothing to go by. Begin again."""

    def __str__(self) -> str:
        return "the log changed while it was read"


class Stretch(NamedTuple):
    """A piece of the log: every round of the games asked for, from where it was to begin up to `covered_to`."""

    epoch: str
    entries: list[LogEntry]
    covered_to: int
    gap: Gap | None  # what is gone of it

    def items(self) -> list[Item]:
        """Make an item of each entry."""
        return [Item(self.epoch, entry) for entry in self.entries]


@dataclass(slots=True)
class HistoryStats:
    """Counters since the start of this process."""

    warm: int = 0  # starts answered from memory
    cold: int = 0  # starts that had to read the log
    rounds: int = 0  # written by replays
    active: int = 0  # replays under way
    gaps: int = 0


class History:
    """The past of one log. One per process."""

    def __init__(self, hub: Hub, reader: LogReader, *, concurrent: int) -> None:
        """`concurrent` pages at most are read at a time; who waits is served first come, first served, page by page."""
        self.hub = hub
        self.stats = HistoryStats()
        self.turn = asyncio.Lock()
        """Held for one turn of the loop by the replay that handles a slice: locks are fair, so replays take turns."""
        self.held = Budget(_HELD)
        """What replays may hold of the log."""
        self._reader = reader
        self._reading = asyncio.Semaphore(concurrent)
        self._reaching_back: asyncio.Task[None] | None = None

    @property
    def log_requests(self) -> int:
        """Requests sent to the log since the start of this process, for replays, REST and repair."""
        return self._reader.requests

    def newest(self, game: str) -> Item:
        """Return a game's newest round, which is always in memory; raise `NoRoundYet` when there is none."""
        item = self.hub.ring.newest.get(game)
        if item is None or not item.valid:
            raise NoRoundYet(f"game {game!r} has no round yet")
        return item

    async def bounds(self, cursor: Cursor | None = None) -> Bounds:
        """Ask the log what it holds; `cursor`, if given, is what they will be compared with.

        Raises `LogUnavailable`, as everything here does; `LogChanged` is one.
        """
        generation = self.hub.generation
        epoch = generation.epoch
        # In this order: of a log that gets its first rounds in between, the oldest must not seem to be beyond them.
        last, first = await self._reader.last(), await self._reader.first()
        head = max(last, self.hub.head.sequence, (first or 1) - 1)
        if cursor is not None and cursor.epoch == epoch and cursor.sequence > head:
            head = await self._reader.reached(cursor.sequence) or head
        self.check(generation)
        return Bounds(epoch, head + 1 if first is None else first, head)

    def check(self, generation: Generation) -> None:
        """Raise `LogChanged` when `generation` is over."""
        if generation != self.hub.generation:
            raise LogChanged

    async def stretch(
        self,
        position: int,
        games: frozenset[str],
        *,
        limit: int = PAGE,
        finds_gaps: bool = True,
        known: int = 0,
        generation: Generation | None = None,
    ) -> Stretch:
        """Read on after `position`: a page of the one game or, when several are asked for, of all.

        Args:
            position: The place that was reached.
            games: What is wanted.
            limit: The most rounds to read.
            finds_gaps: Off: what is gone is not looked for, which saves a request.
            known: A sequence that the log has reached, should this relay not have seen it yet.
            generation: When `position` was found; now, by default.

        Raises:
            LogChanged: The generation is over.
            LogUnavailable: No answer, or no turn, in time.
        """
        generation = generation or self.hub.generation
        self.check(generation)
        epoch, head = generation.epoch, max(known, self.hub.head.sequence)
        only = next(iter(games)) if len(games) == 1 else None
        async with self._turn_to_read():
            page = await self._reader.page_up_to(head, position + 1, limit=limit, game=only)
            oldest = None if only is None or not finds_gaps else await self._reader.first()
        self.check(generation)
        last = page.entries[-1].sequence if page.entries else position
        # When nothing remains, the log has nothing of these games up to what it was known to hold before it was asked.
        covered_to = last if page.remaining else max(last, head)
        # Of what comes before the page, rounds of the game may have been purged; of what comes after its first, none.
        gone_to = page.entries[0].sequence - 1 if page.entries else covered_to
        if oldest is not None:
            gone_to = min(gone_to, oldest - 1)
        gap = None
        if gone_to > position:
            gap = Gap(Bounds(epoch, 0, 0).at(position), Bounds(epoch, 0, 0).at(gone_to), GapReason.EXPIRED)
        return Stretch(epoch, page.entries, covered_to, gap)

    @asynccontextmanager
    async def _turn_to_read(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TURN_S):
                await self._reading.acquire()
        except TimeoutError as error:
            raise LogUnavailable(f"no turn to read the log within {TURN_S:g} s: too many want to") from error
        try:
            yield
        finally:
            self._reading.release()

    async def reach_back(self, position: int, games: frozenset[str]) -> None:
        """Read into memory what came after a place of not long ago, once for all who ask for it.

        A relay that has just started is met by many clients that another one has sent away: they have nearly the same
        cursors, and one of them reads for all. Nothing happens for older places, and where memory has had to forget.
        """
        ring = self.hub.ring
        while self.hub.head.sequence - NEAR <= position < ring.begun_at == ring.whole_from(games):
            begun_at = ring.begun_at
            if self._reaching_back is None:
                self._reaching_back = asyncio.create_task(self._reach_back(position), name="reach-back")
                self._reaching_back.add_done_callback(self._reached_back)
            await asyncio.shield(self._reaching_back)  # if it fails, it fails for all who wait
            if ring.begun_at >= begun_at:  # what is older was purged
                return

    async def _reach_back(self, position: int) -> None:
        hub, ring = self.hub, self.hub.ring
        generation, begun_at = hub.generation, ring.begun_at
        start = at = max(0, min(position, begun_at - PAGE))
        items: list[Item] = []
        while at < begun_at:
            stretch = await self.stretch(at, _ALL_GAMES, generation=generation)
            if stretch.gap is not None:
                start, items = stretch.gap.end.sequence, []
            items += (item for item in stretch.items() if item.sequence <= begun_at)
            at = max(at + 1, stretch.covered_to)
        if (hub.generation, ring.begun_at) == (generation, begun_at) and start < begun_at:
            ring.reach_back(start, items)

    def _reached_back(self, task: asyncio.Task[None]) -> None:
        self._reaching_back = None
        if not task.cancelled():
            task.exception()  # whoever still waits is told

    async def position_at(self, since_ms: int) -> int | None:
        """Return the place right before the first round stored at or after a time; None when there is none yet.

        A round is stored after it was committed, so no round committed at or after the time is before this place.
        """
        sequence = await self._reader.since(max(0, since_ms - _CLOCK_SKEW_MS))
        return None if sequence is None else sequence - 1

    async def position_beyond(self, until_ms: int, head: int) -> int:
        """Return a place after which, up to `head`, no round is of a time up to `until_ms`.

        Rests on the log being in the order of the rounds' own times but for `OVERRUN_MS`. When they were stored says
        only where to look first: a recording, or what an outage held up, was stored long after its time.
        """
        low = await self.position_at(until_ms + OVERRUN_MS + 2 * _CLOCK_SKEW_MS)
        if low is None or low >= head:
            return head
        probe, high = low, head
        while low < high:
            page = await self._reader.page(probe + 1, limit=1)
            if not page.entries or self._is_after(page.entries[0], until_ms + OVERRUN_MS):
                high = probe
            else:
                low = page.entries[0].sequence
            probe = (low + high) // 2
        return high

    def _is_after(self, entry: LogEntry, moment_ms: int) -> bool:
        item = Item(self.hub.head.epoch, entry)
        return item.valid and item.round.timestamp > moment_ms

    async def nth_last(self, game: str, count: int, *, before: int) -> int | None:
        """Return the sequence of the `count`-th last round of a game before sequence `before`, or of its oldest.

        None when it has none.
        """
        if before > self.hub.head.sequence and (recent := self.hub.ring.last(game, count)):
            return recent[0].sequence
        return await self._reader.nth_last(game, count, before=before)
