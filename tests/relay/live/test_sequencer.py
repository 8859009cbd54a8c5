"""The order of the log, whatever the network does to it."""

from hypothesis import given
from hypothesis import strategies as st

from relay.live.following.sequencer import Sequencer
from roundlog.entry import LogEntry


def entry(sequence: int) -> LogEntry:
    return LogEntry(sequence, "crash", b"%d" % sequence)


def sequences(entries: object) -> list[int]:
    return [entry.sequence for entry in entries]  # type: ignore[attr-defined]


def test_rounds_in_order_pass_straight_through() -> None:
    """The usual case: no entry is parked, and nothing is read."""
    sequencer = Sequencer(41, park_limit=10)

    assert sequences(sequencer.on_live([entry(42)])) == [42]
    assert sequences(sequencer.on_live([entry(43)])) == [43]
    assert not sequencer.behind


def test_lost_round_holds_back_later_ones_until_it_is_read_from_the_log() -> None:
    """The next round shows the hole, and no round is returned before the lost one."""
    sequencer = Sequencer(0, park_limit=10)

    assert sequences(sequencer.on_live([entry(2)])) == []
    assert sequencer.behind
    assert sequences(sequencer.on_live([entry(3)])) == []
    assert sequences(sequencer.on_read([entry(1)], covered_to=1)) == [1, 2, 3]
    assert not sequencer.behind


def test_rounds_that_come_together_are_returned_together() -> None:
    """A hole among them holds back the rounds after it, and none before it."""
    sequencer = Sequencer(0, park_limit=10)

    assert sequences(sequencer.on_live([entry(1), entry(2)])) == [1, 2]
    assert sequences(sequencer.on_live([entry(2), entry(3), entry(5), entry(4), entry(7)])) == [3, 4, 5]
    assert sequencer.behind
    assert sequencer.known == 7


def test_round_read_from_the_log_first_is_not_repeated_when_it_comes_live() -> None:
    """It is returned once, by the faster of both ways."""
    sequencer = Sequencer(0, park_limit=10)

    assert sequences(sequencer.on_read([entry(1), entry(2)], covered_to=2)) == [1, 2]
    assert sequences(sequencer.on_live([entry(1)])) == []
    assert sequences(sequencer.on_live([entry(3)])) == [3]


def test_deleted_rounds_do_not_hold_the_feed_for_ever() -> None:
    """A round that the log no longer holds is skipped once the log was read."""
    sequencer = Sequencer(0, park_limit=10)
    sequencer.on_live([entry(5)])

    assert sequences(sequencer.on_read([], covered_to=4)) == [5]


def test_parking_is_bounded_and_other_rounds_are_read_from_the_log() -> None:
    """Memory does not grow with the length of an outage."""
    sequencer = Sequencer(0, park_limit=2)
    for sequence in range(2, 100):
        assert sequences(sequencer.on_live([entry(sequence)])) == []

    assert sequences(sequencer.on_read([entry(1)], covered_to=1)) == [1, 2, 3]
    assert sequencer.behind
    assert sequences(sequencer.on_read([entry(n) for n in range(4, 100)], covered_to=99)) == list(range(4, 100))
    assert not sequencer.behind


@given(
    live=st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=10), max_size=30),
    deleted=st.sets(st.integers(1, 40)),
    park_limit=st.integers(0, 5),
    page=st.integers(1, 7),
)
def test_every_round_is_returned_once_and_in_order(
    live: list[list[int]], deleted: set[int], park_limit: int, page: int
) -> None:
    """Lost, repeated, reordered, few or many at a time: after the repair the hub got every round in log order."""
    sequencer = Sequencer(0, park_limit=park_limit)
    seen: list[int] = []
    came = [[entry(sequence) for sequence in read if sequence not in deleted] for read in live]
    for entries in filter(None, came):
        seen += sequences(sequencer.on_live(entries))
    tail = max((sequence for read in live for sequence in read if sequence not in deleted), default=0)
    while sequencer.behind:
        stored = [n for n in range(sequencer.head + 1, tail + 1) if n not in deleted][:page]
        seen += sequences(sequencer.on_read([entry(n) for n in stored], covered_to=stored[-1] if stored else tail))

    assert seen == [n for n in range(1, tail + 1) if n not in deleted]
