"""When rounds are read as they come, and when only those that somebody watches wake the process. Pure.

A wake-up of the process for one round costs several times what its reading costs. While rounds of games that nobody
watches cause most of them, it is cheaper to let rounds wait, and to be woken by a second subscription to watched games.
Measured in docs/adr/0046-wake-for-what-is-watched.md
"""

from typing import Final

_WINDOW_S: Final = 1.0
_WAITING_WINDOW_S: Final = 5.0
"""The period while rounds wait. Longer, since that saves much when it is right, and costs little when it is not."""
_LEAST: Final = 40
"""Reads in a second without a round that is watched. Fewer cost less than a connection, and reading every 0.1 s."""
_IDLE_PER_BUSY: Final = 2
"""How many of them for each read with one, at least: a round that wakes by the second subscription costs 1.5 reads."""
_ENDS_BELOW: Final = 20
"""Rounds of all games in a second. Half of what begins it, so that it does not change often."""
_ROUNDS_PER_WAKEUP: Final = 2
"""And rounds for each wake-up."""


class ReadingRule:
    """Counts what would be saved, in periods of a second."""

    def __init__(self) -> None:
        self._since = 0.0
        self._idle = self._busy = 0
        self._rounds = self._wakeups = 0

    def is_worth_waiting(self, now: float, *, is_watched: bool) -> bool:
        """Count a read of rounds as they came, some of them watched or none; return whether they should wait."""
        if now - self._since >= _WINDOW_S:
            self.begin(now)
        if is_watched:
            self._busy += 1
        else:
            self._idle += 1
        return self._idle >= max(_LEAST, _IDLE_PER_BUSY * self._busy)

    def begin(self, now: float) -> None:
        """Begin a period: what was counted before does not matter."""
        self._since, self._idle, self._busy, self._rounds, self._wakeups = now, 0, 0, 0, 0

    def count(self, *, rounds: int = 0, wakeups: int = 0) -> None:
        """Count rounds of all games that have waited, or wake-ups."""
        self._rounds += rounds
        self._wakeups += wakeups

    def is_still_worth_it(self, now: float) -> bool:
        """Return whether rounds should wait for longer; True until the end of a period."""
        passed_s = now - self._since
        if passed_s < _WAITING_WINDOW_S:
            return True
        is_worth_it = self._rounds >= max(_ENDS_BELOW * passed_s, _ROUNDS_PER_WAKEUP * self._wakeups)
        self.begin(now)
        return is_worth_it
