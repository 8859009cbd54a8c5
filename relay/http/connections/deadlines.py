"""One time limit of many connections, with one timer for all of them.

Owns when it is over: those that began first are due first, since all have the same time. Does not know what is awaited.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Generic, TypeVar

_EARLY_S: Final = 0.001
"""What is due so soon is acted on now: timers have a resolution of 1 ms."""

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Calls a function with everything that was begun and not ended in time. Both cost a few hundred nanoseconds."""

    def __init__(self, after_s: float, act: Callable[[T], None]) -> None:
        """Wait for nothing yet.

        Args:
            after_s: The time that each has, in seconds.
            act: Called once with each that is due; it is no longer waited for then.
        """
        self._after_s = after_s
        self._act = act
        self._due: dict[T, float] = {}  # loop times, in their order
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # to find it is a system call in Python 3.11

    def begin(self, waiting: T) -> None:
        """Give it all of its time from now on."""
        self._due.pop(waiting, None)
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        self._due[waiting] = loop.time() + self._after_s
        if self._timer is None:
            self._timer = loop.call_later(self._after_s, self._look)

    def end(self, waiting: T) -> None:
        """Wait for it no more; do nothing when it is not waited for."""
        self._due.pop(waiting, None)

    def __contains__(self, waiting: T) -> bool:
        return waiting in self._due

    def __len__(self) -> int:
        return len(self._due)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = loop.time() + _EARLY_S
        due = []
        for waiting, at in self._due.items():
            if at > now:
                self._timer = loop.call_later(at - loop.time(), self._look)
                break
            due.append(waiting)
        for waiting in due:
            if self._due.pop(waiting, None) is not None:  # else the one before has ended it
                self._act(waiting)
