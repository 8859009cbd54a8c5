"""Put what the live subscription and the log say into one gapless order. Pure: decides, does no I/O.

Owns the promise that the hub sees every sequence of the log once and in order, whatever the network lost, repeated or
swapped. Why the whole log is followed in one order: docs/adr/0002-republish-for-live.md
"""

from collections.abc import Sequence

from roundlog.entry import LogEntry


class Sequencer:
    """Hands on entries in log order; parks what came early until the hole before it has been read from the log."""

    def __init__(self, head: int, *, park_limit: int) -> None:
        """Start after sequence `head`; keep at most `park_limit` early entries (the log has the others)."""
        self.head = head
        self._parked: dict[int, LogEntry] = {}
        self._park_limit = park_limit
        self._early = 0  # the highest sequence seen beyond a hole

    @property
    def behind(self) -> bool:
        """True while an entry is known to exist that was not handed on: read the log from ``head + 1``."""
        return self._early > self.head

    @property
    def known(self) -> int:
        """The highest sequence that the log is known to have reached."""
        return max(self.head, self._early)

    def on_sign(self, sequence: int) -> None:
        """Learn that the log has reached `sequence`, from an entry that must not be handed on: read it there."""
        self._early = max(self._early, sequence)

    def on_live(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Take entries from the live subscription, as they came; return what can be handed on now."""
        head = self.head + len(entries)
        if not self._parked and [entry.sequence for entry in entries] == list(range(self.head + 1, head + 1)):
            self.head = head  # nearly always: the next ones, without a hole
            return entries
        ready: list[LogEntry] = []
        for entry in entries:
            if entry.sequence <= self.head:
                continue  # a repeat: the log's answer was faster
            is_next = entry.sequence == self.head + 1
            if is_next or len(self._parked) < self._park_limit:
                self._parked[entry.sequence] = entry
            self._early = max(self._early, entry.sequence)
            if is_next:
                ready += self._unpark()
        return ready

    def on_read(self, entries: Sequence[LogEntry], *, covered_to: int) -> Sequence[LogEntry]:
        """Take what the log holds from ``head + 1`` to `covered_to`; sequences not among it are gone for good."""
        ready = [entry for entry in entries if entry.sequence > self.head]
        self.head = max(self.head, covered_to, ready[-1].sequence if ready else 0)
        for sequence in [sequence for sequence in self._parked if sequence <= self.head]:
            del self._parked[sequence]
        return [*ready, *self._unpark()]

    def _unpark(self) -> list[LogEntry]:
        ready = []
        while (entry := self._parked.pop(self.head + 1, None)) is not None:
            self.head = entry.sequence
            ready.append(entry)
        return ready
