"""Which rounds are in flight to the log, and up to which offset the source may be sent a confirmation.

Pure: no I/O, no clock. Owns two guarantees: an offset is returned only when everything before it is settled, and what
has to be sent again is sent in the order of the source.
"""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from backends.publish.corrections.revision_numbers import NumberedChange
from backends.publish.window.order import Lanes

P = TypeVar("P")


@dataclass(slots=True)
class Stats:
    """What a publisher has done since it was made. All but `in_flight` only grow."""

    read: int = 0
    """Items that the backend yielded, including rejected ones."""
    acked: int = 0
    """Rounds that the log stored, including those whose ack was lost and that were then found in it."""
    duplicates: int = 0
    """Rounds that the log already had; nothing was stored for them."""
    rejected: int = 0
    """Items that cannot become a round in the log."""
    resent: int = 0
    """Publishes after the first of a round."""
    reconnects: int = 0
    """Connections tried after the first."""
    in_flight: int = 0
    """Rounds read and not yet settled."""
    corrections: int = 0
    """Later entries of rounds that were read and that the log did not have; they count in `acked` too."""
    corrections_skipped: int = 0
    """Those that were read and not published: the log has them, or they change nothing."""
    handed_over: int = 0
    """How often this process let another one read, because it could not store rounds."""


class Entry(Generic[P]):
    """One round in flight or queued, in the order of the source."""

    __slots__ = (
        "attempts",
        "checked_at",
        "correction",
        "data",
        "floor",
        "lane",
        "missing",
        "msg_id",
        "offset",
        "offset_header",
        "settled",
        "stored",
        "subject",
    )

    def __init__(
        self,
        offset: P,
        subject: bytes,
        msg_id: bytes,
        data: bytes,
        offset_header: bytes = b"",
        floor: int = 0,
        checked_at: float = math.inf,
        *,
        lane: bytes | None = None,
        correction: NumberedChange | None = None,
    ) -> None:
        self.offset = offset
        self.subject = subject
        self.lane = subject if lane is None else lane
        """The subject of the game's rounds: in a replicated log, one entry of a lane is in flight at a time."""
        self.msg_id = msg_id
        self.missing = 0
        """How often the server took this for a duplicate while the log did not hold it."""
        self.correction = correction
        """For a correction: how it was numbered."""
        self.data = data
        self.offset_header = offset_header
        """The header line with the offset, including its line end; empty: none."""
        self.attempts = 0
        self.settled = False
        self.stored = False
        """Whether it is in the log exactly as here, with this offset."""
        self.floor = floor
        """A sequence of the log: this is stored after it or not at all."""
        self.checked_at = checked_at
        """When this was read, or was last compared with the log, in seconds of `backends.publish.clock.boot_s`."""

    @property
    def size(self) -> int:
        """Approximate bytes in memory."""
        return len(self.data) + _OVERHEAD


_OVERHEAD: Final = 256


