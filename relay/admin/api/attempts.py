"""How many wrong credentials an address may send to the admin API. Pure, except for the clock that is handed in.

A secret has 256 random bits, so nobody guesses one; the limit bounds what attempts cost. A right credential is
accepted in any case: an attacker behind the same proxy locks nobody out.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

ALLOWED: Final = 10
"""Wrong credentials of one address in a period: more than a person mistypes."""
PERIOD_S: Final = 60.0
_ADDRESSES: Final = 1_000


class Attempts:
    """Counts wrong credentials by address; bounded, however many addresses there are."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, address: str) -> tuple[int, float]:
        """Count one; return how many there are in this period, and when it ends, in seconds from now."""
        now = self._clock()
        began, count = self._counts.pop(address, (now, 0))
        if now - began >= PERIOD_S:
            began, count = now, 0
        self._counts[address] = (began, count + 1)
        if len(self._counts) > _ADDRESSES:
            self._counts.popitem(last=False)
        return count + 1, began + PERIOD_S - now
