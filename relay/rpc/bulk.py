"""BulkReplay replay: the past up to now in batches, oldest first, as fast as the client takes them.

Owns what the method ``Replay`` yields, and that it ends: at the head of the log as it was at the call, where rounds are
gone, or where the log stays away. How the log is read (in pages of which all replays together hold few, one ahead, in
fair turns) and what is a gap are those of `replay`. The writing is not shared: there, rounds become items, which
the ring and live links have a use for, and the way leads on to the live stream. Here nobody else asks for these
rounds, so that each is read and written once, without an item, at half the cost (docs/benchmarks.md).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import structlog

from relay.history.budget import FEW
from relay.history.held_pages import HeldPages
from relay.history.history import History, LogChanged, Stretch
from relay.history.start import hello, resume
from relay.live.bounds import Gap, GapReason
from relay.live.hub import Subscription
from relay.live.item import Item
from relay.live.link import CloseReason
from relay.rpc.link import RpcLink
from roundlog.backoff import Backoff
from roundlog.entry import LogEntry
from roundlog.errors import LogError
from rounds import Cursor, Filter, InvalidRound

log = structlog.get_logger()

PATIENCE_S: Final = 30.0
"""How long the log may bring nothing before the client is told to come back: it waits for an answer, not for news."""
READ_AT_ONCE: Final = 2000
"""Rounds asked of the log at a time: four pages of others', since it takes a while to find where each begins."""
_SLICE: Final = 125
"""Rounds handled per turn, for all replays together: about a millisecond, so that live rounds hardly notice."""
_DOUBT_S: Final = 6.0
"""How long nothing of a log is believed to be left only if it stays so: longer than the feed takes to compare."""
_HELD_S: Final = 0.25
"""How long the rest of a page is kept for a client that does not take a batch."""
_PAUSE_S: Final = (0.5, 5.0)

Write = Callable[[str, Sequence[LogEntry]], list[bytes]]
"""Makes what is sent of rounds, as a log of an epoch has them; raises `InvalidRound`."""


