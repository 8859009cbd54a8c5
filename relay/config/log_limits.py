"""Bound how many lines of one kind are logged: lines that clients cause must neither hide others nor fill a disk.

Pure, except for the clock that is handed in. Does not know what a line says.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Final

PERIOD_S: Final = 10.0
LINES: Final = 10
"""Lines of one kind in each period. The next line after them has the number of those that were left out."""
_KINDS: Final = 1000


class LineLimit:
    """Counts lines by kind; bounded, however many kinds there are."""

    def __init__(
        self, *, lines: int = LINES, period_s: float = PERIOD_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Allow `lines` of each kind in every `period_s` seconds of `clock`."""
        self._most = lines
        self._period_s = period_s
        self._clock = clock
        self._kinds: OrderedDict[Hashable, tuple[float, int, int]] = OrderedDict()  # began at, lines, left out

    def allow(self, kind: Hashable) -> int | None:
        """Return how many lines of `kind` were left out since the last one; None: leave this one out too."""
        now = self._clock()
        began, lines, left_out = self._kinds.pop(kind, (now, 0, 0))
        if now >= began + self._period_s:
            began, lines = now, 0
        allowed = lines < self._most
        self._kinds[kind] = (began, lines + 1, 0) if allowed else (began, lines, left_out + 1)
        if len(self._kinds) > _KINDS:
            self._kinds.popitem(last=False)
        return left_out if allowed else None
