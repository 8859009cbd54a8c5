"""For how long a round may be sent, and what a process does that stood still."""

import pytest

from backends.publish.lease import Lease, LeaseOver


def lease(window_s: float = 120) -> Lease:
    made = Lease()
    made.begin(window_s)
    made.show_alive(1000.0)
    return made


def test_round_is_sent_within_a_third_of_the_duplicate_window() -> None:
    """The oldest of those that are sent together decides."""
    made = lease()
    made.show_alive(1035.0)
    made.check(1040.0, [1000.0, 1039.0])
    with pytest.raises(LeaseOver, match=r"rounds were read 41.0 s ago"):
        made.check(1041.0, [1030.0, 1000.0])


@pytest.mark.parametrize("first", ["timer", "write"])
def test_process_that_stood_still_sends_nothing_before_it_has_compared(first: str) -> None:
    """Whichever runs first after it: the timer that shows that it runs, or a write."""
    made = lease()
    if first == "timer":
        assert made.show_alive(1041.0)
        assert made.show_alive(1041.2), "until it was dealt with"
    with pytest.raises(LeaseOver, match=r"stood still for 41.0 s"):
        made.check(1041.0)
    made.begin(120)
    made.show_alive(1041.5)
    made.check(1042.0, [1041.0])


def test_pause_within_the_lease_is_nothing() -> None:
    """The log recognises what is sent after it."""
    made = lease()
    assert not made.show_alive(1039.0)
    made.check(1040.0)


def test_very_short_window_leaves_a_second() -> None:
    """Otherwise a slow machine would never send anything."""
    assert lease(0.1).length_s == 1.0
    assert lease(30).length_s == 10.0


def test_nothing_is_checked_before_the_first_connection() -> None:
    """There is nothing to send yet."""
    made = Lease()
    assert not made.show_alive(5.0)
    assert not made.show_alive(5000.0)
