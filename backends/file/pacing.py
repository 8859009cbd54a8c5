"""When each round of a recording is due. Pure but for `SystemClock`, which alone waits and asks the time.

Every round is due at a fixed distance from the start and not from the one before it: what is late delays nothing after
it, and a replay of days does not drift.
"""

import asyncio
import math
import time
from typing import Final, Protocol

_JUMP_MS: Final = 60_000
"""Rounds of several games come a little out of order; a step back by more is another recording that begins."""


_LONGEST_SLEEP_S: Final = 3600.0
"""Event loops cannot count as many milliseconds as a nonsensical time in a recording can ask for."""


class Clock(Protocol):
    """Time as replay sees it."""

    def now_s(self) -> float:
        """Seconds since any moment; only grows."""
        ...

    def wall_ms(self) -> int:
        """Unix milliseconds."""
        ...

    async def wait_until(self, moment_s: float) -> None:
        """Return once `now_s` has reached `moment_s`."""
        ...


class SystemClock:
    """The machine's."""

    def now_s(self) -> float:
        return time.monotonic()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    async def wait_until(self, moment_s: float) -> None:
        while (left_s := moment_s - time.monotonic()) > 0:  # noqa: ASYNC110 - a timer may fire early
            await asyncio.sleep(min(left_s, _LONGEST_SLEEP_S))


class RecordingPace:
    """Turns the times of rounds, given in the order of the recording, into seconds since the start of the replay."""

    def __init__(self, speed: float, max_gap_s: float = math.inf) -> None:
        self._ms_to_s = 1 / (1000 * speed)
        self._max_gap_s = max_gap_s
        self._newest_ms: int | None = None  # the latest time seen of the recording under way
        self._due_s = 0.0  # when that was or is due

    @property
    def reached_s(self) -> float:
        """When the last round that was asked about is due."""
        return self._due_s

    def due_s(self, time_ms: int) -> float:
        """Say when a round of the time `time_ms` (Unix milliseconds) is due: the first at 0, none before the last."""
        if self._newest_ms is None or time_ms < self._newest_ms - _JUMP_MS:
            self._newest_ms = time_ms  # what follows is due in relation to this one
        elif time_ms > self._newest_ms:
            self._due_s += min((time_ms - self._newest_ms) * self._ms_to_s, self._max_gap_s)
            self._newest_ms = time_ms
        return self._due_s
