"""The pages of the log that one replay holds: the one that it writes and, when there is room, the next.

Owns that all replays together hold no more than their budget. Knows nothing of links.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from relay.history.history import PAGE, History, Stretch
from relay.history.read_ahead import ReadAhead


class HeldPages:
    """The pages of one replay."""

    def __init__(self, history: History) -> None:
        self._budget = history.held
        self._ahead = ReadAhead(history)
        self._ahead_share = 0

    @asynccontextmanager
    async def page(self, position: int, games: frozenset[str], *, limit: int) -> AsyncIterator[Stretch]:
        """Hold what `History.stretch` returns for as long as the block runs: what was read ahead, or else read now."""
        if self._ahead_share:
            with self._share_of_ahead():
                yield await self._ahead.stretch(position, games, limit=limit)
        else:
            async with self._budget.share(limit):
                yield await self._ahead.stretch(position, games, limit=limit)

    def read_ahead(self, position: int, games: frozenset[str], *, limit: int = PAGE) -> None:
        """Begin to read the next page, of up to `limit` rounds, if it may be held beside this one."""
        self.drop()
        self._ahead_share = self._budget.try_take(limit)
        if self._ahead_share:
            self._ahead.start(position, games, limit=limit)

    def drop(self) -> None:
        """Hold no page that was read ahead."""
        if self._ahead_share:
            self._ahead.cancel()
            with self._share_of_ahead():
                pass

    @contextmanager
    def _share_of_ahead(self) -> Iterator[None]:
        share, self._ahead_share = self._ahead_share, 0
        try:
            yield
        finally:
            self._budget.give(share)