class Window(Generic[P]):
    """Entries from the oldest that is not settled on: first those sent, then the queue of those to send.

    Entries are numbered from 0 in the order in which they were added, over the life of the window; an ack has the
    number. An entry is settled when it need not be sent: stored, known to be stored, or rejected.
    """

    lanes: Lanes["Entry[P]"] | None = None
    """When set, at most one entry per lane is handed out and unsettled. Set it only when none is handed out."""

    def __init__(self, *, max_count: int, max_bytes: int) -> None:
        self._max_count = max_count
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sent: deque[Entry[P]] = deque()  # handed out, settled, or waiting in a lane; oldest first
        self._queue: deque[Entry[P]] = deque()  # to be handed out, all newer than those in _sent
        self._base = 0  # the number of _sent[0]
        self._failed: set[int] = set()
        self._unanswered = 0
        self._settled_up_to: list[P] = []  # at most one
        self.stored: P | None = None
        """The newest offset that is in the log with its round, and before which everything is settled; None: none."""

    def __len__(self) -> int:
        return len(self._sent) + len(self._queue)

    @property
    def has_room(self) -> bool:
        """Whether one more entry may be added. An empty window has room for an entry of any size."""
        return len(self) < self._max_count and (self._bytes < self._max_bytes or not len(self))

    @property
    def unanswered(self) -> int:
        """How many entries have been handed out and are neither settled nor failed."""
        return self._unanswered

    @property
    def oldest(self) -> int:
        """The number of the oldest entry that is not settled, or of the next one that is added."""
        return self._base

    @property
    def queued(self) -> bool:
        """Whether `take` has something to hand out."""
        return bool(self._queue) or (self.lanes is not None and self.lanes.ready)

    @property
    def is_idle(self) -> bool:
        """Whether nothing is handed out that is not settled, and nothing waits in a lane; with `first_failed` None."""
        return not self._unanswered and not (self.lanes is not None and self.lanes.ready)

    @property
    def handed_out(self) -> int:
        """The number of the entry that `take` hands out next, in the order of the source."""
        return self._base + len(self._sent)

    @property
    def first_failed(self) -> int | None:
        """The number of the oldest entry with an error ack since the last `rewind`; None: there is none."""
        return min(self._failed, default=None)

    def add(self, entry: Entry[P]) -> None:
        """Append an entry. The caller checks `has_room`."""
        self._bytes += entry.size
        self._queue.append(entry)
        if entry.settled and not self._sent:
            self._advance()

    def take(self, max_bytes: int, *, upto: int | None = None) -> list[tuple[int, Entry[P]]]:
        """Hand out the next entries to send, with their numbers: about `max_bytes`; empty when nothing is queued.

        `upto`: only those with a smaller number.
        """
        taken: list[tuple[int, Entry[P]]] = []
        number = self._base + len(self._sent)
        queue, sent, lanes = self._queue, self._sent, self.lanes
        while max_bytes > 0 and lanes is not None and lanes.ready:
            taken.append(lanes.take())
            max_bytes -= taken[-1][1].size
        while queue and max_bytes > 0 and (upto is None or number < upto):
            entry = queue.popleft()
            sent.append(entry)
            if not entry.settled and (lanes is None or lanes.enter(entry.lane, number, entry)):
                taken.append((number, entry))
                max_bytes -= entry.size
            number += 1
        for _, entry in taken:
            entry.attempts += 1
        self._unanswered += len(taken)
        self._advance()
        return taken

    def settle(self, numbers: Iterable[int], *, stored: bool = False) -> int:
        """Mark entries settled; return how many were not before. Ignores unknown numbers.

        `stored`: the log has them exactly as sent, which is not certain for a duplicate.
        """
        settled = 0
        sent, lanes = self._sent, self.lanes
        for number in numbers:
            index = number - self._base
            if lanes is not None and not (0 <= index < len(sent) and lanes.leave(sent[index].lane, number)):
                continue
            if index == 0 and sent and not sent[0].settled and number not in self._failed:
                # The usual case: acks come in the order of the publishes.
                sent[0].stored = stored
                self._pop()
                self._unanswered -= 1
                settled += 1
            elif 0 <= index < len(sent) and not sent[index].settled:
                sent[index].settled = True
                sent[index].stored = stored
                if number in self._failed:
                    self._failed.remove(number)
                else:
                    self._unanswered -= 1
                settled += 1
        self._advance()
        return settled

    def fail(self, number: int) -> bool:
        """Record an error ack; return whether it is the first. The entry is handed out again after a `rewind`."""
        index = number - self._base
        if not 0 <= index < len(self._sent) or self._sent[index].settled or number in self._failed:
            return False
        if self.lanes is not None and not self.lanes.holds(self._sent[index].lane, number):
            return False
        self._failed.add(number)
        self._unanswered -= 1
        return True

    def rewind(self) -> None:
        """Put everything that was handed out and is not settled back at the front of the queue, in order.

        Call it only when no answer to what was handed out can arrive any more, or when answers are ignored (another
        connection): an entry keeps its number.
        """
        self._queue.extendleft(reversed(self._sent))
        self._sent.clear()
        self._failed.clear()
        self._unanswered = 0
        if self.lanes is not None:
            self.lanes.clear()
        self._advance()

    def unsettled(self) -> Iterator[Entry[P]]:
        """Iterate over unsettled entries, oldest first. A caller that marks one settled calls `refresh` afterwards."""
        for entries in (self._sent, self._queue):
            yield from (entry for entry in entries if not entry.settled)

    def entry(self, number: int) -> Entry[P]:
        """Return the entry that was handed out under this number and is still here."""
        return self._sent[number - self._base]

    def in_flight(self, number: int) -> Entry[P] | None:
        """Return the entry with this number if it is handed out, and in flight in its lane if there are lanes."""
        index = number - self._base
        if not 0 <= index < len(self._sent):
            return None
        entry = self._sent[index]
        return entry if self.lanes is None or self.lanes.holds(entry.lane, number) else None

    def refresh(self) -> None:
        """Account for entries that a caller has marked settled; only between `rewind` and `take`."""
        self._advance()

    def offset(self) -> P | None:
        """Return the newest offset before which everything is settled; None: unchanged since the last call."""
        return self._settled_up_to.pop() if self._settled_up_to else None

    def _advance(self) -> None:
        while self._sent and self._sent[0].settled:
            self._pop()
        if not self._sent:
            while self._queue and self._queue[0].settled:
                self._sent.append(self._queue.popleft())
                self._pop()

    def _pop(self) -> None:
        entry = self._sent.popleft()
        self._base += 1
        self._bytes -= entry.size
        self._settled_up_to[:] = [entry.offset]
        if entry.stored:
            self.stored = entry.offset


class Lag(Generic[P]):
    """Delay offsets, because the server acks before its fsync.

    Keeps at most about 256 offsets: of those within 1/256 of the lag, only the newest.
    """

    def __init__(self, lag_s: float) -> None:
        self._lag_s = lag_s
        self._held: deque[tuple[float, P]] = deque()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, offset: P, now: float) -> None:
        """Add an offset that was settled at `now`, in seconds of a monotonic clock."""
        due = now + self._lag_s
        if len(self._held) > 1 and due - self._held[-2][0] < self._lag_s / 256:
            self._held.pop()
        self._held.append((due, offset))

    def release(self, now: float) -> P | None:
        """Return the newest offset that has been held long enough; None: there is none."""
        offset = None
        while self._held and self._held[0][0] <= now:
            offset = self._held.popleft()[1]
        return offset

    @property
    def next_due(self) -> float | None:
        """When `release` has something next; None: nothing is held."""
        return self._held[0][0] if self._held else None
