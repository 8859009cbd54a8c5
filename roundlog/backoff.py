"""How long to wait before a failed attempt is repeated. Random, and otherwise pure: nothing here sleeps."""

import random


def jittered(wait_s: float) -> float:
    """Shorten a wait by up to half, at random, so that processes that failed together do not retry together."""
    return wait_s * random.uniform(0.5, 1)  # noqa: S311 - no secret


class Backoff:
    """The waits between attempts at one thing: each twice the one before, up to a bound, with jitter.

    Works for any number of attempts: a power of two would overflow during an outage of an hour.
    """

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._first_s = min(first_s, longest_s)
        self._longest_s = longest_s
        self._wait_s = self._first_s

    def next_s(self) -> float:
        """Record a failure; return the seconds to wait now."""
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, self._longest_s)
        return jittered(wait_s)

    def reset(self) -> None:
        """Record a success: the next wait is the shortest again."""
        self._wait_s = self._first_s
