"""A walk through a log to which anything happens between two pages: each round once and in order, or a gap."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.history.reading.stretch import Stretch, stretch_of
from relay.history.walk import PageVerdict, State, Walk, resume_since
from relay.live.bounds import Bounds, Gap, GapReason
from relay.live.hub import Generation
from roundlog.entry import LogEntry, Page
from rounds import Cursor

GAMES = ("crash", "dice", "plinko")


class Stored(NamedTuple):
    """A round as it was stored; `number` is unique over all logs."""

    epoch: str
    sequence: int
    number: int


@dataclass
class Log:
    """A log, and everything that was ever in it. A round's data is its number."""

    epoch: str = "k1"
    first: int = 1
    head: int = 0
    entries: list[LogEntry] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    stored: list[tuple[Stored, str]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)

    @property
    def generation(self) -> Generation:
        return Generation(self.epoch, len(self.ends))

    @property
    def bounds(self) -> Bounds:
        return Bounds(self.epoch, self.first, self.head)

    def store(self, game: str) -> None:
        self.head += 1
        number = len(self.stored)
        self.stored.append((Stored(self.epoch, self.head, number), game))
        self.entries.append(LogEntry(self.head, game, str(number).encode()))

    def purge(self, share: float) -> None:
        self.first = max(self.first, round(share * self.head) + 1)
        self.entries = [entry for entry in self.entries if entry.sequence >= self.first]

    def lose_tail(self, share: float) -> None:
        end = self.first - 1 + round(share * (self.head - self.first + 1))
        if end < self.head:
            self.lost |= {int(entry.data) for entry in self.entries if entry.sequence > end}
            self.entries = [entry for entry in self.entries if entry.sequence <= end]
            self.head = end
            self.ends.append(end)

    def rebuild(self, _: None) -> None:
        self.epoch, self.first, self.head = f"k{int(self.epoch[1:]) + 1}", 1, 0
        self.entries, self.ends = [], []

    def page(self, position: int, games: Sequence[str], limit: int) -> Stretch:
        """Read as `PageSource` does: one game by itself, several with all that is between."""
        only = games[0] if len(games) == 1 else None
        found = [entry for entry in self.entries if entry.sequence > position and only in (None, entry.game)]
        return stretch_of(
            Page(found[:limit], max(0, len(found) - limit)),
            epoch=self.epoch,
            position=position,
            head=self.head,
            oldest=None if only is None or not self.entries else self.entries[0].sequence,
        )


class Reader:
    """Reads a log as replays do, without a link; `came` is what a client would get."""

    def __init__(self, log: Log, games: Sequence[str]) -> None:
        self.log, self.games = log, games
        self.walk = Walk(log.generation)
        self.came: list[Stored | Gap] = []

    def read(self, limit: int) -> None:
        log, walk = self.log, self.walk
        if walk.generation != log.generation:
            self.report(walk.follow(log.generation, log.bounds, log.ends))
        if walk.state(log.head) in (State.AT_HEAD, State.ENDED):
            return
        stretch = log.page(walk.position, self.games, limit)
        self.report(walk.pass_gap(stretch))
        for entry in stretch.entries:
            if entry.game in self.games and entry.sequence <= walk.end:
                self.came.append(Stored(log.epoch, entry.sequence, int(entry.data)))
            walk.advance(entry.sequence)
        walk.advance(stretch.covered_to)

    def report(self, gap: Gap | None) -> None:
        if gap is None:
            return
        self.came.append(gap)
        if gap.reason is GapReason.EXPIRED:
            there = [entry.sequence for entry in self.log.entries if entry.game in self.games]
            assert not any(gap.begin.sequence < sequence <= gap.end.sequence for sequence in there), "not gone"

    def finish(self) -> None:
        states = (State.AT_HEAD, State.ENDED)
        while self.walk.generation != self.log.generation or self.walk.state(self.log.head) not in states:
            before = (self.walk.generation, self.walk.position)
            self.read(7)
            assert (self.walk.generation, self.walk.position) != before, "no way to the head"
            assert self.walk.position <= self.log.head, "past the head"

    def judge(self) -> None:
        """Each once and in order from the cursor that the client has; what did not come is in a gap or was lost."""
        at, had, gone = Cursor("k1", 0), set[int](), set[int]()
        for message in self.came:
            if isinstance(message, Stored):
                assert message.epoch == at.epoch
                assert message.sequence > at.sequence
                assert message.number not in had
                had.add(message.number)
                at = Cursor(message.epoch, message.sequence)
                continue
            begin, end, reason = message
            known = begin if reason is not GapReason.AHEAD else end
            assert known.epoch == at.epoch
            assert known.sequence >= at.sequence, "a gap before what came"
            if reason is not GapReason.AHEAD:
                gone |= self.numbers(begin, end)
            at = begin if reason is GapReason.AHEAD else end
        wanted = {stored.number for stored, game in self.log.stored if game in self.games}
        there = {int(entry.data) for entry in self.log.entries}
        assert wanted & there <= had, "a round that is in the log did not come"
        last = {message.epoch: message.number for message in self.came if isinstance(message, Stored)}
        ended = {  # of a log that is gone, the end may be missing, but nothing before what came
            stored.number
            for stored, _ in self.log.stored
            if stored.epoch != self.log.epoch and stored.number > last.get(stored.epoch, -1)
        }
        assert wanted <= had | gone | ended | self.log.lost, "a round is missing without a gap"

    def numbers(self, begin: Cursor, end: Cursor) -> set[int]:
        """What was stored after one cursor up to another, in the logs of both and between."""
        places = {stored.number: (int(stored.epoch[1:]), stored.sequence) for stored, _ in self.log.stored}
        low, high = ((int(cursor.epoch[1:]), cursor.sequence) for cursor in (begin, end))
        return {number for number, place in places.items() if low < place <= high}


