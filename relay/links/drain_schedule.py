"""When the links of a drain are ended: evenly over its time, also when the process stood still meanwhile. Pure."""

from typing import Final

_STALL_S: Final = 1.0
"""A schedule that is later than this stood still with its process. Less is made up for without a wait."""


class DrainSchedule:
    """Gives each of `count` links its time, one after another."""

    def __init__(self, count: int, *, started: float, spread_s: float, least_s: float) -> None:
        """Plan a drain.

        Args:
            count: How many links are ended.
            started: Loop time of the first end.
            spread_s: Over how many seconds.
            least_s: Over how many seconds the rest is spread when a stall has taken the time for it.
        """
        self.stalled = False
        """Whether the process stood still since the start."""
        self._remaining = count
        self._due_at = started
        self._end_at = started + spread_s
        self._least_s = least_s
        self._pace_s = spread_s / count if count else 0.0

    def wait_s(self, now: float) -> float:
        """Return how long to wait until the next link is ended; not above 0: it is due."""
        if now - self._due_at > _STALL_S:
            # Without a new plan, all links that were due meanwhile would end together.
            self.stalled = True
            self._pace_s = max(self._end_at - now, self._least_s) / self._remaining
            self._due_at = now
        wait_s = self._due_at - now
        self._due_at += self._pace_s
        self._remaining -= 1
        return wait_s
