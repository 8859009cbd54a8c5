"""Decide which rows of a growing table are new, and up to which id no row can come any more. Pure: no I/O, no clock.

Ids are assigned in order and committed in any order, so ``id > last seen`` misses late commits. The ids missing between
the ids seen are a *hole*. A hole is closed when every transaction that held a lock for writing on the table after the
hole was seen has ended, and the hole is still empty in a scan begun after that. Why so: docs/postgres-notify.md
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from typing import Final, NamedTuple

MIN_ID: Final = -(2**63)
MAX_ID: Final = 2**63 - 1
_INTERVALS_KEPT: Final = 1000


class Span(NamedTuple):
    """Ids from `low` to `high`, both included."""

    low: int
    high: int


class _Cohort(NamedTuple):
    """Holes up to `top` can be closed when all of `writers` have ended."""

    top: int
    writers: frozenset[str]


class Frontier:
    """Which ids above a floor have been seen.

    In each turn: scan the table (`spans` says where), `record` the ids, then read the locks and `update_writers`.
    """

    def __init__(self, floor: int, *, lowest: int = -1, lookback: int = 0) -> None:
        """Begin above `floor`.

        Args:
            floor: Everything up to it is done.
            lowest: Ids up to it are never in `spans`.
            lookback: How far below the newest id `spans` reaches with `look_back`.
        """
        self.top = floor
        self.cap = MAX_ID
        """Ids above it are not read now: they are those of old rows, since the ids have begun again below them."""
        self._lowest = lowest
        self._lookback = lookback
        self._holes: list[Span] = []
        self._closed: list[Span] = []  # unseen ids near the top: closed holes, and ids below the floor
        self._above: list[int] = []  # ids seen above the safe one, and perhaps some below it
        self._cohort: _Cohort | None = None
        if floor > (below := max(lowest, floor - lookback)):
            self._closed.append(Span(below + 1, floor))

    @property
    def safe(self) -> int:
        """Every id up to this has been seen or is in a closed hole."""
        return self._holes[0].low - 1 if self._holes else self.top

    @property
    def has_holes(self) -> bool:
        return bool(self._holes)

    @property
    def ahead(self) -> int:
        """Number of ids seen above the safe one."""
        del self._above[: bisect_right(self._above, self.safe)]
        return len(self._above)

    def spans(self, *, look_back: bool = False, new: bool = True) -> list[Span]:
        """Return where unseen rows may be, in ascending order.

        Args:
            look_back: Include closed holes, `lookback` ids deep.
            new: Include ids above the newest one.
        """
        found = sorted(self._holes + self._closed) if look_back else list(self._holes)
        if new and self.top < self.cap:
            found.append(Span(self.top + 1, self.cap))
        return found

    def record(self, ids: Iterable[int], *, up_to: int = MAX_ID) -> list[int]:
        """Record the ids of one scan, in ascending order; return those not seen before, in that order.

        `up_to` is the last id that the scan covered: less than all if it was cut at its limit.
        """
        news = [number for number in ids if self._is_new(number)]
        if self._holes:
            for number in news:
                insort(self._above, number)
        else:
            self._above.clear()
        cohort = self._cohort
        if cohort is not None and not cohort.writers and up_to >= cohort.top:
            self._close_holes(cohort.top)
        return news

    def update_writers(self, writers: Iterable[str]) -> bool:
        """Take the transactions that hold a lock for writing now; return whether the next scan can close holes."""
        if not self._holes:
            self._cohort = None
            return False
        present = frozenset(writers)
        cohort = self._cohort
        self._cohort = (
            _Cohort(self.top, present) if cohort is None else cohort._replace(writers=cohort.writers & present)
        )
        return not self._cohort.writers

    def forget_writers(self) -> None:
        """Forget the transactions: after a reconnect the server may have restarted, and ids of transactions repeat."""
        self._cohort = None

    def _is_new(self, number: int) -> bool:
        if number > self.top:
            if number > self.top + 1:
                self._holes.append(Span(self.top + 1, number - 1))
            self.top = number
            return True
        return _take(self._holes, number) or _take(self._closed, number)

    def _close_holes(self, top: int) -> None:
        closed = [hole for hole in self._holes if hole.low <= top]
        self._holes = self._holes[len(closed) :]
        self._cohort = None
        # The newest closed holes are kept, a thousand at most, and scanned again with `look_back`.
        oldest = max(self._lowest, self.top - self._lookback) + 1
        kept = [Span(max(low, oldest), high) for low, high in sorted(self._closed + closed) if high >= oldest]
        self._closed = kept[-_INTERVALS_KEPT:]


def _take(spans: list[Span], number: int) -> bool:
    """Remove one id from ascending spans; return whether it was in one."""
    index = bisect_left(spans, (number + 1,)) - 1
    if index < 0 or spans[index].high < number:
        return False
    low, high = spans[index]
    rest = [Span(low, number - 1), Span(number + 1, high)]
    spans[index : index + 1] = [span for span in rest if span.low <= span.high]
    return True
