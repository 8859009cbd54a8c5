"""The backlog of a source: how much it holds that was not yet confirmed to it, measured every few seconds.

A backend cannot count this itself: it does not know what it has not read. Which question to ask the source is the
backend's part, see `HasBacklog`; when to ask, and how old the backlog is, is decided here.
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
    """How much of a source is not confirmed, at one moment."""

    unit: Literal["bytes", "rows"]
    head: int
    """The newest position in the source, in growing numbers of its own: a WAL position, an id."""
    confirmed: int
    """The position up to which everything was confirmed to it, in the same numbers."""
    behind: int
    """The amount between the two, in `unit`."""
    kept_bytes: int | None = None
    """What the source really keeps for us on its disk, also beside what is not confirmed; None: not known."""


@runtime_checkable
class HasBacklog(Protocol):
    """What a backend may also implement: a way to ask its source for the backlog."""

    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]:
        """Connect for as long as the block runs; yield a function that measures. Each measurement has a deadline.

        Raises:
            SourceError: The source cannot be asked now; retrying may help. The function raises it too.
        """
        ...


class Trail:
    """The source's position over time, to date the backlog. Pure; keeps a bounded number of measurements."""

    def __init__(self) -> None:
        self._moments: deque[tuple[float, int]] = deque()

    def behind_s(self, backlog: Backlog, now: float) -> float:
        """Record a measurement; return the age in seconds, at most, of the oldest unconfirmed change.

        0: there is no backlog. Exact to the interval of measurements; after a start, counted from the first one.
        """
        moments = self._moments
        if backlog.confirmed >= backlog.head or (moments and backlog.head < moments[-1][1]):  # another server
            moments.clear()
        moments.append((now, backlog.head))
        while len(moments) > 1 and moments[1][1] <= backlog.confirmed:
            moments.popleft()
        if len(moments) > _MOMENTS:
            # Drop every other one: an old backlog need not be dated to the second.
            self._moments = deque([moments[0], *list(moments)[2::2]])
        return now - moments[0][0]


class BacklogWatch:
    """The latest measurement of one source. Run it in a task."""

    def __init__(self, source: object, *, every_s: float = _EVERY_S) -> None:
        """Watch a backend; one that does not implement `HasBacklog` is never asked."""
        self._source = source if isinstance(source, HasBacklog) else None
        self._every_s = every_s
        self.newest: Backlog | None = None
        """None: it cannot be measured now."""
        self.behind_s: float | None = None
        """The age of the oldest unconfirmed change, in seconds; None as for `newest`."""

    async def run(self) -> None:
        """Measure until cancelled. A source that cannot be asked is retried; the failure is logged once."""
        if self._source is None:
            return
        trail, now = Trail(), asyncio.get_running_loop().time
        has_warned = False
        while True:
            try:
                async with self._source.measuring() as measure:
                    while True:
                        backlog = await measure()
                        self.newest, self.behind_s = backlog, trail.behind_s(backlog, now())
                        has_warned = False
                        await asyncio.sleep(self._every_s)
            except SourceError as error:
                self.newest = self.behind_s = None
                if not has_warned:
                    has_warned = True
                    log.warning("backlog_not_measured", error=str(error))
            await asyncio.sleep(self._every_s)
