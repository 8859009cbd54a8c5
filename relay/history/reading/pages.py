"""Pages of the log: one source for every reader of history, and the pages that one reader holds.

Owns that few pages are read at a time, in turns by payer, who is charged for them; that all replays together hold a
bounded number of rounds; and that the next page is read while one is written, so that neither the log nor the client
waits. What a page covers is in `relay.history.reading.stretch`. Knows nothing of links.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

from relay.history.reading.budget import FEW, Budget
from relay.history.reading.corrections import CorrectionPages, CorrectionsOf
from relay.history.reading.fair_shares import Claim, FairShares, Turn
from relay.history.reading.flight import Flight
from relay.history.reading.payer import RELAY, Payer
from relay.history.reading.shared_pages import SharedPages
from relay.history.reading.stretch import Stretch, corrected, has_holes, limit_of_all, stretch_of
from relay.live.hub import Generation, Hub
from roundlog.log_errors import LogUnavailable
from roundlog.reader import LogReader
from rounds import Cursor
from rounds.subjects import corrections_of, only_game

PAGE: Final = 500
"""Rounds asked of the log at a time: about 100 KB, some milliseconds of the server's work."""
TURN_S: Final = 10.0
"""How long a reader waits for its turn. Without it, a log that has stopped answering would queue its readers."""
ALL_GAMES: Final = frozenset[str]()
"""Every game of the log, whether or not its name is known."""
_HELD: Final = 32 * PAGE
"""Rounds that all replays together may hold while they write them: some 10 MB; 32 MB when rounds are large."""
_REQUEST: Final = 250
"""What the server takes to find where a page begins, in rounds that it reads in the same time."""
_SPARE: Final = 1
"""Pages that are read beside those of a key that has as many under way as it may."""
_HEAD_START: Final = 10 * (PAGE + _REQUEST)
"""A resume of ten pages does not take turns with a crowd of another key."""


class LogChanged(LogUnavailable):
    """The log was rebuilt, or lost its tail, while it was read. What was read is not valid: begin again."""

    def __str__(self) -> str:
        return "the log changed while it was read"


class _Answer(NamedTuple):
    """A page as a stretch, and how many rounds the log sent for it: those cut off at its end are read again later."""

    stretch: Stretch
    read: int


