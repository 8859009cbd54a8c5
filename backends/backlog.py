"""How far a source is ahead of what it was told is stored, asked of the source itself, every few seconds.

A backend cannot know by itself: what it has not read yet shows nowhere in it. Which question to ask is the backend's,
see `HasBacklog`; when to ask, and how old what waits is, is decided here.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

import structlog

from backends.contract import SourceError

log = structlog.get_logger()

_EVERY_S: Final = 5.0
_MOMENTS: Final = 1024


class Backlog(NamedTuple):
    """What a source has and was not told to be stored, at one moment."""

    unit: Literal["bytes", "rows"]
    head: int
    """Where the source is, in terms of its own that grow: an offset in its log, an id."""
    confirmed: int
    """Up to where it was told that everything is stored, in the same terms."""
    behind: int
    """How much lies between, in `unit`."""


@runtime_checkable
class HasBacklog(Protocol):
    """What a backend may also have: a way to ask its source how much waits."""

    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]:
        """Connect for as long as the block lasts, and give what asks. Each answer has a deadline.

        Raises:
            SourceError: The source cannot be asked now; another try may do. The same for what asks.
        """
        ...


class Trail:
    """Where a source was at which moment, so that an offset can be given an age. Pure; keeps a bounded number."""

    def __init__(self) -> None:
        self._moments: deque[tuple[float, int]] = deque()

    def behind_s(self, backlog: Backlog, now: float) -> float:
        """Take a measurement; return for how long, at most, what is not confirmed has been there.

        0: nothing waits. Exact to the interval of measurements; after a start, counted from the first one.
        """
        moments = self._moments
        if backlog.confirmed >= backlog.head or (moments and backlog.head < moments[-1][1]):  # another server
            moments.clear()
        moments.append((now, backlog.head))
        while len(moments) > 1 and moments[1][1] <= backlog.confirmed:
            moments.popleft()
        if len(moments) > _MOMENTS:
            # Every other one: what has waited for long need not be known to the second.
            self._moments = deque([moments[0], *list(moments)[2::2]])
        return now - moments[0][0]


class BacklogWatch:
    """The newest answer of one source. Run it in a task."""

    def __init__(self, source: object, *, every_s: float = _EVERY_S) -> None:
        """Watch a backend; nothing is asked of one that has no `HasBacklog`."""
        self._source = source if isinstance(source, HasBacklog) else None
        self._every_s = every_s
        self.newest: Backlog | None = None
        """None: it cannot be told now."""
        self.behind_s: float | None = None
        """For how long the oldest of what waits has been there; None as for `newest`."""

    async def run(self) -> None:
        """Ask on and on; a source that cannot be asked is tried again, and said to be so once."""
        if self._source is None:
            return
        trail, now = Trail(), asyncio.get_running_loop().time
        told = False
        while True:
            try:
                async with self._source.measuring() as measure:
                    while True:
                        backlog = await measure()
                        self.newest, self.behind_s = backlog, trail.behind_s(backlog, now())
                        told = False
                        await asyncio.sleep(self._every_s)
            except SourceError as error:
                self.newest = self.behind_s = None
                if not told:
                    told = True
                    log.warning("backlog_not_measured", error=str(error))
            await asyncio.sleep(self._every_s)
