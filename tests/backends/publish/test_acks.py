"""For any answers in any order: nothing is confirmed early, nothing is lost, memory is bounded."""

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backends.publish.window.acks import Entry, Lag, Window
from backends.publish.window.order import Lanes

MAX_COUNT, MAX_BYTES = 12, 4000


GAMES = ("crash", "dice", "double")


def entry(number: int, *, game: str = "crash", settled: bool = False, data: bytes = b"{}") -> Entry[int]:
    made = Entry(number, f"rounds.{game}".encode(), f"{game}:{number}".encode(), data)
    made.settled = settled
    return made


class AnyAnswers(RuleBasedStateMachine):
    """Adds, sends, acks, errors, repeats and disconnects in any order, checked against plain sets."""

    def __init__(self) -> None:
        super().__init__()
        self.window: Window[int] = Window(max_count=MAX_COUNT, max_bytes=MAX_BYTES)
        self.one_per_game = False
        self.games: list[str] = []  # of each entry added
        self.settled: set[int] = set()
        self.failed: set[int] = set()
        self.unanswered: set[int] = set()
        self.confirmed = -1
        self.handed_out: set[int] = set()  # on this connection

    @property
    def added(self) -> int:
        return len(self.games)

    @property
    def contiguous(self) -> int:
        """The last entry up to which, itself included, everything is settled."""
        number = 0
        while number in self.settled:
            number += 1
        return number - 1

    @precondition(lambda self: self.window.has_room)
    @rule(settled=st.booleans(), size=st.sampled_from([2, 100, 10_000]), game=st.sampled_from(GAMES))
    def add(self, settled: bool, size: int, game: str) -> None:
        self.window.add(entry(self.added, game=game, settled=settled, data=b"x" * size))
        if settled:
            self.settled.add(self.added)
        self.games.append(game)

    @rule(limit=st.sampled_from([1, 600, 100_000]), more=st.none() | st.integers(0, 3))
    def take(self, limit: int, more: int | None) -> None:
        upto = None if more is None else self.window.handed_out + more
        for number, taken in self.window.take(limit, upto=upto):
            assert taken.offset == number
            assert upto is None or number < upto
            assert number not in self.settled | self.unanswered | self.failed
            game = self.games[number]
            same = [other for other in range(self.added) if not self.one_per_game or self.games[other] == game]
            assert not any(other > number for other in self.handed_out.intersection(same))
            earlier = set(same[: same.index(number)])
            assert earlier <= (self.settled if self.one_per_game else self.settled | self.handed_out)
            self.handed_out.add(number)
            self.unanswered.add(number)

    @rule(data=st.data())
    def acks(self, data: st.DataObject) -> None:
        candidates = [*sorted(self.unanswered), 0, self.added - 1, 10**9]
        numbers = data.draw(st.lists(st.sampled_from(candidates), max_size=6))
        news = {number for number in numbers if number in self.unanswered}
        known = {number for number in numbers if number in self.failed}
        assert self.window.settle(numbers) == len(news | known)
        self.settled |= news | known
        self.unanswered -= news
        self.failed -= known

    @precondition(lambda self: bool(self.unanswered))
    @rule(data=st.data())
    def error_ack(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.unanswered)))
        assert self.window.fail(number)
        assert not self.window.fail(number)
        self.unanswered.discard(number)
        self.failed.add(number)

    @initialize(one_per_game=st.booleans())
    def begin(self, one_per_game: bool) -> None:
        self.one_per_game = one_per_game
        self.window.lanes = Lanes() if one_per_game else None

    @precondition(lambda self: self.window.is_idle and not self.failed)
    @rule()
    def send_in_another_way(self) -> None:
        assert not self.unanswered
        self.begin(not self.one_per_game)

    @rule()
    def disconnect(self) -> None:
        self.window.rewind()
        self.failed.clear()
        self.unanswered.clear()
        self.handed_out.clear()

    @rule(data=st.data())
    def found_in_the_log(self, data: st.DataObject) -> None:
        self.disconnect()
        for found in self.window.unsettled():
            if data.draw(st.booleans()):
                found.settled = True
                self.settled.add(found.offset)
        self.window.refresh()

    @invariant()
    def confirmed_is_exactly_the_contiguous_part(self) -> None:
        offset = self.window.offset()
        if offset is not None:
            assert offset > self.confirmed
            self.confirmed = offset
        assert self.confirmed <= self.contiguous
        # What is settled at the head of the queue may be told only when it is reached.
        assert self.confirmed == self.contiguous or self.window.queued

    @invariant()
    def counts_agree(self) -> None:
        assert self.window.unanswered == len(self.unanswered)
        assert self.window.first_failed == min(self.failed, default=None)
        assert len(self.window) == self.added - 1 - self.confirmed
        assert len(self.window) <= MAX_COUNT

    def teardown(self) -> None:
        """After one more connection that works, everything is confirmed."""
        self.window.rewind()
        while taken := self.window.take(1000):
            self.window.settle([number for number, _ in taken])
        offset = self.window.offset()
        assert (self.confirmed if offset is None else offset) == self.added - 1
        assert len(self.window) == 0
        assert self.window.has_room


TestAnyAnswers = AnyAnswers.TestCase


def test_one_entry_over_the_byte_limit_passes_alone() -> None:
    """A round over the window's size waits until the window is empty, and is then sent."""
    window: Window[int] = Window(max_count=10, max_bytes=100)
    room = [window.has_room]
    window.add(entry(0, data=b"x" * 1000))
    room.append(window.has_room)
    window.settle([number for number, _ in window.take(1)])
    room.append(window.has_room)
    assert room == [True, False, True]


@given(st.lists(st.floats(0, 10), max_size=40), st.floats(0.1, 50))
def test_positions_are_held_for_the_lag_and_then_given_out_in_order(gaps: list[float], lag_s: float) -> None:
    """Never early, never backwards, and the newest in the end."""
    lag: Lag[int] = Lag(lag_s)
    settled_at: list[float] = []
    now, given_out = 0.0, -1
    for number, gap in enumerate(gaps):
        now += gap
        settled_at.append(now)
        lag.hold(number, now)
        offset = lag.release(now)
        if offset is not None:
            assert offset > given_out
            assert settled_at[offset] + lag_s <= now
            given_out = offset
    if gaps and given_out < len(gaps) - 1:
        assert lag.next_due is not None
        assert lag.release(now + lag_s) == len(gaps) - 1
    assert lag.next_due is None


def test_lag_keeps_few_positions_however_many_come() -> None:
    """A million rounds a minute and a lag of minutes must not fill the memory."""
    lag: Lag[int] = Lag(100.0)
    for number in range(100_000):
        lag.hold(number, number / 1000)
    assert len(lag) <= 260
    assert lag.release(100.0) == 0


def test_correction_waits_for_the_round_before_it_in_its_lane() -> None:
    """In a replicated log, entries of one game are in flight one at a time, whatever their subject."""
    window: Window[int] = Window(max_count=10, max_bytes=10_000)
    window.lanes = Lanes()
    window.add(entry(1))
    window.add(Entry(2, b"rounds.crash~corrections", b"crash:1:2", b"{}", lane=b"rounds.crash"))
    window.add(entry(3, game="dice"))
    window.add(entry(4))

    assert [number for number, _ in window.take(10_000)] == [0, 2]
    window.settle([0])
    assert [number for number, _ in window.take(10_000)] == [1]
    window.settle([1])
    assert [number for number, _ in window.take(10_000)] == [3]
