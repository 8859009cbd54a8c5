"""A page as a stretch of the log: what it covers, at which sequence it ends, and what is gone of it. Pure.

Usual pages are aligned: a page that is not the last ends at a multiple of `CELL`, and a page of all games at a multiple
of its limit, so that readers which began at different positions cut the log at the same sequences. A page begins where
its reader is, so that no unwanted round is read. Short pages are not aligned: those of a slow client, of a short
answer, and those that few large rounds fill.
Why: docs/adr/0014-one-walk-through-history.md
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from heapq import merge
from itertools import pairwise
from operator import attrgetter, itemgetter
from typing import Final

from relay.live.bounds import Gap, GapReason
from relay.live.encode import Form
from relay.live.item import Item
from relay.live.stored import Written, written
from roundlog.entry import LogEntry, Page
from rounds import Cursor

CELL: Final = 50
"""Pages end at multiples of this sequence. It divides the usual limits, and costs one game 25 rounds a page or less."""
_MOST_HOLES: Final = 8
"""Gaps reported of one page. All rounds of a game may have been deleted, which leaves a hole at every few rounds."""
_SHORT: Final = 9 * CELL
"""Pages up to so many rounds are not aligned: it would drop more than a tenth of their rounds, to be read again."""


@dataclass(slots=True)
class Stretch:
    """Every round of the games asked for, from where the page was to begin up to `covered_to`. Readers share it."""

    epoch: str
    entries: list[LogEntry]
    covered_to: int
    gap: Gap | None  # what is gone of it
    holes: tuple[Gap, ...] = ()  # what is gone between its entries
    is_last: bool = False  # the log had nothing more of these games
    _sources: tuple["Stretch", ...] = ()  # those whose entries these are, in order; it has none of its own
    _items: list[Item] | None = field(default=None, init=False, repr=False, compare=False)
    _names: frozenset[str] | None = field(default=None, init=False, repr=False, compare=False)
    _written: dict[tuple[Form, int, int], Written] = field(default_factory=dict, init=False, repr=False, compare=False)

    def parts(self) -> Iterator[tuple[list[Item], int, Gap | None]]:
        """Yield the rounds up to each hole, up to which sequence they are whole, and the hole; then the rest."""
        items = self.items()
        return ((items[span.start : span.stop], covered_to, hole) for span, covered_to, hole in self.spans())

    def spans(self) -> Iterator[tuple[range, int, Gap | None]]:
        """Yield as `parts`, with the indexes of entries in place of rounds."""
        at, entries = 0, self.entries
        for hole in self.holes:
            end = bisect_right(entries, hole.begin.sequence, key=attrgetter("sequence"))
            yield range(at, end), hole.begin.sequence, hole
            at = end
        yield range(at, len(entries)), self.covered_to, None

    def written(self, form: Form, at: int, end: int, games: Collection[str]) -> Written:
        """Return the entries from one index up to another, the latter exclusive, that are of `games`, as one write.

        Readers that want all of them get the same bytes.

        Raises:
            InvalidRound: One of them is not valid.
        """
        if self._names is None:
            self._names = frozenset(map(itemgetter(1), self.entries))
        if not self._names.issubset(games):
            return written(form, self.epoch, [entry for entry in self.entries[at:end] if entry.game in games])
        key = (form, at, end)
        found = self._written.get(key)
        if found is None:
            found = self._written[key] = written(form, self.epoch, self.entries[at:end])
        return found

    @property
    def is_merged(self) -> bool:
        """Whether its rounds are those of other stretches, which their readers share."""
        return bool(self._sources)

    def items(self) -> list[Item]:
        """Return an item of each entry: the same ones to every reader, so that a round is encoded once."""
        if self._items is None:
            if self._sources:
                found = merge(*(source.items() for source in self._sources), key=attrgetter("sequence"))
                sequences = {entry.sequence for entry in self.entries}
                self._items = [item for item in found if item.sequence in sequences]
            else:
                self._items = [Item(self.epoch, entry) for entry in self.entries]
        return self._items


def corrected(rounds: Stretch, corrections: Stretch, position: int, *, finds_gaps: bool) -> Stretch:
    """Return a page of one game's rounds that was read after `position`, with the corrections among them.

    `corrections` has those of the game, from that position or an earlier one on. The result ends where the first of
    both does. `finds_gaps`: whether it was looked for what is gone.
    """
    begin, end, gap, later = position, min(rounds.covered_to, corrections.covered_to), rounds.gap, corrections.gap
    if finds_gaps and later is not None and later.end.sequence > (gap.end.sequence if gap else position):
        begin = later.end.sequence  # purged after the rounds were read
        gap = later._replace(begin=Cursor(rounds.epoch, position))
    found = _between(corrections.entries, begin, end)
    if not found and gap is rounds.gap and end == rounds.covered_to:
        return rounds
    return Stretch(
        rounds.epoch,
        list(merge(_between(rounds.entries, begin, end), found, key=attrgetter("sequence"))),
        end,
        gap,
        is_last=rounds.is_last and corrections.is_last,
        _sources=(rounds, corrections),
    )


def _between(entries: list[LogEntry], begin: int, end: int) -> list[LogEntry]:
    """Return the entries after `begin` up to `end`."""
    first = bisect_right(entries, begin, key=attrgetter("sequence"))
    return entries[first : bisect_right(entries, end, key=attrgetter("sequence"))]


def limit_of_all(position: int, limit: int) -> int:
    """Return how many rounds of all games to ask for, one a sequence, so that a page ends at a multiple of `limit`."""
    return limit - position % limit if limit > _SHORT else limit


def has_holes(page: Page, position: int) -> bool:
    """Say whether sequences are missing in a page of all games that was read after `position`."""
    read = len(page.entries) + sum(end - begin + 1 for begin, end in page.others)
    return read > 0 and page.last - position > read


def stretch_of(
    page: Page, *, epoch: str, position: int, head: int, oldest: int | None, first: int | None = None
) -> Stretch:
    """Say what a page that was read after `position` covers, and what is gone before it.

    Args:
        page: What the log answered.
        epoch: That of the log.
        position: The sequence that was reached before.
        head: What the log was known to have reached before it was asked.
        oldest: The log's oldest round, when the page is of one game; None: of all, or gaps are not looked for.
        first: The log's oldest round, when the page is of all games and has holes; None: it has none.
    """
    entries = page.entries
    # Not up to messages after the newest round that is known: clients would get cursors which no relay knows.
    known = max(entries[-1].sequence if entries else position, head)
    if page.remaining:
        last = min(page.last or position, known)
        entries, covered_to = _aligned(entries, position, last, of_all=oldest is None)
    else:  # the log has nothing more of these games up to `head`
        covered_to = known
    # Before the first message, rounds of the game may have been purged; after it, none.
    begins = [entries[0].sequence] if entries else []
    gone_to = min([*begins, *(begin for begin, _ in page.others[:1]), covered_to + 1]) - 1
    if oldest is not None:
        gone_to = min(gone_to, oldest - 1)
    gap = None
    if gone_to > position:
        is_older = first is not None and first <= position  # older rounds exist: these have not expired
        reason = GapReason.DELETED if is_older else GapReason.EXPIRED
        gap = Gap(Cursor(epoch, position), Cursor(epoch, gone_to), reason)
    holes = () if first is None else _holes(entries, page.others, covered_to, epoch)
    return Stretch(epoch, entries, covered_to, gap, holes, is_last=not page.remaining)


def _holes(entries: list[LogEntry], others: Sequence[tuple[int, int]], covered_to: int, epoch: str) -> tuple[Gap, ...]:
    """Return what was deleted between messages, and after the last; as one gap when there are many holes."""
    runs: Iterable[tuple[int, int]] = ((entry.sequence, entry.sequence) for entry in entries)
    if others:
        runs = merge(runs, ((begin, min(end, covered_to)) for begin, end in others if begin <= covered_to))
    holes = [
        Gap(Cursor(epoch, before), Cursor(epoch, after - 1), GapReason.DELETED)
        for (_, before), (after, _) in pairwise([*runs, (covered_to + 1, covered_to + 1)])
        if after - before > 1
    ]
    if len(holes) > _MOST_HOLES:
        return (Gap(holes[0].begin, holes[-1].end, GapReason.DELETED),)
    return tuple(holes)


def _aligned(entries: list[LogEntry], position: int, last: int, *, of_all: bool) -> tuple[list[LogEntry], int]:
    """Cut a page at the last end of a cell in it; return what remains, and up to which sequence it is whole."""
    end = last - last % CELL
    if end == last or end <= position or len(entries) <= _SHORT:
        return entries, last
    kept = bisect_right(entries, end, key=attrgetter("sequence"))
    if not kept:
        return entries, last
    # Of all games, no round is between the kept ones and the next one. A page that ended in a hole, where messages were
    # deleted, would make the next page begin in it, and report the rest of the hole as expired.
    if of_all:
        end = entries[kept].sequence - 1 if kept < len(entries) else last
    return entries[:kept], end
