"""How long to wait before something that failed is tried again. Pure but for chance: it never sleeps itself."""

import random


def spread(wait_s: float) -> float:
    """Shorten a wait by up to half, at random: those that failed together do not come back together."""
    return wait_s * random.uniform(0.5, 1)  # noqa: S311 - no secret


class Backoff:
    """The waits between attempts at one thing: twice as long each time, up to a bound, and spread.

    For as many attempts as it takes: a power of two would overflow where something is away for an hour.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = min(first_s, longest_s)
        self._longest_s = longest_s
        self._wait_s = self._first_s

    def next_s(self) -> float:
        """Take note of a failure; return the seconds to wait now."""
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, self._longest_s)
        return spread(wait_s)

    def reset(self) -> None:
        """Take note of a success: the next wait is the shortest again."""
        self._wait_s = self._first_s
