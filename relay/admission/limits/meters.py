"""Rates, and how much of one has been used: the generic cell rate algorithm (GCRA, ITU-T I.371). Pure.

Of each user one number is stored: the time at which everything it used is forgotten. So a user that has been at rest
may use the whole amount at once, and regains it evenly; a refused attempt costs nothing. Tables are bounded.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple, Self

from relay.errors import Quota

_SAMPLE: Final = 8
"""Entries looked at when a table is full, to find the one whose loss matters least."""
_MOST: Final = 10**9
"""A larger amount is like no limit."""
_LONGEST_S: Final = 86_400.0
"""Time in which one unit is regained at most: delays that clients get stay numbers that they can read."""
_ROUNDING: Final = 0.01
"""Share of an interval that times may be wrong by: sums of floats are not exact."""
_MOST_DEBT: Final = 2.0
"""Periods that a user may be in debt for at most: what others report, or a read of unknown size, may exceed a limit."""


class Rate(NamedTuple):
    """An amount in a period. All of it may be used at once."""

    amount: int
    interval_s: float
    """Time in which one unit is regained."""

    @classmethod
    def per_min(cls, amount: int) -> Self:
        return cls(amount, 60 / amount)

    @classmethod
    def per_s(cls, amount: float) -> Self:
        """At least one at once: 0.5 per second is one every two seconds; and at least one in `_LONGEST_S`."""
        amount = min(max(amount, 1 / _LONGEST_S), _MOST)
        return cls(max(1, math.floor(amount)), 1 / amount)

    @property
    def period_s(self) -> float:
        """Time in which all of it is regained."""
        return self.amount * self.interval_s


class Meters:
    """What each of many users has used of one limit; the rate may differ by user, and change.

    At most `most` users are known. When there are more, the one of a few of the oldest is forgotten that has used the
    least: so a client with very many addresses makes others forget its own, and not those that are at their limit.
    """

    __slots__ = ("_most", "_until")

    def __init__(self, most: int) -> None:
        self._most = most
        self._until: OrderedDict[Hashable, float] = OrderedDict()  # GCRA's theoretical arrival time, oldest use first

    def __len__(self) -> int:
        return len(self._until)

    def wait_s(self, user: Hashable, rate: Rate, now: float) -> float:
        """Return in how many seconds one more unit may be used; 0 when it may at `now`."""
        until = self._until.get(user, now)
        wait_s = until - now - (rate.amount - 1) * rate.interval_s
        return wait_s if wait_s > rate.interval_s * _ROUNDING else 0.0

    def use(self, user: Hashable, rate: Rate, now: float, amount: int = 1) -> None:
        """Count what is used, also when it is more than the limit."""
        self.owe(user, amount * rate.interval_s, now, most_s=_MOST_DEBT * rate.period_s)

    def owe(self, user: Hashable, time_s: float, now: float, *, most_s: float) -> None:
        """Count what is regained in `time_s`; the user then has regained everything after `most_s` at most."""
        until = self._until.pop(user, now)
        if len(self._until) >= self._most:
            self._forget(now)
        self._until[user] = min(max(until, now) + time_s, max(until, now + most_s))

    def quota(self, user: Hashable, rate: Rate, now: float) -> Quota:
        """Return how much of a limit is free at `now`."""
        used_s = max(0.0, self._until.get(user, now) - now)
        free = rate.amount - math.ceil(used_s / rate.interval_s - _ROUNDING)
        return Quota(rate.amount, max(0, free), math.ceil(used_s - _ROUNDING * rate.interval_s))

    def _forget(self, now: float) -> None:
        """Forget a user: one that has regained everything if there is one, or the one that has used the least."""
        oldest = [self._until.popitem(last=False) for _ in range(min(_SAMPLE, len(self._until)))]
        oldest.sort(key=lambda entry: entry[1], reverse=True)
        oldest.pop()
        self._until.update(entry for entry in oldest if entry[1] > now)
