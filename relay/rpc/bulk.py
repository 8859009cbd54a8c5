"""Bulk replay: the past up to now in batches, oldest first, as fast as the client takes them.

Owns what the method ``Replay`` yields, and that it ends: at the head of the log as it was at the call, where rounds are
gone, or where the log stays unavailable. How the log is read and what is a gap are shared with the replays of streams
(`relay.history.reading.pages`, `relay.history.walk`). The writing is not shared: there, rounds become items, which the
ring and live links use too, and the replay leads to the live stream. Here no other link asks for these rounds, so that
each is read and written once, without an item, at half the cost (docs/benchmarks.md).
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Final

import structlog

from relay.history.history import History
from relay.history.reading.pages import LogChanged, Pages
from relay.history.reading.payer import RELAY, Payer
from relay.history.reading.stretch import Stretch
from relay.history.start import hello
from relay.history.walk import PageVerdict, State, Walk
from relay.live.bounds import Gap
from relay.live.channels import Subscription
from relay.live.item import Item
from relay.live.link import CloseReason
from relay.rpc.rpc_link import RpcLink
from roundlog.backoff import Backoff
from roundlog.entry import LogEntry
from roundlog.log_errors import LogError
from rounds import Cursor, Filter, InvalidRound

log = structlog.get_logger()

PATIENCE_S: Final = 30.0
"""How long the log may bring nothing before the client is ended: it waits for an answer, not for live rounds."""
READ_AT_ONCE: Final = 2000
"""Rounds asked of the log at a time: four usual pages, since it takes the server a while to find where each begins."""
_SLICE: Final = 125
"""Rounds handled per turn, for all replays together: about a millisecond, so that live rounds hardly notice."""
_DOUBT_S: Final = 6.0
"""How long the log must seem to have no round any more to be believed: longer than the feed takes to compare."""
_HELD_S: Final = 0.25
"""How long the rest of a page is kept for a client that does not take a batch."""
_PAUSE_S: Final = (0.5, 5.0)

Write = Callable[[str, Sequence[LogEntry]], list[bytes]]
"""Makes what is sent of rounds, as a log of an epoch has them; raises `InvalidRound`."""


class BulkReplay:
    """One call's way through the past: `locate`, then `batches`."""

    def __init__(self, history: History, link: RpcLink, want: Subscription, write: Write, payer: Payer = RELAY) -> None:
        self._history = history
        self._hub = history.hub
        self._link = link
        self._want = want
        self._write = write
        self._walk = Walk(self._hub.generation)
        self._payer = payer
        self._pages = Pages(history.pages, most=READ_AT_ONCE, payer=payer)
        self._entries: list[LogEntry] = []  # of the page that is being sent

    async def locate(self, after: Cursor | None) -> None:
        """Find where to begin, after a cursor or at the oldest round, and send how complete the answer will be.

        While the log does not answer, this waits as `batches` does. It finds nothing when the link ends meanwhile.

        Raises:
            LogUnavailable: The log has not answered for `PATIENCE_S`.
        """
        backoff, deadline = Backoff(*_PAUSE_S), asyncio.get_running_loop().time() + PATIENCE_S
        while True:
            generation = self._hub.generation
            try:
                bounds = await self._history.bounds(after, payer=self._payer)
                break
            except LogError as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await self._pause(backoff, str(error))
                if self._link.ended is not None:
                    return
        gap = self._walk.begin_up_to_head(generation, bounds, after)
        self._history.stats.cold += 1
        self._link.cursor = lambda: self._walk.cursor
        self._link.send_event(hello(bounds, complete=gap is None))
        self._report(gap)

    async def batches(self) -> AsyncGenerator[list[bytes]]:
        """Yield what was made of the rounds, at most `_SLICE` at a time (more were slower); then the link has ended."""
        stats, loop, walk = self._history.stats, asyncio.get_running_loop(), self._walk
        stats.active += 1
        try:
            while not self._is_over() and (stretch := await self._read()):
                # A list of its own, since other readers have the same page: see `_drop`.
                epoch, covered_to, self._entries = stretch.epoch, stretch.covered_to, list(stretch.entries)
                del stretch
                for at in range(0, len(self._entries), _SLICE):
                    batch, cursor = await self._batch(epoch, at)
                    # A disconnect named the cursor before this batch; and a log that was rebuilt has no such rounds.
                    if self._is_over() or walk.generation != self._hub.generation:
                        break
                    walk.advance(cursor)
                    if not batch:
                        continue
                    stats.rounds += len(batch)
                    if self._link.account is not None:
                        self._link.account.sent(len(batch), sum(map(len, batch)))
                    stalls = loop.call_later(_HELD_S, self._drop)
                    try:
                        yield batch
                    finally:
                        stalls.cancel()
                    if not self._entries:  # dropped meanwhile
                        break
                else:
                    walk.advance(covered_to)
                self._pages.release()
        finally:
            stats.active -= 1
            self._pages.drop()
        if self._link.ended is None:
            self._link.end(CloseReason.COMPLETED)

    async def _batch(self, epoch: str, at: int) -> tuple[list[bytes], int]:
        """Make a batch of the page from `at` on, when it is this replay's turn; return it and its sequence."""
        entries = self._entries[at : at + _SLICE]
        async with self._history.slices.turn(self._payer):
            batch = _written(epoch, entries, self._want, self._walk.end, self._write)
        return batch, entries[-1].sequence

    def _drop(self) -> None:
        """Hold nothing for a client that does not take what it was sent. The rest of the page is read again later."""
        self._pages.shrink()
        self._pages.drop()
        self._entries = []

    def _is_over(self) -> bool:
        return self._link.ended is not None or self._walk.state(self._hub.head.sequence) is State.ENDED

    async def _read(self) -> Stretch | None:
        """Return the page that follows, while the next one is read; None when the replay is over.

        While the log does not answer, this waits, but not longer than `PATIENCE_S`.
        """
        loop, walk, games = asyncio.get_running_loop(), self._walk, self._want.games
        backoff, began = Backoff(*_PAUSE_S), loop.time()
        while not self._is_over():
            if walk.generation != self._hub.generation:
                self._report(walk.follow(self._hub.generation, self._hub.bounds, self._hub.ends))
                continue
            try:
                stretch = await self._pages.read(walk.position, games, walk.generation)
                if await self._leads_on(stretch, is_sure=loop.time() > began + _DOUBT_S):
                    return stretch
                why = "the log has nothing where it had more"
            except LogChanged:
                continue
            except LogError as error:
                why = str(error)
            self._pages.drop()
            if loop.time() > began + PATIENCE_S:
                self._link.end(CloseReason.LOG_UNAVAILABLE)
            elif not self._is_over():
                await self._pause(backoff, why)
        return None

    async def _pause(self, backoff: Backoff, why: str) -> None:
        """Wait before the log is asked again, or until the link ends."""
        wait_s = backoff.next_s()
        log.warning("replay_waits", link=self._link.id, error=why, retry_s=round(wait_s, 2))
        await self._link.wait_ended(within_s=wait_s)

    async def _leads_on(self, stretch: Stretch, *, is_sure: bool) -> bool:
        """Return whether a page is to be sent; report what is gone, if it `is_sure` that the log has not changed."""
        walk = self._walk
        match walk.judge(stretch):
            case PageVerdict.ROUNDS:
                if stretch.covered_to < walk.end:
                    self._pages.read_ahead(stretch.covered_to, self._want.games, walk.generation)
                return True
            case PageVerdict.NOTHING:  # what was the head may have been purged
                self._report(walk.compare(await self._history.bounds(walk.cursor, payer=self._payer)))
            case PageVerdict.GAP:
                self._report(walk.pass_gap(stretch))
            case PageVerdict.ALL_GONE:
                self._report(walk.pass_gap(stretch) if is_sure else None)
        return False

    def _report(self, gap: Gap | None) -> None:
        """Send what is gone, if anything is, which ends the link."""
        if gap is not None:
            self._history.count_gap(gap, link=self._link.id)
            self._link.send_event(gap.event())


def _written(epoch: str, entries: Sequence[LogEntry], want: Subscription, end: int, write: Write) -> list[bytes]:
    games = want.games
    wanted = [entry for entry in entries if entry.sequence <= end and entry.game in games]
    if want.filter.is_empty:
        try:  # the usual case, at half the cost
            return write(epoch, wanted)
        except InvalidRound:
            pass  # another program wrote to a round's subject; the item of that message logs it
    return write(epoch, [entry for entry in wanted if _matches(Item(epoch, entry), want.filter)])


def _matches(item: Item, filter_: Filter) -> bool:
    return item.valid and item.matches(filter_)
