"""The past of one log: what it holds, and where in it a time or a count begins.

Owns how history is found, by time and by count, and what all its readers share: pages, turns and counters. Knows
nothing of links.
"""

from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from relay.errors import NoRoundYet
from relay.history.reading.fair_shares import Claim, FairShares, Turn
from relay.history.reading.flight import Flight, Flights
from relay.history.reading.pages import LogChanged, PageSource, in_turn
from relay.history.reading.payer import RELAY, Payer
from relay.history.reading.reach_back import ReachBack
from relay.history.reading.slice_turns import SliceTurns
from relay.history.shared_tails import SharedTails
from relay.history.start import OVERRUN_MS
from relay.live.bounds import Bounds, Gap
from relay.live.hub import Hub
from relay.live.item import Item
from relay.live.newest_revisions import is_revision_of
from relay.turns import Turns
from roundlog.entry import LogEntry
from roundlog.reader import LogReader
from rounds import Cursor
from rounds.subjects import corrections_of

log = structlog.get_logger()

_ASKING: Final = 2
"""Questions of one key to the log at the same time. Each answer is work for the turn in which it arrives, and for
nats-server."""
_ANSWERING: Final = 8
"""Answers of up to 1,000 rounds that are made for one key at the same time: each holds its rounds until it is
written."""
_SPARE_QUESTIONS: Final = 1
_SPARE_ANSWERS: Final = 4
"""How many more there may be when other keys ask as well."""
_CLOCK_SKEW_MS: Final = 2000
"""How far the clock of the log may be behind that of the source."""


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

    def __init__(self, hub: Hub, reader: LogReader, turns: Turns, *, concurrent: int) -> None:
        """At most `concurrent` pages of one key are read at a time; see `PageSource`."""
        self.hub = hub
        self.turns = turns
        """What handlers of requests wait for."""
        self.stats = HistoryStats()
        self.slices = SliceTurns()
        """What replays wait for before they handle a slice of rounds."""
        self.pages = PageSource(hub, reader, concurrent=concurrent)
        self.tails = SharedTails(hub)
        """What links get that resume a little behind the head."""
        self._reader = reader
        self._asking = FairShares(_ASKING + _SPARE_QUESTIONS, most=_ASKING)
        self._answering = FairShares(_ANSWERING + _SPARE_ANSWERS, most=_ANSWERING)
        self._flights = Flights()
        self._reach_back = ReachBack(hub, self.pages)

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

    async def newest_revision(self, game: str) -> Item:
        """Return the newest correction of a game's newest round, or that round when it has none.

        It is in memory, except that the first one who asks after the start may have to wait for a search of the log.
        The relay pays for that.

        Raises:
            NoRoundYet: There is no round, as `newest`.
            LogUnavailable: The log has to be searched and does not answer.
        """
        revisions = self.hub.ring.revisions
        while (unseen := revisions.unseen(self.newest(game))) is not None:
            with suppress(LogChanged):
                await self._flights.join(("revision", game, unseen), partial(self._search_revision, self.newest(game)))
        return revisions.of(self.newest(game))

    async def _search_revision(self, round_: Item, flight: Flight[None]) -> None:
        flight.sent()
        revisions, generation = self.hub.ring.revisions, self.hub.generation
        names, found = frozenset({corrections_of(round_.game)}), None
        unseen = revisions.unseen(round_)
        position = unseen.begin if unseen is not None else 0
        while unseen is not None and position < unseen.end:
            stretch = await self.pages.read(position, names, generation=generation, finds_gaps=False)
            for item in stretch.items():
                if item.sequence <= unseen.end and is_revision_of(item, round_):
                    found = item
            position = max(position + 1, stretch.covered_to)
        revisions.found(round_, found)

    def count_gap(self, gap: Gap, *, link: str) -> None:
        """Count and log a gap that a link is about to get."""
        self.stats.gaps += 1
        log.info("gap_sent", link=link, reason=gap.reason, begin=str(gap.begin), end=str(gap.end))

    def answering(self, payer: Payer = RELAY) -> AbstractAsyncContextManager[Turn]:
        """Hold a place for making an answer of many rounds; raise `LogUnavailable` when none is free for long."""
        return in_turn(self._answering, Claim(payer), "answer from history")

    async def bounds(self, cursor: Cursor | None = None, *, payer: Payer = RELAY) -> Bounds:
        """Ask the log what it holds; `cursor`, if given, is what the bounds will be compared with.

        `payer`, here and below, is the one whose turn it is to ask. Questions are not charged: they read single rounds.

        Raises `LogUnavailable`, as everything here does; `LogChanged` is one.
        """
        generation = self.hub.generation
        epoch = generation.epoch
        last, first = await self._flights.join("ends", self._ends, payer)
        head = max(last, self.hub.head.sequence, (first or 1) - 1)
        if cursor is not None and cursor.epoch == epoch and cursor.sequence > head:
            async with self._turn_to_ask(Claim(payer)):
                head = await self._reader.reached(cursor.sequence) or head
        self.pages.check(generation)
        return Bounds(epoch, head + 1 if first is None else first, head)

    async def _ends(self, flight: Flight[tuple[int, int | None]]) -> tuple[int, int | None]:
        """Ask for the newest and the oldest sequence."""
        async with self._turn_to_ask(flight.claim):
            flight.sent()
            # In this order: of a log that gets its first rounds meanwhile, the oldest must not seem to follow the head.
            return await self._reader.last(), await self._reader.first()

    async def reach_back(self, position: int, games: frozenset[str], payer: Payer = RELAY) -> None:
        """Read into memory what came after a position of not long ago; see `ReachBack.reach`."""
        await self._reach_back.reach(position, games, payer)

    async def position_at(self, since_ms: int, *, payer: Payer = RELAY) -> int | None:
        """Return the sequence before the first round stored at or after a time; None when there is none yet.

        A round is stored after it was committed, so no round committed at or after the time comes earlier.
        """
        moment_ms = max(0, since_ms - _CLOCK_SKEW_MS)

        async def ask(flight: Flight[int | None]) -> int | None:
            async with self._turn_to_ask(flight.claim):
                flight.sent()
                return await self._reader.since(moment_ms)

        sequence = await self._flights.join(("since", moment_ms), ask, payer)
        return None if sequence is None else sequence - 1

    async def position_past(self, until_ms: int, head: int, *, payer: Payer = RELAY) -> int:
        """Return a sequence after which, up to `head`, no round is of a time up to `until_ms`.

        This relies on the log being in the order of the rounds' own times, within `OVERRUN_MS`. When rounds were stored
        says only where to look first: a recording, or a backlog after an outage, is stored much later.
        """
        low = await self.position_at(until_ms + OVERRUN_MS + 2 * _CLOCK_SKEW_MS, payer=payer)
        if low is None or low >= head:
            return head
        probe, high = low, head
        while low < high:
            async with self._turn_to_ask(Claim(payer)):
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

    async def nth_last(self, game: str, count: int, *, before: int, payer: Payer = RELAY) -> int | None:
        """Return the sequence of the `count`-th last round of a game before sequence `before`, or of its oldest.

        None when it has none.
        """
        if before > self.hub.head.sequence and (recent := self.hub.ring.last(game, count)):
            return recent[0].sequence

        async def ask(flight: Flight[int | None]) -> int | None:
            async with self._turn_to_ask(flight.claim):
                flight.sent()
                end = max(before, self.hub.head.sequence + 1)  # of the last one that waits for this answer
                return await self._reader.nth_last(game, count, before=end)

        return await self._flights.join(("last", game, count), ask, payer)

    def _turn_to_ask(self, claim: Claim) -> AbstractAsyncContextManager[Turn]:
        return in_turn(self._asking, claim, "ask the log")
