"""How rounds of a game keep their order when a publish fails and a later one that is in flight succeeds.

Pure: no I/O, no clock. Owns `Lanes`, one round per game at a time; `Suspension`, when to do without a faster way; and
`Fence`, the condition that no other process has stored rounds of a game since. The faster way is, in a log of one
replica, a condition: each round is stored only after the one before it. In a log of several replicas, where nats-server
stops the stream permanently when that condition fails, it is one batch at a time (`roundlog.publish.fast_batch`).
Why: docs/adr/0003-own-publish-pipeline.md, 0021-late-rounds-are-refused.md and 0023-fast-ingest-batches.md
"""

from collections import deque
from collections.abc import Mapping
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
    """One lane per game: its first entry is in flight, the others wait until that is settled."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, deque[tuple[int, E]]] = {}
        self._ready: deque[tuple[bytes, int, E]] = deque()
        self._in_flight: dict[bytes, int | None] = {}  # None: the next of that lane is ready
        self._sent: dict[int, tuple[float, int]] = {}  # when and how often; of those in flight, in the order of when

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
        self._sent.pop(number, None)
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
        self._sent.clear()

    # --- what is unanswered -------------------------------------------------------------------------------------

    def sent(self, number: int, now: float) -> None:
        """Record that the entry in flight with this number was sent, perhaps again."""
        _, times = self._sent.pop(number, (now, 0))
        self._sent[number] = (now, times + 1)

    def late(self, sent_before: float) -> list[int]:
        """Return the numbers of those in flight that were last sent at `sent_before` or earlier."""
        found = []
        for number, (sent_at, _) in self._sent.items():
            if sent_at > sent_before:
                break
            found.append(number)
        return found

    def times_sent(self, number: int) -> int:
        """Return how often the entry in flight with this number was sent."""
        return self._sent[number][1]

    @property
    def longest_unanswered(self) -> float | None:
        """When the entry was sent that has waited longest for its answer; None: none is in flight."""
        return next((sent_at for sent_at, _ in self._sent.values()), None)


class Fence:
    """The condition on which a replicated log takes a round: which message must be the newest of its subject."""

    def __init__(self, newest: Mapping[bytes, int] | None) -> None:
        """Begin; `newest` has the sequence of each subject's newest round, None: they are not known."""
        self._newest = dict(newest or {})
        self._knows_all = newest is not None

    def stored(self, subject: bytes, sequence: int) -> None:
        """Record the sequence of the newest round of a subject, as its ack says."""
        self._newest[subject] = sequence

    def after(self, subject: bytes) -> int | None:
        """Return the sequence that the newest round of a subject must have, 0: it must have none; None: not known."""
        return self._newest.get(subject, 0 if self._knows_all else None)
