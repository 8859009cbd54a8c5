"""Decide which rows of a growing table are new, and up to which id nothing can come any more. Pure: no I/O, no clock.

Ids are given out in order and committed in any order, so ``id > last seen`` misses who commits late. What is missing
between the ids seen is a *hole*. A hole is dead when every transaction that held a lock for writing on the table after
the hole was seen is gone, and the hole is still empty in a scan begun after that. Why so: docs/postgres-notify.md
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
    """Holes up to `top` die when all of `holders` are gone."""

    top: int
    holders: frozenset[str]


class Frontier:
    """What has been seen of the ids above a floor.

    A turn is: scan the table (`spans` says where), `see` the ids, then read the locks and `judge` the holders.
    """

    def __init__(self, floor: int, *, lowest: int = -1, lookback: int = 0) -> None:
        """Begin above `floor`.

        Args:
            floor: Everything up to it has been dealt with.
            lowest: Ids up to it are never asked for.
            lookback: How far below the newest id `spans` reaches when it is asked to look back.
        """
        self.top = floor
        self._lowest = lowest
        self._lookback = lookback
        self._holes: list[Span] = []
        self._passed: list[Span] = []  # ids passed over, near the top: dead holes, and what came before the floor
        self._above: list[int] = []  # ids seen above the safe one, and perhaps some below it
        self._cohort: _Cohort | None = None
        if floor > (below := max(lowest, floor - lookback)):
            self._passed.append(Span(below + 1, floor))

    @property
    def safe(self) -> int:
        """Every id up to this has been seen or is dead."""
        return self._holes[0].low - 1 if self._holes else self.top

    @property
    def has_holes(self) -> bool:
        return bool(self._holes)

    @property
    def ahead(self) -> int:
        """How many of the ids seen are above the safe one."""
        del self._above[: bisect_right(self._above, self.safe)]
        return len(self._above)

    def spans(self, *, look_back: bool = False, new: bool = True) -> list[Span]:
        """Where rows that have not been seen may be, in ascending order.

        Args:
            look_back: Also where a row should not come any more, `lookback` ids deep.
            new: Also beyond the newest id.
        """
        found = sorted(self._holes + self._passed) if look_back else list(self._holes)
        if new:
            found.append(Span(self.top + 1, MAX_ID))
        return found

    def see(self, ids: Iterable[int], *, up_to: int = MAX_ID) -> list[int]:
        """Take note of ids that one scan found, in ascending order; return those not seen before, in that order.

        `up_to` is how far the scan got: less than everything when it was cut.
        """
        news = [number for number in ids if self._is_news(number)]
        if self._holes:
            for number in news:
                insort(self._above, number)
        else:
            self._above.clear()
        cohort = self._cohort
        if cohort is not None and not cohort.holders and up_to >= cohort.top:
            self._bury(cohort.top)
        return news

    def judge(self, holders: Iterable[str]) -> bool:
        """Take note of who holds a lock for writing now; whether to scan again at once, since holes can be decided."""
        if not self._holes:
            self._cohort = None
            return False
        present = frozenset(holders)
        cohort = self._cohort
        self._cohort = (
            _Cohort(self.top, present) if cohort is None else cohort._replace(holders=cohort.holders & present)
        )
        return not self._cohort.holders

    def forget_holders(self) -> None:
        """The server may be another, or a new incarnation: names of transactions mean nothing any more."""
        self._cohort = None

    def _is_news(self, number: int) -> bool:
        if number > self.top:
            if number > self.top + 1:
                self._holes.append(Span(self.top + 1, number - 1))
            self.top = number
            return True
        return _take(self._holes, number) or _take(self._passed, number)

    def _bury(self, top: int) -> None:
        dead = [hole for hole in self._holes if hole.low <= top]
        self._holes = self._holes[len(dead) :]
        self._cohort = None
        # Low to high, the newest kept: who comes later than a thousand ids is not waited for.
        oldest = max(self._lowest, self.top - self._lookback) + 1
        kept = [Span(max(low, oldest), high) for low, high in sorted(self._passed + dead) if high >= oldest]
        self._passed = kept[-_INTERVALS_KEPT:]


def _take(spans: list[Span], number: int) -> bool:
    """Take one id out of ascending spans; whether it was in one."""
    index = bisect_left(spans, (number + 1,)) - 1
    if index < 0 or spans[index].high < number:
        return False
    low, high = spans[index]
    rest = [Span(low, number - 1), Span(number + 1, high)]
    spans[index : index + 1] = [span for span in rest if span.low <= span.high]
    return True
