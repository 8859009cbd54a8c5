"""What a user is told while there is no connection: each thing once, then now and then how long it has been. Pure."""

import time
from collections.abc import Callable
from typing import Final

_FIRST_REMINDER_S: Final = 60.0
"""The next ones come after twice as long each time: who left a terminal alone finds a few lines, not thousands."""


class Outage:
    """The time from one good connection to the next."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`say` is told sentences; `clock` is in seconds."""
        self._say = say
        self._clock = clock
        self._told: set[str] = set()
        self._began_s = 0.0
        self._remind_s = _FIRST_REMINDER_S

    def report(self, sentence: str) -> None:
        """An attempt has failed, as `sentence` says."""
        now_s = self._clock()
        if not self._told:
            self._began_s, self._remind_s = now_s, _FIRST_REMINDER_S
        lasts_s = now_s - self._began_s
        if sentence not in self._told:
            self._told.add(sentence)
            self._say(sentence)
        elif lasts_s >= self._remind_s:
            self._say(f"no connection for {_duration(lasts_s)}; still trying")
        while self._remind_s <= lasts_s:
            self._remind_s *= 2

    def end(self) -> None:
        """There is a connection."""
        if self._told:
            self._say(f"connected, after {_duration(self._clock() - self._began_s)}")
            self._told.clear()


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
