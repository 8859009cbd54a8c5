"""Bring a subscriber from its cursor in history to the live stream, without a seam.

Owns the promise made to subscribers: every round of their games after their cursor, once, in order, then live.
Rounds are read from the log, only as fast as the client takes them, until the ring in memory reaches back to the
position; then the rest of the ring is written and the link joined to the hub within one turn of the loop, in which no
live round can come between. So nothing is parked per client, and a replay that is slower than live neither grows nor
fails; while it waits for the client it holds nothing but its position. Why: docs/adr/0008-the-ring-is-the-park.md
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from heapq import merge
from operator import attrgetter
from typing import Final

import structlog

from relay.history.at_once import resume_at_once
from relay.history.history import History
from relay.history.locate import is_newest_only, locate_in_log, locate_in_memory, newest_of_each
from relay.history.pace import ReplayPace
from relay.history.reading.pages import LogChanged, Pages
from relay.history.reading.payer import RELAY, Payer
from relay.history.selection import ReplaySelection
from relay.history.start import SETTLE_S, Start, hello
from relay.history.walk import State, Walk
from relay.history.writer import ReplayWriter, send
from relay.live.bounds import Gap
from relay.live.channels import Subscription
from relay.live.link import Link
from roundlog.backoff import Backoff
from roundlog.log_errors import LogError
from rounds import Cursor

log = structlog.get_logger()

_PAUSE_S: Final = (0.5, 5.0)


class Replay:
    """One link's way through history. `begin` answers from memory when it can; `run`, in a task, does the rest."""

    def __init__(
        self,
        history: History,
        link: Link,
        wanted: Subscription,
        start: Start,
        *,
        join: Callable[["Replay"], None],
        finish: Callable[["Replay"], None],
        payer: Payer = RELAY,
    ) -> None:
        """Prepare; nothing is read yet.

        Args:
            history: Where rounds come from.
            link: Where they go.
            wanted: Which of them; may be narrowed while the replay runs.
            start: From where to where, and how fast.
            join: Called when the link is to get live rounds from now on, in that turn of the loop.
            finish: Called when the end that the client asked for has been reached.
            payer: Who is charged for what is read, and whose turns it takes.
        """
        self._history = history
        self._hub = history.hub
        self._link = link
        self._start = start
        self._join = join
        self._finish = finish
        self._is_open_ended = start.speed is None and start.until_ms is None
        self._walk = Walk(self._hub.generation)
        self._payer = payer
        self._pages = Pages(history.pages, payer=payer)
        self._selection = ReplaySelection(wanted, start, self._walk.floors)
        pace = None if start.speed is None else ReplayPace(start.speed)
        self._writer = ReplayWriter(history, link, self._walk, self._pages, self._selection, pace, payer)

    def begin(self) -> bool:
        """Answer from memory when that is enough; return True when the link is live."""
        if resume_at_once(self._history, self._link, self.wanted, self._start):
            self._join(self)
            return True
        if self._is_open_ended and is_newest_only(self._start, self.wanted.games):
            self._walk.begin(self._hub.generation, self._hub.head.sequence)
            self._send(hello(self._hub.bounds, complete=True))
            self._writer.write(newest_of_each(self._hub, self.wanted.games))
        elif not self._locate_in_memory():
            return False
        if not self._is_open_ended or not self._write_rest():
            return False
        self._history.stats.warm += 1
        return True

    async def run(self) -> None:
        """Write what is missing; then join the link, or finish it where the client wanted the end."""
        stats = self._history.stats
        stats.active += 1
        if self._walk.is_located:
            stats.warm += 1
        backoff = Backoff(*_PAUSE_S)
        try:
            while self._link.ended is None:
                try:
                    await self._writer.drained()
                    if not self._walk.is_located:
                        await self._locate()
                    elif await self._step():
                        return
                    backoff.reset()
                except LogChanged:
                    continue
                except LogError as error:  # the link stays open until the log is back
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
        """Everything wanted up to here was written. None: where to begin is not known yet."""
        return self._walk.cursor or self._start.after

    # --- where to begin ----------------------------------------------------------------------------------------

    def _locate_in_memory(self) -> bool:
        if not locate_in_memory(self._walk, self._hub, self._start, self.wanted.games):
            return False
        self._send(hello(self._hub.bounds, complete=True))
        return True

    async def _locate(self) -> None:
        """Find where to begin in the log, and send how complete the answer will be."""
        start, games = self._start, self.wanted.games
        if start.after is not None and start.after.epoch == self._hub.head.epoch:
            await self._history.reach_back(start.after.sequence, games, self._payer)
            if self._locate_in_memory():
                self._history.stats.warm += 1
                return
        bounds, gap = await locate_in_log(self._walk, self._history, start, games, self._payer)
        self._history.stats.cold += 1
        self._send(hello(bounds, complete=gap is None))
        self._report(gap)

    # --- on the way --------------------------------------------------------------------------------------------

    async def _step(self) -> bool:
        """Write the next rounds; return True when the link has been joined or finished."""
        hub, walk = self._hub, self._walk
        if walk.generation != hub.generation:
            self._report(walk.follow(hub.generation, hub.bounds, hub.ends))
        if self._selection.is_past_end:
            self._finish(self)
            return True
        if hub.ring.whole_from(self.wanted.games) <= walk.position and await self._write_shared():
            return False
        items = hub.ring.after(walk.position, self.wanted.games, limit=self._writer.slice)
        if items is None:
            is_by_game = walk.state(hub.head.sequence) is State.BY_GAME
            await (self._read_by_game() if is_by_game else self._read())
            return False
        self._pages.drop()
        if self._is_open_ended and self._write_rest():
            return True
        if items:
            await self._writer.write_slice(items)
            return False
        return await self._rest_at_head()

    async def _read(self) -> None:
        """Read a page of the log and write it; meanwhile the next one is read."""
        walk, games = self._walk, self.wanted.games
        stretch = await self._pages.read(walk.position, games, walk.generation)
        self._report(walk.pass_gap(stretch))
        if self._start.speed is None and stretch.covered_to < self._hub.ring.whole_from(games):
            self._pages.read_ahead(stretch.covered_to, games, walk.generation)
        for span, covered_to, hole in stretch.spans():
            await self._writer.write_part(stretch, span, covered_to)
            if walk.position < covered_to:
                break  # the rest is read again
            self._report(hole)
        self._pages.release()

    async def _read_by_game(self) -> None:
        """Read a page of each game, and write all of them up to where the first page ends.

        Each game by itself: a quiet one begins far back, and between there and now may be most of the log.
        """
        walk = self._walk
        stretches = await self._pages.read_each(walk.begins(self.wanted.games), walk.generation)
        end = walk.common_end(stretches)
        in_order = merge(*(stretch.items() for stretch in stretches), key=attrgetter("sequence"))
        await self._writer.write_page([item for item in in_order if item.sequence <= end], end)
        self._pages.release()

    async def _write_shared(self) -> bool:
        """Write a slice of the ring that other replays want, too; return False when it takes another step."""
        if self._start.speed is not None or not self._selection.is_shared:
            return False
        most, form = self._writer.slice, self._link.form
        part = self._history.tails.first_after(self._walk.position, self.wanted, form, limit=most)
        if part is None:
            return False
        self._pages.drop()
        await self._writer.write_shared(part)
        return True

    def _write_rest(self) -> bool:
        """Write the rest of the ring and join, if it is little enough for one turn and nothing is missing before it."""
        walk, most = self._walk, self._writer.slice
        if self._selection.is_shared:
            tail = self._history.tails.after(walk.position, self.wanted, self._link.form, limit=most)
            if tail is None:
                return False
            if self._link.ended is None:
                send(self._history, self._link, tail)
            self._join(self)
            return True
        items = self._hub.ring.after(walk.position, self.wanted.games, limit=most)
        if items is None or len(items) == most or walk.position > self._hub.head.sequence:
            return False
        self._writer.write(items)
        self._join(self)
        return True

    async def _rest_at_head(self) -> bool:
        """Nothing wanted lies between the position and the head: join, finish, or wait for more."""
        walk, head = self._walk, self._hub.head.sequence
        walk.advance(head)
        if self._start.until_ms is None and walk.state(head) is State.AT_HEAD:  # a paced replay has caught up
            self._join(self)
            return True
        if await self._is_at_end():
            self._finish(self)
            return True
        await self._hub.wait_past(walk.position, within_s=SETTLE_S)
        return False

    async def _is_at_end(self) -> bool:
        """Whether everything up to the end that the client asked for has been written, now that the head is reached."""
        until_ms = self._start.until_ms
        if until_ms is None or time.time() <= until_ms / 1000 + SETTLE_S:
            return False
        # The hub may be behind the log, or cut off from it; what it has not seen may be from before the end.
        return self._walk.position >= (await self._history.bounds(payer=self._payer)).head

    # --- what is sent beside rounds ----------------------------------------------------------------------------

    def _send(self, event: Mapping[str, object]) -> None:
        if self._start.receives_events and self._link.ended is None:
            self._link.send_event(event)

    def _report(self, gap: Gap | None) -> None:
        if gap is not None:
            self._history.count_gap(gap, link=self._link.id)
            self._send(gap.event())
