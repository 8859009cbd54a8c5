"""Bring a subscriber from its cursor in history to the live stream, without a seam.

Owns the promise made to subscribers: every round of their games after their cursor, once, in order, then live.
Rounds are read from the log, only as fast as the client takes them, until the ring in memory reaches back to where
the reading is; then the rest of the ring is written and the link joined to the hub within one turn of the loop, in
which no live round can come between. So nothing is parked per client, and a replay that is slower than live neither
grows nor fails; while it waits for the client it holds nothing but a cursor. Why: docs/adr/0008-the-ring-is-the-park.md
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from heapq import merge
from operator import attrgetter
from typing import Final

import structlog

from relay.history.budget import FEW
from relay.history.held_pages import HeldPages
from relay.history.history import PAGE, History, LogChanged
from relay.history.pace import ReplayPace
from relay.history.selection import ReplaySelection
from relay.history.start import SETTLE_S, Start, hello, resume
from relay.live.bounds import Gap, GapReason
from relay.live.hub import Subscription
from relay.live.item import Item
from relay.live.link import Link
from roundlog.backoff import Backoff
from roundlog.entry import LogEntry
from roundlog.errors import LogError
from rounds import Cursor

log = structlog.get_logger()

_SLICE: Final = 125
"""Rounds handled per turn, for all replays together: about a millisecond, so that live rounds hardly notice."""
_PATIENCE_S: Final = 0.25
"""How long the rest of a page is kept for a client that does not take what it was sent; then it is read again."""
_PAUSE_S: Final = (0.5, 5.0)


class Replay:
    """One link's way through history. `begin` goes as far as memory reaches; `run`, in a task, does the rest."""

    def __init__(
        self,
        history: History,
        link: Link,
        wanted: Subscription,
        start: Start,
        *,
        join: Callable[["Replay"], None],
        finish: Callable[["Replay"], None],
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            history: Where rounds come from.
            link: Where they go.
            wanted: Which of them; may be narrowed while the replay runs.
            start: From where to where, and how fast.
            join: Called when the link is to get live rounds from now on, at the very moment.
            finish: Called when the end that the client asked for has been reached.
        """
        self._selection = ReplaySelection(wanted, start)
        self._history = history
        self._hub = history.hub
        self._link = link
        self._start = start
        self._join = join
        self._finish = finish
        self._pace = None if start.speed is None else ReplayPace(start.speed)
        self._generation = self._hub.generation
        self._position = -1  # all that is wanted up to here was written; -1: it is not known where to begin
        self._counted_to = -1  # with `last`: up to here each game is read by itself
        self._pages = HeldPages(history)
        self._limit = PAGE  # rounds to read at a time: few when they have to wait, so that waiting costs no memory
        self._has_waited = False

    def begin(self) -> bool:
        """Answer from memory when that is enough; return True when the link is live."""
        self._locate_in_memory()
        if self._position < 0 or not self._is_open_ended or not self._write_rest():
            return False
        self._history.stats.warm += 1
        return True

    async def run(self) -> None:
        """Write what is missing; then join the link, or finish it where the client wanted the end."""
        stats = self._history.stats
        stats.active += 1
        if self._position >= 0:
            stats.warm += 1
        backoff = Backoff(*_PAUSE_S)
        try:
            while self._link.ended is None:
                try:
                    await self._until_taken()
                    if self._position < 0:
                        await self._locate()
                    elif await self._step():
                        return
                    backoff.reset()
                except LogChanged:
                    continue
                except LogError as error:  # the link stays open; the log comes back
                    wait_s = backoff.next_s()
                    log.warning("replay_waits", link=self._link.id, error=str(error), retry_s=round(wait_s, 2))
                    await asyncio.sleep(wait_s)
        except ConnectionError:
            pass  # the client has left
        finally:
            stats.active -= 1
            self._pages.drop()

    @property
    def wanted(self) -> Subscription:
        """Which rounds are still to be sent."""
        return self._selection.wanted

    def narrow(self, games: frozenset[str]) -> None:
        """Send no more of these games."""
        wanted = self.wanted
        self._selection.wanted = wanted._replace(games=wanted.games - games)

    @property
    def cursor(self) -> Cursor | None:
        """Where the reading is: all that is wanted up to here was written. None: where it begins is not known yet."""
        return Cursor(self._generation.epoch, self._position) if self._position >= 0 else self._start.after

    @property
    def _is_open_ended(self) -> bool:
        return self._pace is None and self._start.until_ms is None

    # --- where to begin ----------------------------------------------------------------------------------------

    def _locate_in_memory(self) -> None:
        start, ring, head = self._start, self._hub.ring, self._hub.head
        self._generation = self._hub.generation
        whole_from = ring.whole_from(self.wanted.games)
        if start.after is not None:
            if start.after.epoch == head.epoch and whole_from <= start.after.sequence <= head.sequence:
                self._tell(hello(self._hub.bounds, complete=True))
                self._position = start.after.sequence
        elif start.last == 1 and self._is_open_ended:  # the newest of each game is always known, however old it is
            newest_items = (ring.newest[game] for game in self.wanted.games if game in ring.newest)
            self._write(sorted(newest_items, key=attrgetter("sequence")))
            self._position = head.sequence
        elif start.last is not None:
            newest = {game: ring.last(game, start.last) for game in self.wanted.games}
            floors = {game: items[0].sequence for game, items in newest.items() if items}
            if len(floors) == len(newest) and whole_from < min(floors.values()):
                self._selection.floors, self._position = floors, min(floors.values()) - 1

    async def _locate(self) -> None:
        """Find the cursor to begin in the log, and tell the client how whole the answer will be."""
        if self._start.after is not None and self._start.after.epoch == self._hub.head.epoch:
            await self._history.reach_back(self._start.after.sequence, self.wanted.games)
            self._locate_in_memory()
            if self._position >= 0:
                self._history.stats.warm += 1
                return
        start, self._generation = self._start, self._hub.generation
        bounds = await self._history.bounds(start.after)
        position, gap = bounds.head, None
        if start.after is not None:
            position, gap = resume(start.after, bounds)
        elif start.since_ms is not None:
            found = await self._history.position_at(start.since_ms)
            position = bounds.head if found is None else max(found, bounds.first - 1)
            if position == bounds.first - 1 > 0:  # whether there was a round before the oldest, nobody knows any more
                gap = Gap(bounds.at(0), bounds.at(position), GapReason.EXPIRED)
        elif start.last is not None:
            for game in self.wanted.games:
                floor = await self._history.nth_last(game, start.last, before=bounds.head + 1)
                if floor is not None:
                    self._selection.floors[game] = max(floor, bounds.first)
            # What was stored while we counted is not behind the cursor, whichever game it is of.
            position = min([bounds.head + 1, *self._selection.floors.values()]) - 1
            self._counted_to = min(bounds.head, self._hub.head.sequence)
        elif start.until_ms is not None or start.speed is not None:
            position = bounds.first - 1
        self._position = position
        self._history.stats.cold += 1
        self._tell(hello(bounds, complete=gap is None))
        self._tell_gap(gap)

    # --- the way -----------------------------------------------------------------------------------------------

    async def _step(self) -> bool:
        """Write the next rounds; return True when the link has been joined or finished."""
        if self._generation != self._hub.generation:
            self._begin_anew()
        if self._selection.is_beyond_end:
            self._finish(self)
            return True
        items = self._hub.ring.after(self._position, self.wanted.games, limit=_SLICE if self._pace is None else FEW)
        if items is None:
            await (self._read_last() if self._position < self._counted_to else self._read())
            return False
        self._pages.drop()
        if self._is_open_ended and self._write_rest():
            return True
        if not items:
            return await self._rest_at_head()
        await self._write_slice(items)
        return False

    async def _rest_at_head(self) -> bool:
        """Nothing that is wanted lies between the cursor and the head: join, finish, or wait for more."""
        head = self._hub.head.sequence
        is_ahead = self._position > head  # another relay, a moment ahead of this one, gave the cursor
        self._position = max(self._position, head)
        if self._start.until_ms is None and not is_ahead:  # a paced one has caught up
            self._join(self)
            return True
        if await self._is_at_end():
            self._finish(self)
            return True
        await self._hub.wait_beyond(self._position, within_s=SETTLE_S)
        return False

    def _write_rest(self) -> bool:
        """Write the rest of the ring and join, if it is little enough for one turn and nothing is missing before it."""
        items = self._hub.ring.after(self._position, self.wanted.games, limit=_SLICE)
        if items is None or len(items) == _SLICE or self._position > self._hub.head.sequence:
            return False
        self._write(items)
        self._join(self)
        return True

    async def _read(self) -> None:
        """Read a page of the log and write it; meanwhile the next one is on its way."""
        games, limit, self._has_waited = self.wanted.games, self._limit, False
        async with self._pages.page(self._position, games, limit=limit) as stretch:
            if stretch.gap is not None:
                self._tell_gap(stretch.gap)
                self._position = stretch.gap.end.sequence
            if self._pace is None and limit == PAGE and stretch.covered_to < self._hub.ring.whole_from(games):
                self._pages.read_ahead(stretch.covered_to, games)
            if await self._write_page(stretch.entries):
                self._position = max(self._position, stretch.covered_to)
        self._read_more(limit)

    async def _read_last(self) -> None:
        """Read a page of each game, and write all of them up to where the first page ends.

        Each game by itself: one that has been quiet begins far back, and between there and now may be the whole log.
        """
        limit, self._has_waited = self._limit, False
        begun = {game: max(self._position, floor - 1) for game, floor in self._selection.floors.items()}
        games = [game for game in begun if game in self.wanted.games and begun[game] < self._counted_to]
        async with self._history.held.share(0 if limit <= FEW else limit * len(games)):
            stretches = await asyncio.gather(
                *(
                    self._history.stretch(begun[game], frozenset({game}), limit=limit, generation=self._generation)
                    for game in games
                )
            )
            end = min([self._counted_to, *(stretch.covered_to for stretch in stretches)])
            in_order = merge(*(stretch.entries for stretch in stretches), key=attrgetter("sequence"))
            if await self._write_page([entry for entry in in_order if entry.sequence <= end]):
                self._position = max(self._position, end)
        self._read_more(limit)

    async def _write_page(self, entries: Sequence[LogEntry]) -> bool:
        """Write a page, slice by slice; return False when the rest is let go: to be read again, or of no use."""
        for at in range(0, len(entries), _SLICE):
            if at and not await self._takes_more():
                return False
            items = [Item(self._generation.epoch, entry) for entry in entries[at : at + _SLICE]]
            if not await self._write_slice(items) or self._is_over_here:
                return False
        return True

    async def _write_slice(self, items: Sequence[Item]) -> bool:
        """Write a slice, each round when it is due; return False when the rest is let go."""
        if self._pace is None:
            await self._write_in_turn(items)
            return True
        return await self._write_paced(self._pace, items)

    async def _write_paced(self, pace: ReplayPace, items: Sequence[Item]) -> bool:
        at = 0
        while at < len(items) and not self._is_over_here:
            due, wait_s = self._due(pace, items, at)
            if due > at:
                await self._write_in_turn(items[at:due])
                at = due
                if not await self._takes_more():
                    return False
                continue
            if self._limit > FEW:
                self._read_less()
                return False
            self._read_less()
            await asyncio.sleep(wait_s)
        return True

    def _due(self, pace: ReplayPace, items: Sequence[Item], at: int) -> tuple[int, float]:
        """Return up to which cursor from `at` on everything is due, and when the next round is, in seconds from now."""
        now_s = time.monotonic()
        for cursor in range(at, len(items)):
            if self._selection.has(items[cursor]):
                wait_s = pace.due_at_s(items[cursor].round.timestamp, now_s) - now_s
                if wait_s > 0:
                    return cursor, wait_s
        return len(items), 0

    async def _write_in_turn(self, items: Sequence[Item]) -> None:
        """Write a slice when it is this replay's turn."""
        async with self._history.turn:
            if self._generation == self._hub.generation:
                self._write(items)
            await asyncio.sleep(0)  # the next in line goes on when the loop has turned

    async def _until_taken(self) -> None:
        """Wait until the client has taken most of what was written; when that is long, with nothing in our hands."""
        if not await self._takes_more():
            self._pages.drop()
            await self._link.drained()

    async def _takes_more(self) -> bool:
        """Wait for the client to take most of what was written, but not for long; return whether it has."""
        try:
            async with asyncio.timeout(_PATIENCE_S):
                await self._link.drained()
        except TimeoutError:
            self._read_less()
            return False
        return True

    def _read_less(self) -> None:
        self._limit, self._has_waited = FEW, True

    def _read_more(self, limit: int) -> None:
        if not self._has_waited:
            self._limit = min(PAGE, limit * 2)

    @property
    def _is_over_here(self) -> bool:
        """Whether what was read is not to be written any more."""
        return self._link.ended is not None or self._selection.is_beyond_end or self._generation != self._hub.generation

    def _write(self, items: Sequence[Item]) -> None:
        """Write those of `items` that are wanted, in one write; the cursor moves beyond all of them."""
        if self._link.ended is not None:  # its goodbye named the cursor
            return
        data = self._selection.rendered(items, self._link.form)
        if data:
            self._link.transport.write(self._link.form.join(data))
            self._history.stats.rounds += len(data)
        if items:
            self._position = items[-1].sequence

    async def _is_at_end(self) -> bool:
        """Whether everything up to the end that the client asked for has been written, now that the head is reached."""
        until_ms = self._start.until_ms
        if until_ms is None or time.time() <= until_ms / 1000 + SETTLE_S:
            return False
        # The hub may be behind the log, or cut off from it; what it has not seen may be from before the end.
        return self._position >= (await self._history.bounds()).head

    # --- what is told ------------------------------------------------------------------------------------------

    def _begin_anew(self) -> None:
        """Go on with what the log is now, and tell what there was of it before as a gap."""
        bounds, before, self._generation = self._hub.bounds, self._generation, self._hub.generation
        if before.epoch != bounds.epoch:  # it was lost and made anew
            self._tell_gap(Gap(Cursor(before.epoch, self._position), bounds.at(bounds.first - 1), GapReason.REBUILT))
            self._position = bounds.first - 1
            self._selection.floors.clear()
            self._counted_to = -1
            return
        end = min(self._hub.ends[before.losses :])  # it has lost what came behind
        if self._position > end:
            self._tell_gap(Gap(bounds.at(end), bounds.at(self._position), GapReason.AHEAD))
            self._position = end
        self._selection.cut(end)
        self._counted_to = min(self._counted_to, end)

    def _tell(self, event: dict[str, object]) -> None:
        if self._start.receives_events and self._link.ended is None:
            self._link.send_event(event)

    def _tell_gap(self, gap: Gap | None) -> None:
        if gap is not None:
            self._history.stats.gaps += 1
            log.info("gap_told", link=self._link.id, reason=gap.reason, begin=str(gap.begin), end=str(gap.end))
            self._tell(gap.event())
