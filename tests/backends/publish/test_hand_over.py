"""When a process that cannot publish lets another one read."""

from backends.publish.hand_over import why_hand_over


def test_oldest_round_decides_and_not_how_many_wait() -> None:
    """A round that waits too long is a reason; an empty window with a log that answers is none."""
    assert why_hand_over(10, 100, lost_at=None, leads=True, waiting_since=None) is None
    assert why_hand_over(10, 100, lost_at=None, leads=True, waiting_since=91) is None
    assert why_hand_over(10, 100, lost_at=None, leads=True, waiting_since=90) == "nothing was stored for 10.0 s"
    # Also of a process that does not lead any more: what it read is another's to publish.
    assert why_hand_over(10, 100, lost_at=95, leads=False, waiting_since=90) == "nothing was stored for 10.0 s"


def test_idle_reader_without_a_log_lets_another_read() -> None:
    """The next round should find a process that can publish it."""
    assert why_hand_over(10, 100, lost_at=90, leads=True, waiting_since=None) == "the log was unavailable for 10.0 s"
    assert why_hand_over(10, 100, lost_at=91, leads=True, waiting_since=None) is None
    assert why_hand_over(10, 100, lost_at=0, leads=False, waiting_since=None) is None, "a standby has nothing to give"


def test_zero_turns_it_off() -> None:
    """For an installation with one process that should never read anything again."""
    assert why_hand_over(0, 100, lost_at=0, leads=True, waiting_since=0) is None
