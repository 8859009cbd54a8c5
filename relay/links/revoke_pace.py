"""How fast links are judged and ended after a change of keys: within a second, and so that no other client notices.

Owns the pace, and how long one turn of the event loop may take for it. Does not know links.
"""

import asyncio
from time import perf_counter
from typing import Final

_SPREAD_S: Final = 0.6
"""Over how long many links are spread. With the time that a change takes to come here, it is less than a second."""
_LEAST_RATE: Final = 5000.0
"""Links per second when they are few."""
_AT_ONCE: Final = 8
"""Links that may be ahead of the pace: less than half a millisecond."""
_AHEAD_S: Final = 0.001
"""How long a pace that is ahead waits."""
_LEAST_SLICE_S: Final = 0.0005
_MOST_SLICE_S: Final = 0.02
"""How long one turn may take when the pace is behind: as long as everything else took in the last turn, within these
bounds. So a round waits at most twice as long as without it, and a busy relay gives it half of its time."""


class RevokePace:
    """Spreads `links` over time, from the first `turn` on. Times are seconds of a clock that only goes forward."""

    def __init__(self, links: int, *, now: float) -> None:
        self._rate = max(_LEAST_RATE, links / _SPREAD_S)
        self._started = now
        self._until = now + _LEAST_SLICE_S
        self._done = 0

    def pause_s(self, now: float) -> float | None:
        """Return how long to pause before the next link, at least until the next turn of the loop; None: no pause."""
        if self._done >= (now - self._started) * self._rate + _AT_ONCE:
            return _AHEAD_S
        return 0.0 if now > self._until else None

    def resume(self, paused: float, now: float) -> None:
        """Take the time of a pause: from `paused` to `now`."""
        self._until = now + min(max(now - paused, _LEAST_SLICE_S), _MOST_SLICE_S)

    def count(self) -> None:
        """Count one link."""
        self._done += 1

    async def wait(self) -> None:
        """Wait until the next link is due, and this turn has time for it; count it."""
        now = perf_counter()
        if (pause_s := self.pause_s(now)) is not None:
            await asyncio.sleep(pause_s)
            self.resume(now, perf_counter())
        self.count()