class BulkReplay:
    """One call's way through the past: `locate`, then `batches`."""

    def __init__(self, history: History, link: RpcLink, want: Subscription, write: Write) -> None:
        self._history = history
        self._hub = history.hub
        self._link = link
        self._want = want
        self._write = write
        self._generation = self._hub.generation
        self._pages = HeldPages(history)
        self._limit = READ_AT_ONCE  # rounds to read at a time: few for a client that stalls, so that it costs no memory
        self._releasing: asyncio.Task[None] | None = None
        self._position = self._head = 0  # all that is wanted up to the one was yielded; the other is the end
        self._misses = False  # whether what is gone right after the cursor is missed

    async def locate(self, after: Cursor | None) -> None:
        """Find the cursor to begin, after a cursor or at the oldest round, and tell how whole the answer will be.

        Raises:
            LogUnavailable: The log does not answer.
        """
        self._generation = self._hub.generation
        bounds = await self._history.bounds(after)
        position, gap = (bounds.first - 1, None) if after is None else resume(after, bounds)
        self._position, self._head = position, bounds.head
        self._misses = after is not None
        self._history.stats.cold += 1
        self._link.cursor = self._cursor
        self._link.send_event(hello(bounds, complete=gap is None))
        if gap is not None:
            self._tell(gap)

    async def batches(self) -> AsyncGenerator[list[bytes]]:
        """Yield what was made of the rounds, at most `_SLICE` at a time (more were slower); then the link has ended."""
        stats, loop = self._history.stats, asyncio.get_running_loop()
        stats.active += 1
        try:
            while self._goes_on():
                async with AsyncExitStack() as held:
                    stretch = await self._read(held)
                    if stretch is None:
                        continue
                    if self._limit == READ_AT_ONCE and stretch.covered_to < self._head:
                        self._pages.read_ahead(stretch.covered_to, self._want.games, limit=READ_AT_ONCE)
                    for at in range(0, len(stretch.entries), _SLICE):
                        batch, cursor = await self._batch(stretch, at)
                        # A goodbye named the cursor before this batch; and a log that is gone has no cursors any more.
                        if not self._goes_on() or self._generation != self._hub.generation:
                            break
                        self._position = min(cursor, self._head)
                        if not batch:
                            continue
                        stats.rounds += len(batch)
                        stalls = loop.call_later(_HELD_S, self._let_go, held, stretch)
                        try:
                            yield batch
                        finally:
                            stalls.cancel()
                        if not stretch.entries:  # let go meanwhile
                            break
                    else:
                        self._position = min(stretch.covered_to, self._head)
                        self._limit = min(READ_AT_ONCE, self._limit * 2)
                    self._misses = True
        finally:
            stats.active -= 1
            self._pages.drop()
        if self._link.ended is None:
            self._link.end(CloseReason.COMPLETED)

    async def _batch(self, stretch: Stretch, at: int) -> tuple[list[bytes], int]:
        """Make a batch of a stretch's entries from `at` on, when it is this replay's turn; return it and its cursor."""
        entries = stretch.entries[at : at + _SLICE]
        async with self._history.turn:
            batch = _written(stretch.epoch, entries, self._want, self._head, self._write)
            await asyncio.sleep(0)  # the next in line goes on when the loop has turned
        return batch, entries[-1].sequence

    def _let_go(self, held: AsyncExitStack, stretch: Stretch) -> None:
        """Hold nothing for a client that does not take what it was sent: others want to. It is read again then."""
        self._limit = FEW
        stretch.entries.clear()
        self._pages.drop()
        self._releasing = asyncio.create_task(held.aclose(), name="bulk-let-go")

    def _goes_on(self) -> bool:
        return self._link.ended is None and self._position < self._head

    async def _read(self, held: AsyncExitStack) -> Stretch | None:
        """Return what follows the cursor, `held`; None when the link was ended, or there is nothing up to a nearer end.

        While the log is away, this waits, but not longer than `PATIENCE_S`.
        """
        backoff, began = Backoff(*_PAUSE_S), asyncio.get_running_loop().time()
        while self._goes_on():
            await held.aclose()  # what was read in vain
            if self._generation != self._hub.generation:
                self._begin_anew()
                continue
            try:
                page = self._pages.page(self._position, self._want.games, limit=self._limit)
                stretch = await held.enter_async_context(page)
                if stretch.gap is not None and self._misses:
                    # All up to the head at once is hardly old age: the log may be another one, and not noticed yet.
                    if stretch.entries or asyncio.get_running_loop().time() > began + _DOUBT_S:
                        self._tell(stretch.gap)
                elif stretch.covered_to > self._position:
                    return stretch
                else:  # the hub has not seen so much of the log
                    await self._compare()
                why = "the log has nothing where it had more"
            except LogChanged:
                continue
            except LogError as error:
                why = str(error)
            if asyncio.get_running_loop().time() > began + PATIENCE_S:
                self._link.end(CloseReason.LOG_UNAVAILABLE)
            elif self._goes_on():
                wait_s = backoff.next_s()
                log.warning("replay_waits", link=self._link.id, error=why, retry_s=round(wait_s, 2))
                await self._link.wait_ended(within_s=wait_s)
        return None

    def _begin_anew(self) -> None:
        """The log is another one now, or has lost its tail: what there was of it before is a gap."""
        bounds, before, self._generation = self._hub.bounds, self._generation, self._hub.generation
        if before.epoch != bounds.epoch:
            cursor = Cursor(before.epoch, self._position)
            self._tell(Gap(cursor, bounds.at(bounds.first - 1), GapReason.REBUILT))
            return
        self._head = min(self._head, *self._hub.ends[before.losses :])
        if self._position > self._head:
            self._tell(Gap(bounds.at(self._head), bounds.at(self._position), GapReason.AHEAD))

    async def _compare(self) -> None:
        """Set the cursor against what the log holds now: what was its head may have been purged."""
        bounds = await self._history.bounds(self._cursor())
        _, gap = resume(self._cursor(), bounds)
        if gap is not None:
            self._tell(gap)
        self._head = min(self._head, bounds.head)

    def _tell(self, gap: Gap) -> None:
        """Tell what is gone, which ends the link."""
        self._history.stats.gaps += 1
        log.info("gap_told", link=self._link.id, reason=gap.reason, begin=str(gap.begin), end=str(gap.end))
        self._link.send_event(gap.event())

    def _cursor(self) -> Cursor:
        return Cursor(self._generation.epoch, self._position)


def _written(epoch: str, entries: Sequence[LogEntry], want: Subscription, head: int, write: Write) -> list[bytes]:
    games = want.games
    wanted = [entry for entry in entries if entry.sequence <= head and entry.game in games]
    if want.filter.is_empty:
        try:  # the usual case, at half the cost
            return write(epoch, wanted)
        except InvalidRound:
            pass  # somebody else wrote to a round's subject; its item says so in the log
    return write(epoch, [entry for entry in wanted if _matches(Item(epoch, entry), want.filter)])


def _matches(item: Item, filter_: Filter) -> bool:
    return item.valid and item.matches(filter_)