stored = st.tuples(st.just("store"), st.sampled_from(GAMES))
read = st.tuples(st.just("read"), st.integers(1, 5))
happenings = st.lists(
    st.one_of(  # mostly growing, so that there is something to read
        *(stored, stored, stored, read, read),
        st.tuples(st.just("purge"), st.floats(0, 1)),
        st.tuples(st.just("lose_tail"), st.floats(0, 1)),
        st.tuples(st.just("rebuild"), st.none()),
    ),
    max_size=60,
)


@settings(max_examples=100)
@given(
    before=st.lists(st.sampled_from(GAMES), max_size=40),
    games=st.sets(st.sampled_from(GAMES), min_size=1).map(sorted),
    happenings=happenings,
    cell=st.sampled_from([2, 3, 50]),
    short=st.integers(0, 2),
)
def test_whatever_happens_between_two_pages(
    before: list[str], games: list[str], happenings: list[tuple[str, Any]], cell: int, short: int
) -> None:
    """Each round comes once and in order, or lies in a gap; a gap never names a round that is there."""
    log = Log()
    for game in before:
        log.store(game)
    reader = Reader(log, games)
    reader.walk.begin(log.generation, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("relay.history.reading.stretch.CELL", cell)
        patch.setattr("relay.history.reading.stretch._SHORT", short)
        for what, value in happenings:
            if what == "read":
                reader.read(value)
            else:
                getattr(log, what)(value)
        reader.finish()

    reader.judge()


@given(
    before=st.lists(st.sampled_from(GAMES), max_size=30),
    later=st.lists(st.sampled_from(GAMES), max_size=10),
    games=st.sets(st.sampled_from(GAMES), min_size=1).map(sorted),
    after=st.none() | st.integers(0, 30),
)
def test_walk_up_to_the_head_ends_there(
    before: list[str], later: list[str], games: list[str], after: int | None
) -> None:
    """Everything up to the head of the beginning comes, and nothing that was stored later."""
    log = Log()
    for game in before:
        log.store(game)
    cursor = None if after is None else Cursor("k1", min(after, log.head))
    reader = Reader(log, games)
    assert reader.walk.begin_up_to_head(log.generation, log.bounds, cursor) is None
    for game in later:
        log.store(game)

    reader.finish()

    begin = 0 if cursor is None else cursor.sequence
    assert [stored.sequence for stored in reader.came if isinstance(stored, Stored)] == [
        sequence for sequence, game in enumerate(before, 1) if game in games and sequence > begin
    ]
    assert reader.walk.state(log.head) is State.ENDED
    assert reader.walk.position == len(before)


def page(*sequences: int, covered_to: int, gap_to: int | None = None) -> Stretch:
    """A page after sequence 10, and what is gone of it."""
    gap = None if gap_to is None else Gap(Cursor("k1", 10), Cursor("k1", gap_to), GapReason.EXPIRED)
    return Stretch("k1", [LogEntry(sequence, "crash", b"") for sequence in sequences], covered_to, gap)


FIRST = Generation("k1", 0)


@pytest.mark.parametrize(
    ("stretch", "missed", "not_missed"),
    [
        (page(11, 12, covered_to=12), PageVerdict.ROUNDS, PageVerdict.ROUNDS),
        (page(covered_to=20), PageVerdict.ROUNDS, PageVerdict.ROUNDS),
        (page(15, covered_to=15, gap_to=14), PageVerdict.GAP, PageVerdict.ROUNDS),
        (page(covered_to=20, gap_to=20), PageVerdict.ALL_GONE, PageVerdict.ROUNDS),
        (page(covered_to=10), PageVerdict.NOTHING, PageVerdict.NOTHING),
    ],
    ids=["rounds", "none of these games", "gap", "all gone", "nothing"],
)
def test_what_a_page_means(stretch: Stretch, missed: PageVerdict, not_missed: PageVerdict) -> None:
    """Rounds that are gone are missed by a client that had a cursor, or that was already sent some."""
    with_cursor, without, later = Walk(FIRST), Walk(FIRST), Walk(FIRST)
    with_cursor.begin_up_to_head(FIRST, Bounds("k1", 1, 20), Cursor("k1", 10))
    without.begin_up_to_head(FIRST, Bounds("k1", 11, 20), None)
    later.begin_up_to_head(FIRST, Bounds("k1", 10, 20), None)
    later.advance(10)

    assert with_cursor.judge(stretch) is missed
    assert without.judge(stretch) is not_missed
    assert later.judge(stretch) is missed


def test_states_on_the_way() -> None:
    """A walk of the last rounds of each game, from where it is not located to the head."""
    walk = Walk(FIRST)
    assert (walk.state(20), walk.cursor) == (State.UNLOCATED, None)

    walk.begin_by_game(FIRST, Bounds("k1", 5, 18), {"crash": 3, "dice": 12, "plinko": 19}, seen=16)
    assert (walk.state(20), walk.cursor) == (State.BY_GAME, Cursor("k1", 4))
    assert walk.begins(GAMES) == {"crash": 4, "dice": 11}  # plinko has nothing up to 16
    assert walk.common_end([page(covered_to=14), page(covered_to=18)]) == 14
    assert walk.common_end([page(covered_to=18), page(covered_to=18)]) == 16

    walk.advance(16)
    assert walk.state(20) is State.WALKING
    walk.advance(20)
    assert walk.state(20) is State.AT_HEAD
    assert walk.state(19) is State.AHEAD


def test_floors_after_a_lost_tail_begin_with_what_is_stored_there_now() -> None:
    """A game that would begin after the end of the log begins with the next round; a rebuilt log has no floors."""
    walk = Walk(FIRST)
    walk.begin_by_game(FIRST, Bounds("k1", 1, 18), {"crash": 3, "dice": 12}, seen=18)

    assert walk.follow(Generation("k1", 1), Bounds("k1", 1, 14), [7]) is None
    assert walk.floors == {"crash": 3, "dice": 8}
    assert walk.begins(GAMES) == {"crash": 2}
    walk.advance(7)
    assert walk.state(14) is State.WALKING

    gap = walk.follow(Generation("k2", 0), Bounds("k2", 3, 14), [])
    assert gap == Gap(Cursor("k1", 7), Cursor("k2", 2), GapReason.REBUILT)
    assert (walk.floors, walk.cursor) == ({}, Cursor("k2", 2))


def test_lost_tail_brings_a_walk_back_to_the_earliest_end() -> None:
    """The log ended before the position, then grew, and ended once more, later: the first end counts."""
    walk = Walk(FIRST)
    walk.begin_up_to_head(FIRST, Bounds("k1", 1, 20), Cursor("k1", 10))

    gap = walk.follow(Generation("k1", 2), Bounds("k1", 1, 9), [6, 9])

    assert gap == Gap(Cursor("k1", 6), Cursor("k1", 10), GapReason.AHEAD)
    assert (walk.position, walk.end) == (6, 6)
    assert walk.state(9) is State.ENDED


@pytest.mark.parametrize(
    ("bounds", "gap", "end"),
    [
        (Bounds("k1", 1, 15), None, 15),
        (Bounds("k1", 13, 15), Gap(Cursor("k1", 10), Cursor("k1", 12), GapReason.EXPIRED), 15),
        (Bounds("k1", 1, 8), Gap(Cursor("k1", 8), Cursor("k1", 10), GapReason.AHEAD), 8),
        (Bounds("k1", 1, 30), None, 20),
    ],
)
def test_end_moves_back_to_where_the_log_has_less(bounds: Bounds, gap: Gap | None, end: int) -> None:
    """The head of the call may have been purged since; the walk ends earlier then, and never later."""
    walk = Walk(FIRST)
    walk.begin_up_to_head(FIRST, Bounds("k1", 1, 20), Cursor("k1", 10))

    assert walk.compare(bounds) == gap
    assert walk.end == end


@pytest.mark.parametrize(
    ("found", "position", "complete"),
    [(None, 20, True), (15, 15, True), (4, 4, False), (0, 4, False)],
    ids=["later than all", "found", "at the oldest", "before the oldest"],
)
def test_beginning_at_a_time(found: int | None, position: int, complete: bool) -> None:
    """Where the oldest round is of that time or later, rounds from before it may be gone."""
    at, gap = resume_since(found, Bounds("k1", 5, 20))

    assert at == position
    assert (gap is None) == complete
    assert resume_since(found, Bounds("k1", 1, 20)).gap is None
