"""Merge the live subscription and reads of the log into one order without gaps. Pure: does no I/O.

Owns the promise that the hub gets every sequence of the log once and in order, also when the network loses, repeats or
reorders messages. Why the log is followed in one order: docs/adr/0002-republish-for-live.md
"""

from collections.abc import Sequence

from roundlog.entry import LogEntry


class Sequencer:
    """Returns entries in log order; parks early ones until the hole before them has been read from the log."""

    def __init__(self, head: int, *, park_limit: int) -> None:
        """Start after sequence `head`; keep at most `park_limit` early entries (the log has the others)."""
        self.head = head
        self._parked: dict[int, LogEntry] = {}
        self._park_limit = park_limit
        self._early = 0  # the highest sequence seen after a hole

    @property
    def behind(self) -> bool:
        """True while an entry is known to exist that was not returned: read the log from ``head + 1``."""
        return self._early > self.head

    @property
    def known(self) -> int:
        """The highest sequence that the log is known to have reached."""
        return max(self.head, self._early)

    def on_sign(self, sequence: int) -> None:
        """Note that the log has reached `sequence`, from an entry that must not be used: it is read from the log."""
        self._early = max(self._early, sequence)

    def on_live(self, entries: Sequence[LogEntry]) -> Sequence[LogEntry]:
        """Take entries of the live subscription in order of arrival; return those that are next in the log's order."""
        head = self.head + len(entries)
        if not self._parked and [entry.sequence for entry in entries] == list(range(self.head + 1, head + 1)):
            self.head = head  # nearly always: no hole
            return entries
        ready: list[LogEntry] = []
        for entry in entries:
            if entry.sequence <= self.head:
                continue  # repeated, or read from the log before
            is_next = entry.sequence == self.head + 1
            if is_next or len(self._parked) < self._park_limit:
                self._parked[entry.sequence] = entry
            self._early = max(self._early, entry.sequence)
            if is_next:
                ready += self._unpark()
        return ready

    def on_read(self, entries: Sequence[LogEntry], *, covered_to: int) -> Sequence[LogEntry]:
        """Take what the log holds from ``head + 1`` to `covered_to`; the log has removed sequences that are missing."""
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
