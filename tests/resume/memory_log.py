"""A log in a list, with the methods of `roundlog.reader.LogReader`, for tests of what reads a log."""

from bisect import bisect_left
from dataclasses import dataclass, field
from operator import attrgetter

from roundlog.entry import LogEntry, Page, add_run
from rounds import Cursor


@dataclass
class MemoryLog:
    """Entries in log order, each with the time at which it was stored."""

    entries: list[LogEntry] = field(default_factory=list)
    stored_ms: dict[int, int] = field(default_factory=dict)
    most_at_once: int = 1000
    """The most rounds in a page, whatever the limit, as in a log with large rounds."""
    requests: int = 0
    epoch: str = "k1"
    last_ever: int = 0
    others: list[int] = field(default_factory=list)
    """The sequences of messages that are no rounds."""

    def store(self, entry: LogEntry, *, at_ms: int) -> None:
        self.entries.append(entry)
        self.last_ever = entry.sequence
        self.stored_ms[entry.sequence] = at_ms

    def store_other(self, sequence: int) -> None:
        self.others.append(sequence)
        self.last_ever = sequence

    def purge(self, sequence: int) -> None:
        self.entries = [entry for entry in self.entries if entry.sequence > sequence]
        self.others = [other for other in self.others if other > sequence]

    def truncate(self, end: int) -> None:
        """Lose everything after a sequence."""
        self.entries = [entry for entry in self.entries if entry.sequence <= end]
        self.others = [other for other in self.others if other <= end]
        self.last_ever = end

    async def page(self, start: int, *, limit: int, game: str | None = None) -> Page:
        self.requests += 1
        begin = bisect_left(self.entries, start, key=attrgetter("sequence"))
        found = [entry for entry in self.entries[begin:] if game in (None, entry.game)]
        size = min(limit, self.most_at_once)
        others = [other for other in self.others if other >= start] if game is None else []
        if not others:
            return Page(found[:size], max(0, len(found) - size))
        messages = sorted([*(entry.sequence for entry in found), *others])
        # Like the reader of a real log, on to the first round.
        last = max([*messages[:size][-1:], *(entry.sequence for entry in found[:1])], default=0)
        taken = [entry for entry in found if entry.sequence <= last]
        runs = list[tuple[int, int]]()
        for other in others:
            if other <= last:
                add_run(runs, other, other)
        return Page(taken, len(messages) - len(taken) - sum(end - begin + 1 for begin, end in runs), runs)

    async def page_up_to(self, known: int, start: int, *, limit: int, game: str | None = None) -> Page:
        del known
        return await self.page(start, limit=limit, game=game)

    async def reached(self, sequence: int) -> int | None:
        del sequence
        return None

    async def first(self) -> int | None:
        return min([*(entry.sequence for entry in self.entries[:1]), *self.others[:1]], default=None)

    async def last(self) -> int:
        return self.entries[-1].sequence if self.entries else 0

    async def end(self) -> Cursor:
        return Cursor(self.epoch, self.last_ever)

    async def since(self, since_ms: int) -> int | None:
        return next((entry.sequence for entry in self.entries if self.stored_ms[entry.sequence] >= since_ms), None)

    async def nth_last(self, game: str, count: int, *, before: int) -> int | None:
        mine = [entry.sequence for entry in self.entries if entry.game == game]
        earlier = [sequence for sequence in mine if sequence < before]
        return earlier[-count:][0] if earlier else (mine[0] if mine and count else None)
