"""The clock that notices when a process, or its machine, stood still."""

import time
from typing import Final

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_s() -> float:
    """Return seconds of a clock that never goes back and includes the time for which the machine was suspended.

    `time.monotonic` stops during a suspend on Linux; the clock of the calendar can be set.
    https://man7.org/linux/man-pages/man2/clock_gettime.2.html
    """
    return time.clock_gettime(_CLOCK)
