"""Order when a publish fails: conditions that are turned off for a while, and lanes."""

from backends.publish.window.order import Fence, Lanes, Suspension


def test_chain_is_given_up_for_longer_each_time_and_forgives() -> None:
    """Another publisher on the log stops the pipeline now and then, not once per round; one message of it, once."""
    chain = Suspension()
    assert chain.is_over(0.0)
    chain.disturbed(0.0)
    assert not chain.is_over(0.4)
    assert chain.is_over(0.5)
    chain.disturbed(0.6)
    assert not chain.is_over(1.5)
    assert chain.is_over(1.6)
    for _ in range(10):
        chain.disturbed(2.0)
    assert not chain.is_over(61.9)
    assert chain.is_over(62.0)
    chain.disturbed(200.0)
    assert chain.is_over(200.5)


def test_lane_lets_the_next_of_a_game_go_when_the_one_before_it_is_settled() -> None:
    """Other games do not wait; answers for entries that are not in flight change nothing."""
    lanes: Lanes[str] = Lanes()
    entered = [lanes.enter(subject, number, "") for number, subject in enumerate([b"crash", b"crash", b"dice"])]
    assert entered == [True, False, True]
    assert not lanes.leave(b"crash", 1)
    assert lanes.leave(b"crash", 0)
    assert not lanes.leave(b"crash", 1), "ready, but nobody took it"
    assert not lanes.enter(b"crash", 3, "")
    assert lanes.take() == (1, "")
    assert lanes.holds(b"crash", 1)
    assert lanes.leave(b"dice", 2)
    assert lanes.enter(b"dice", 4, "")
    assert lanes.leave(b"crash", 1)
    assert lanes.take() == (3, "")
    lanes.clear()
    assert lanes.enter(b"crash", 5, "")


def test_lane_says_which_of_its_entries_wait_too_long_for_an_answer() -> None:
    """Each entry's own age counts; an answer, or sending it again, ends its wait."""
    lanes: Lanes[str] = Lanes()
    for number, subject in enumerate([b"crash", b"dice", b"double"]):
        lanes.enter(subject, number, "")
        lanes.sent(number, 10.0 + number)
    assert lanes.longest_unanswered == 10.0
    assert lanes.late(9.9) == []
    assert lanes.late(11.0) == [0, 1]
    lanes.leave(b"dice", 1)
    lanes.sent(0, 20.0)
    assert lanes.longest_unanswered == 12.0
    assert lanes.late(19.0) == [2]
    lanes.clear()
    assert lanes.longest_unanswered is None


def test_round_is_sent_on_condition_of_the_newest_round_of_its_game() -> None:
    """A game without rounds has sequence 0, unless it is not known which games have any."""
    fence = Fence({b"crash": 7})
    assert (fence.after(b"crash"), fence.after(b"dice")) == (7, 0)
    fence.stored(b"crash", 9)
    assert fence.after(b"crash") == 9
    assert Fence(None).after(b"dice") is None
