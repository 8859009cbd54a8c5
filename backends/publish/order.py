"""How rounds of a game keep their order when a publish fails and a later one that is in flight succeeds.

Pure: no I/O, no clock. Owns `Lanes`, one round per game at a time, and `Suspension`, when to do without a faster way.
In a log of one replica the faster way is a condition: each round is stored only after the one before it. In a log of
several replicas, where nats-server stops the stream permanently when such a condition fails, it is one batch at a time
(`roundlog.publish.fast_batch`). Why: docs/adr/0003-own-publish-pipeline.md and 0025-fast-ingest-batches.md
"""

from collections import deque
from typing import Final, Generic, TypeVar

E = TypeVar("E")


class Suspension:
    """Whether a faster way of publishing is in use, which other publishers and duplicates can disturb.

    Each disturbance costs a stop of the pipeline, and suspends the way for a while, each time for longer.
    """

    def __init__(self) -> None:
        self._off_until = 0.0
        self._pause_s = _SHORTEST_PAUSE_S

    def is_over(self, now: float) -> bool:
        """Whether to publish in the faster way at `now`."""
        return now >= self._off_until

    def disturbed(self, now: float) -> None:
        """Record a disturbance."""
        if now > self._off_until + _LONGEST_PAUSE_S:
            self._pause_s = _SHORTEST_PAUSE_S
        self._off_until = now + self._pause_s
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)


_SHORTEST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 60.0


class Lanes(Generic[E]):
    """One lane per subject: its first entry is in flight, the others wait until that is settled."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[tuple[int, E]]] = {}
        self._ready: deque[tuple[bytes, int, E]] = deque()
        self._in_flight: dict[bytes, int | None] = {}  # None: the next of that lane is ready

    @property
    def ready(self) -> bool:
        """Whether `take` has an entry."""
        return bool(self._ready)

    def enter(self, subject: bytes, number: int, entry: E) -> bool:
        """Append an entry to its lane; return whether it may be sent at once."""
        if subject in self._in_flight:
            self._waiting.setdefault(subject, deque()).append((number, entry))
            return False
        self._in_flight[subject] = number
        return True

    def take(self) -> tuple[int, E]:
        """Return an entry that waited and may be sent now, with its number."""
        subject, number, entry = self._ready.popleft()
        self._in_flight[subject] = number
        return number, entry

    def holds(self, subject: bytes, number: int) -> bool:
        """Whether this entry is the one in flight in its lane."""
        return self._in_flight.get(subject) == number

    def leave(self, subject: bytes, number: int) -> bool:
        """Make the next of the lane ready if `number` is the one in flight; otherwise return False."""
        if not self.holds(subject, number):
            return False
        waiting = self._waiting.get(subject)
        if waiting:
            self._ready.append((subject, *waiting.popleft()))
            self._in_flight[subject] = None
        else:
            self._waiting.pop(subject, None)
            del self._in_flight[subject]
        return True

    def clear(self) -> None:
        """Remove all entries."""
        self._waiting.clear()
        self._ready.clear()
        self._in_flight.clear()
