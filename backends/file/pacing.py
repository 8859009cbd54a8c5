"""Compute when each round of a recording is due. Pure, except for `SystemClock`, which reads the time and waits.

Every round is due at a fixed time after the start, not after the round before it. So a late round does not delay later
rounds, and a replay of days does not drift.
"""

import asyncio
import math
import time
from typing import Final, Protocol

_JUMP_MS: Final = 60_000
"""Rounds of several games may be slightly out of order. A longer step back in time begins another recording."""

_LONGEST_SLEEP_S: Final = 3600.0
"""A nonsensical time in a recording may ask for a longer sleep than event loops support."""


class Clock(Protocol):
    """The time source of a replay."""

    def now_s(self) -> float:
        """Seconds since an arbitrary moment; never decreases."""
        ...

    def wall_ms(self) -> int:
        """Unix milliseconds."""
        ...

    async def wait_until(self, moment_s: float) -> None:
        """Return once `now_s` has reached `moment_s`."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def wait_until(self, moment_s: float) -> None:
        while (left_s := moment_s - time.monotonic()) > 0:  # noqa: ASYNC110 - a timer may fire early
            await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))


class RecordingPace:
    """Maps the times of rounds, given in the order of the recording, to seconds since the start of the replay."""

    def __init__(self, speed: float, max_gap_s: float = math.inf) -> None:
        self._ms_to_s = 1 / (1000 * speed)
        self._max_gap_s = max_gap_s
        self._newest_ms: int | None = None  # the latest time seen in the current recording
        self._due_s = 0.0  # when the round of that time is due

    @property
    def reached_s(self) -> float:
        """When the round last given to `due_s` is due."""
        return self._due_s

    def due_s(self, time_ms: int) -> float:
        """Return when a round of the time `time_ms` (Unix milliseconds) is due: 0 for the first, never decreasing."""
        if self._newest_ms is None or time_ms < self._newest_ms - _JUMP_MS:
            self._newest_ms = time_ms  # later rounds are due relative to this one
        elif time_ms > self._newest_ms:
            self._due_s += min((time_ms - self._newest_ms) * self._ms_to_s, self._max_gap_s)
            self._newest_ms = time_ms
        return self._due_s