class PageSource:
    """Reads pages of one log, in turns. One per process."""

    def __init__(self, hub: Hub, reader: LogReader, *, concurrent: int) -> None:
        """At most `concurrent` pages of one key are read at a time, and one more of others; more wait for turns."""
        self.held = Budget(_HELD)
        """What replays may hold of the log."""
        self._shared = SharedPages()
        self._corrections = CorrectionPages()
        self._hub = hub
        self._reader = reader
        self._reading = FairShares(concurrent + _SPARE, most=concurrent, head_start=_HEAD_START)

    def check(self, generation: Generation) -> None:
        """Raise `LogChanged` when `generation` is over."""
        if generation != self._hub.generation:
            raise LogChanged

    async def read(
        self,
        position: int,
        games: frozenset[str],
        *,
        generation: Generation,
        limit: int = PAGE,
        finds_gaps: bool = True,
        known: int = 0,
        payer: Payer = RELAY,
    ) -> Stretch:
        """Read a page after `position`: of the one game or, when several are asked for, of all.

        Of one game and its corrections, a page of each is read, where the latter are not at hand, and both are merged.

        Args:
            position: The sequence that was reached.
            games: What is wanted.
            generation: That in which `position` was found.
            limit: The most rounds to read.
            finds_gaps: Off: what is gone is not looked for, which saves a request.
            known: A sequence that the log has reached, should this relay not have seen it yet.
            payer: Who is charged for what is read, and waits for its turn; nobody is for a page that is at hand.

        Raises:
            LogChanged: The generation is over.
            LogUnavailable: No answer, or no turn, in time.
        """
        game = only_game(games)
        if game is None or len(games) == 1:
            only = None if game is None else next(iter(games))
            return await self._page(position, only, generation, limit, known, payer, finds_gaps=finds_gaps)
        rounds = await self._page(position, game, generation, limit, known, payer, finds_gaps=finds_gaps)
        name = corrections_of(game)
        of = CorrectionsOf(name, generation, finds_gaps)
        found = self._corrections.find(of, position, end=rounds.covered_to)
        if found is None:
            # After the rounds: then it reaches as far as they do, unless corrections are as many.
            known = max(known, rounds.covered_to)
            found = await self._page(position, name, generation, limit, known, payer, finds_gaps=finds_gaps)
            self._corrections.keep(of, position, found)
        return corrected(rounds, found, position, finds_gaps=finds_gaps)

    async def _page(
        self,
        position: int,
        only: str | None,
        generation: Generation,
        limit: int,
        known: int,
        payer: Payer,
        *,
        finds_gaps: bool,
    ) -> Stretch:
        """Read a page of what one name stands for, or of all games."""
        self.check(generation)
        most = limit_of_all(position, limit) if only is None else limit

        async def read(flight: Flight[Stretch]) -> Stretch:
            head = max(known, self._hub.head.sequence)
            async with self._turn_to_read(flight.claim, most) as turn:
                flight.sent()
                answer = await self._read(position, only, most, generation, head=head, finds_gaps=finds_gaps)
                turn.cost = answer.read + _REQUEST
                turn.payer.charge(answer.read)
                return answer.stretch

        if _is_shared(limit):
            stretch = await self._shared.get((generation, position, only, limit, finds_gaps), read, payer)
        else:  # of a slow client, or in bulk
            stretch = await Flight(read).join(payer)
        self.check(generation)
        return stretch

    def has(
        self, position: int, games: frozenset[str], generation: Generation, *, limit: int, finds_gaps: bool
    ) -> bool:
        """Whether a page is at hand that `read` returns for these arguments, so that nobody is charged for it."""
        game = only_game(games)
        if game is not None and len(games) > 1:
            of = CorrectionsOf(corrections_of(game), generation, finds_gaps)
            if self._corrections.find(of, position, end=position) is None:
                return False
            only: str | None = game
        else:
            only = None if game is None else next(iter(games))
        return _is_shared(limit) and self._shared.has((generation, position, only, limit, finds_gaps))

    async def _read(
        self, position: int, only: str | None, limit: int, generation: Generation, *, head: int, finds_gaps: bool
    ) -> _Answer:
        seen, newest = self._hub.head, self._newest(only)
        page = await self._reader.page_up_to(head, position + 1, limit=limit, game=only)
        if not page.remaining and (page.last or position) < newest:
            await self._check_end(seen, generation)
        oldest = None if only is None or not finds_gaps else await self._reader.first()
        first = await self._reader.first() if only is None and finds_gaps and has_holes(page, position) else None
        read = len(page.entries)
        epoch = generation.epoch
        return _Answer(stretch_of(page, epoch=epoch, position=position, head=head, oldest=oldest, first=first), read)

    def _newest(self, only: str | None) -> int:
        """Return the newest sequence that memory has of what one name stands for, or of all games."""
        if only is None:
            return self._hub.head.sequence
        ring = self._hub.ring
        if (last := ring.last(only, 1)) is not None:
            return last[0].sequence
        return ring.newest[only].sequence if only in ring.newest else 0

    async def _check_end(self, seen: Cursor, generation: Generation) -> None:
        """Check a log that lacks rounds which memory has: they were purged, or it is not the log that was followed.

        The feed notices that a moment later, or in seconds when no round comes. What is read until then has the
        sequences of one log, and rounds, or none, of another.
        """
        end = await self._reader.end()
        self.check(generation)
        if end.epoch != seen.epoch or end.sequence < seen.sequence:
            raise LogUnavailable("the log was rebuilt, or lost its tail, a moment ago")

    def _turn_to_read(self, claim: Claim | None = None, rounds: int = PAGE) -> AbstractAsyncContextManager[Turn]:
        return in_turn(self._reading, claim or Claim(RELAY), "read the log", cost=rounds + _REQUEST)


@asynccontextmanager
async def in_turn(shares: FairShares, claim: Claim, what: str, *, cost: float = 1.0) -> AsyncIterator[Turn]:
    """Hold one of a few places while the block runs.

    Raises:
        LogUnavailable: None is free within `TURN_S`; the text says for `what`.
    """
    async with AsyncExitStack() as stack:
        try:
            turn = await stack.enter_async_context(shares.turn(claim, cost=cost, within_s=TURN_S))
        except TimeoutError as error:
            raise LogUnavailable(f"no turn to {what} within {TURN_S:g} s: too many readers wait") from error
        yield turn


