"""Read a replay's next page while the one before is being written, so that neither the log nor the client waits.

Owns at most one page per replay: memory stays bounded however slow the client is. Knows nothing of links.
"""

import asyncio
from typing import NamedTuple

from relay.history.history import PAGE, History, Stretch
from relay.live.hub import Generation


class _Begin(NamedTuple):
    """What a page goes on from; a page is of use only to who asks for exactly this."""

    generation: Generation
    position: int
    games: frozenset[str]


class ReadAhead:
    """The pages of one replay."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._ahead: tuple[_Begin, asyncio.Task[Stretch]] | None = None

    async def stretch(self, position: int, games: frozenset[str], *, limit: int = PAGE) -> Stretch:
        """Return what `History.stretch` does: read ahead if this is what was, or else read now."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            begin, page = ahead
            if begin == self._begin(position, games):
                return await page
            page.cancel()
        return await self._history.stretch(position, games, limit=limit)

    def start(self, position: int, games: frozenset[str], *, limit: int = PAGE) -> None:
        """Begin to read what is likely to be asked for next."""
        self.cancel()
        begin = self._begin(position, games)
        page = asyncio.create_task(
            self._history.stretch(position, games, limit=limit, generation=begin.generation), name="read-ahead"
        )
        page.add_done_callback(_mark_seen)
        self._ahead = begin, page

    def cancel(self) -> None:
        """Forget the page that is on its way."""
        if self._ahead is not None:
            self._ahead[1].cancel()
            self._ahead = None

    def _begin(self, position: int, games: frozenset[str]) -> _Begin:
        return _Begin(self._history.hub.generation, position, games)


def _mark_seen(page: asyncio.Task[Stretch]) -> None:
    """A page that failed and is not needed any more is no fault that anybody has to be told of."""
    if not page.cancelled():
        page.exception()
