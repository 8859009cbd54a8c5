"""How rounds of a game stay in order when a publish fails, and a later one that is under way would not.

Pure: no I/O, no clock. Owns the two ways. `Chain`, for a log of one replica: each round on the condition that the one
before it is the newest, at full speed. `Lanes`, for a log of several: one round per game at a time. nats-server stops a
replicated stream for good when the condition of `Chain` fails there. Why: docs/adr/0003-own-publish-pipeline.md
"""

from collections import deque
from typing import Final, Generic, TypeVar

E = TypeVar("E")


class Chain:
    """Whether each round is published on the condition that the one before it is the newest of the log.

    The condition costs a stop whenever anything else became the newest: a duplicate that stored nothing, another
    publisher. So it is given up for a while each time that happens, longer and longer, and taken up again.
    """

    def __init__(self) -> None:
        self._off_until = 0.0
        self._pause_s = _SHORTEST_PAUSE_S

    def holds(self, now: float) -> bool:
        """Whether to publish on condition at `now`."""
        return now >= self._off_until

    def broken(self, now: float) -> None:
        """Take note that something else than the round before was the newest of the log."""
        if now > self._off_until + _LONGEST_PAUSE_S:
            self._pause_s = _SHORTEST_PAUSE_S
        self._off_until = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)


_SHORTEST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0


class Lanes(Generic[E]):
    """One lane per subject: the first in it is under way, the others wait behind it until it is settled."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[tuple[int, E]]] = {}
        self._ready: deque[tuple[bytes, int, E]] = deque()
        self._under_way: dict[bytes, int | None] = {}  # None: the next of that lane is ready

    @property
    def ready(self) -> bool:
        """Whether some that waited may go now."""
        return bool(self._ready)

    def enter(self, subject: bytes, number: int, entry: E) -> bool:
        """Put an entry at the end of its lane; whether it goes at once."""
        if subject in self._under_way:
            self._waiting.setdefault(subject, deque()).append((number, entry))
            return False
        self._under_way[subject] = number
        return True

    def take(self) -> tuple[int, E]:
        """Return one of those that are `ready`, with its number; it is under way now."""
        subject, number, entry = self._ready.popleft()
        self._under_way[subject] = number
        return number, entry

    def holds(self, subject: bytes, number: int) -> bool:
        """Whether this is the one under way in its lane."""
        return self._under_way.get(subject) == number

    def leave(self, subject: bytes, number: int) -> bool:
        """Let the next go when `number` is the one under way in its lane, else return False."""
        if not self.holds(subject, number):
            return False
        waiting = self._waiting.get(subject)
        if waiting:
            self._ready.append((subject, *waiting.popleft()))
            self._under_way[subject] = None
        else:
            self._waiting.pop(subject, None)
            del self._under_way[subject]
        return True

    def clear(self) -> None:
        """Forget all."""
        self._waiting.clear()
        self._ready.clear()
        self._under_way.clear()
