"""Pages of the log: one source for every reader of history, and the pages that one reader holds.

Owns that few pages are read at a time, in the order asked for; that all replays together hold a bounded number of
rounds; and that the next page is read while one is written, so that neither the log nor the client waits. What a page
covers is in `relay.history.reading.stretch`. Knows nothing of links.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, NamedTuple

from relay.history.reading.budget import FEW, Budget
from relay.history.reading.flight import Flight
from relay.history.reading.shared_pages import SharedPages
from relay.history.reading.stretch import Stretch, has_holes, limit_of_all, stretch_of
from relay.live.hub import Generation, Hub
from roundlog.log_errors import LogUnavailable
from roundlog.reader import LogReader

PAGE: Final = 500
"""Rounds asked of the log at a time: about 100 KB, some milliseconds of the server's work."""
TURN_S: Final = 10.0
"""How long a reader waits for its turn. Without it, a log that has stopped answering would queue its readers."""
ALL_GAMES: Final = frozenset[str]()
"""Every game of the log, whether or not its name is known."""
_HELD: Final = 32 * PAGE
"""Rounds that all replays together may hold while they write them: some 10 MB; 32 MB when rounds are large."""


class LogChanged(LogUnavailable):
    """The log was rebuilt, or lost its tail, while it was read. What was read is not valid: begin again."""

    def __str__(self) -> str:
        return "the log changed while it was read"


class PageSource:
    """Reads pages of one log, in turns. One per process."""

    def __init__(self, hub: Hub, reader: LogReader, *, concurrent: int) -> None:
        """At most `concurrent` pages are read at a time; others wait, first come, first served."""
        self.held = Budget(_HELD)
        """What replays may hold of the log."""
        self._shared = SharedPages()
        self._hub = hub
        self._reader = reader
        self._reading = asyncio.Semaphore(concurrent)

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
    ) -> Stretch:
        """Read a page after `position`: of the one game or, when several are asked for, of all.

        Args:
            position: The sequence that was reached.
            games: What is wanted.
            generation: That in which `position` was found.
            limit: The most rounds to read.
            finds_gaps: Off: what is gone is not looked for, which saves a request.
            known: A sequence that the log has reached, should this relay not have seen it yet.

        Raises:
            LogChanged: The generation is over.
            LogUnavailable: No answer, or no turn, in time.
        """
        self.check(generation)
        only = next(iter(games)) if len(games) == 1 else None

        async def read(flight: Flight[Stretch] | None = None) -> Stretch:
            head = max(known, self._hub.head.sequence)
            async with self._turn_to_read():
                if flight is not None:
                    flight.sent()
                return await self._read(position, only, limit, generation.epoch, head=head, finds_gaps=finds_gaps)

        if FEW < limit <= PAGE:
            stretch = await self._shared.get((generation, position, only, limit, finds_gaps), read)
        else:  # of a slow client, or in bulk
            stretch = await read()
        self.check(generation)
        return stretch

    async def _read(
        self, position: int, only: str | None, limit: int, epoch: str, *, head: int, finds_gaps: bool
    ) -> Stretch:
        if only is None:
            limit = limit_of_all(position, limit)
        page = await self._reader.page_up_to(head, position + 1, limit=limit, game=only)
        oldest = None if only is None or not finds_gaps else await self._reader.first()
        first = await self._reader.first() if only is None and finds_gaps and has_holes(page, position) else None
        return stretch_of(page, epoch=epoch, position=position, head=head, oldest=oldest, first=first)

    def _turn_to_read(self) -> AbstractAsyncContextManager[None]:
        return in_turn(self._reading, "read the log")


@asynccontextmanager
async def in_turn(places: asyncio.Semaphore, what: str) -> AsyncIterator[None]:
    """Hold one of a few places while the block runs; first come, first served.

    Raises:
        LogUnavailable: None is free within `TURN_S`; the text says for `what`.
    """
    try:
        async with asyncio.timeout(TURN_S):
            await places.acquire()
    except TimeoutError as error:
        raise LogUnavailable(f"no turn to {what} within {TURN_S:g} s: too many readers wait") from error
    try:
        yield
    finally:
        places.release()


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

    def __init__(self, source: PageSource, *, most: int = PAGE) -> None:
        """`most` is the number of rounds in a page while the client keeps up."""
        self._source = source
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

        Waits for a share of what all replays may hold, without a deadline: each one gives its share back soon.
        """
        self._give_back()
        self._has_shrunk = False
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            self._share = ahead.share
        else:
            self._share = await self._source.held.take(self._limit)
        try:
            if ahead is not None:
                if (ahead.generation, ahead.position, ahead.games) == (generation, position, games):
                    return await ahead.page
                ahead.page.cancel()
            return await self._source.read(position, games, generation=generation, limit=self._limit)
        except BaseException:
            self._give_back()
            raise

    async def read_each(self, begins: Mapping[str, int], generation: Generation) -> list[Stretch]:
        """Read a page of each game, after a position of its own, and hold all of them until `release`."""
        self._give_back()
        self._has_shrunk = False
        limit = self._limit
        self._share = await self._source.held.take(0 if self.is_few else limit * len(begins))
        try:
            return await asyncio.gather(
                *(
                    self._source.read(begin, frozenset({game}), generation=generation, limit=limit)
                    for game, begin in begins.items()
                )
            )
        except BaseException:
            self._give_back()
            raise

    def read_ahead(self, position: int, games: frozenset[str], generation: Generation) -> None:
        """Begin to read the next page, if the client keeps up and it may be held beside this one."""
        self._drop_ahead()
        share = self._source.held.try_take(self._most) if self._limit == self._most else 0
        if share:
            read = self._source.read(position, games, generation=generation, limit=self._most)
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
        self._source.held.give(share)

    def _drop_ahead(self) -> None:
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.page.cancel()
            self._source.held.give(ahead.share)


def _retrieve_error(page: "asyncio.Task[Stretch]") -> None:
    """Retrieve the error of a page that nobody needs any more, so that asyncio does not log it."""
    if not page.cancelled():
        page.exception()
