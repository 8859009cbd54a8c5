"""Report lost connections to the user: each failure once, then reminders at growing intervals. Pure."""

import time
from collections.abc import Callable
from typing import Final

_FIRST_REMINDER_S: Final = 60.0
"""Each further reminder comes after twice the time, so that an outage of hours prints a few lines."""


class Outage:
    """The time from the loss of a connection to the next connection."""

    def __init__(self, notify: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Take `notify`, which is called with sentences for the user, and `clock`, in seconds."""
        self._notify = notify
        self._clock = clock
        self._reported: set[str] = set()
        self._began_s = 0.0
        self._remind_s = _FIRST_REMINDER_S

    def report(self, sentence: str) -> None:
        """Record a failed attempt, and notify the user if `sentence` is new or a reminder is due."""
        now_s = self._clock()
        if not self._reported:
            self._began_s, self._remind_s = now_s, _FIRST_REMINDER_S
        lasts_s = now_s - self._began_s
        if sentence not in self._reported:
            self._reported.add(sentence)
            self._notify(sentence)
        elif lasts_s >= self._remind_s:
            self._notify(f"no connection for {_duration(lasts_s)}; still trying")
        while self._remind_s <= lasts_s:
            self._remind_s *= 2

    def end(self) -> None:
        """Record a successful connection, and notify the user if an outage was reported."""
        if self._reported:
            self._notify(f"connected, after {_duration(self._clock() - self._began_s)}")
            self._reported.clear()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
