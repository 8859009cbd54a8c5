"""For how long a round may be sent after it was read or compared with the log, and whether this process stood still.

Pure: no I/O; the caller gives the times, in seconds of `boot_s`. Owns the rule that no round is sent
later than the log is sure to recognise it, if another process has stored it since.
Why: docs/adr/0021-late-rounds-are-refused.md
"""

import math
from collections.abc import Iterable
from typing import Final

_SHARE: Final = 3
_SHORTEST_S: Final = 1.0


class LeaseOver(Exception):
    """Nothing may be sent before everything was compared with the log. ``str()`` says why."""


class Lease:
    """The lease of one publisher, over any number of connections."""

    def __init__(self) -> None:
        self.length_s = math.inf
        """For how long after a round was read or compared it may be sent."""
        self.stood_still_s = 0.0
        """For how long this process stood still, if that is longer than the lease and not yet dealt with; else 0."""
        self._alive_at = math.inf
        self._noted_at = -math.inf  # when it was noted that this process stood still

    def begin(self, duplicate_window_s: float, compared_at: float = math.inf) -> None:
        """Begin on a connection to a log that recognises ids for so long; the comparison on it began at `compared_at`.

        The lease is a third of that: this process may stand still for as long before it notices, and what it sends may
        be under way for as long. It is at least a second; a log that recognises ids for less than three is for tests.
        """
        self.length_s = max(duplicate_window_s / _SHARE, _SHORTEST_S)
        if self._noted_at <= compared_at:
            self.stood_still_s = 0.0

    def show_alive(self, now: float) -> bool:
        """Record that the process runs, as it does several times a lease; return whether it stood still before."""
        self._note_stall(now)
        self._alive_at = now
        return self.stood_still_s > 0

    def check(self, now: float, since: Iterable[float] = ()) -> None:
        """Raise `LeaseOver` if rounds may not be sent that were read or compared at the times `since`."""
        self._note_stall(now)
        if self.stood_still_s:
            raise LeaseOver(f"this process stood still for {self.stood_still_s:.1f} s")
        age_s = now - min(since, default=now)
        if age_s > self.length_s:
            raise LeaseOver(f"rounds were read {age_s:.1f} s ago, and may have been stored since")

    def _note_stall(self, now: float) -> None:
        if now - self._alive_at > self.length_s:
            self.stood_still_s = now - self._alive_at
            self._alive_at = self._noted_at = now