def _is_shared(limit: int) -> bool:
    return FEW < limit <= PAGE


class _Ahead(NamedTuple):
    """A page that is being read before it is asked for; of use only to a reader that asks for exactly this."""

    generation: Generation
    position: int
    games: frozenset[str]
    page: "asyncio.Task[Stretch]"
    share: int


class Pages:
    """The pages that one replay holds: the one that it writes and, when there is room, the next.

    A replay whose client is slow reads few rounds at a time: such pages may be held for as long as it takes.
    """

    def __init__(self, source: PageSource, *, most: int = PAGE, payer: Payer = RELAY) -> None:
        """`most` is the number of rounds in a page while the client keeps up; `payer` is charged for them."""
        self._source = source
        self._payer = payer
        self._most = most
        self._limit = most
        self._has_shrunk = False
        self._share = 0
        self._ahead: _Ahead | None = None

    @property
    def is_few(self) -> bool:
        """Whether pages are so small that they may be held while the client is waited for."""
        return self._limit <= FEW

    def shrink(self) -> None:
        """Read few rounds at a time from now on: the client, or the pace, makes the replay wait."""
        self._limit, self._has_shrunk = FEW, True

    async def read(self, position: int, games: frozenset[str], generation: Generation) -> Stretch:
        """Return what `PageSource.read` does, read ahead or read now, and hold it until `release`.

        Waits while its payer is over its limit; and for a share of what all replays may hold, without a deadline: each
        one gives its share back soon.
        """
        self._give_back()
        self._has_shrunk = False
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self._share = ahead.share
        else:
            if not self._source.has(position, games, generation, limit=self._limit, finds_gaps=True):
                await self._payer.until_it_may_read()
            self._share = await self._source.held.take(self._limit, self._payer)
        try:
            if ahead is not None:
                if (ahead.generation, ahead.position, ahead.games) == (generation, position, games):
                    return await ahead.page
                ahead.page.cancel()
            return await self._source.read(position, games, generation=generation, limit=self._limit, payer=self._payer)
        except BaseException:
            self._give_back()
            raise

    async def read_each(self, begins: Mapping[str, int], generation: Generation) -> list[Stretch]:
        """Read a page of each game, after a position of its own, and hold all of them until `release`."""
        self._give_back()
        self._has_shrunk = False
        limit = self._limit
        await self._payer.until_it_may_read()
        self._share = await self._source.held.take(0 if self.is_few else limit * len(begins), self._payer)
        try:
            return await asyncio.gather(
                *(
                    self._source.read(begin, frozenset({game}), generation=generation, limit=limit, payer=self._payer)
                    for game, begin in begins.items()
                )
            )
        except BaseException:
            self._give_back()
            raise

    def read_ahead(self, position: int, games: frozenset[str], generation: Generation) -> None:
        """Begin to read the next page, if the client keeps up, it may be held beside this one, and be paid for."""
        self._drop_ahead()
        if self._limit < self._most or not self._payer.may_read:
            return
        share = self._source.held.try_take(self._most, self._payer)
        if share:
            read = self._source.read(position, games, generation=generation, limit=self._most, payer=self._payer)
            page = asyncio.create_task(read, name="read-ahead")
            page.add_done_callback(_retrieve_error)
            self._ahead = _Ahead(generation, position, games, page, share)

    def release(self) -> None:
        """Release the current page. Unless the client stalled meanwhile, the next page is larger."""
        if not self._has_shrunk:
            self._limit = min(self._most, self._limit * 2)
        self._give_back()

    def drop(self) -> None:
        """Hold nothing: neither the page that was read nor the next."""
        self._give_back()
        self._drop_ahead()

    def _give_back(self) -> None:
        share, self._share = self._share, 0
        self._source.held.give(share, self._payer)

    def _drop_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.page.cancel()
            self._source.held.give(ahead.share, self._payer)


def _retrieve_error(page: "asyncio.Task[Stretch]") -> None:
    """Retrieve the error of a page that nobody needs any more, so that asyncio does not log it."""
    if not page.cancelled():
        page.exception()
