"""Waits between attempts grow, have a bound, and differ between processes."""

from roundlog.backoff import Backoff, jittered


def test_each_wait_is_up_to_twice_the_one_before_and_none_is_over_the_longest() -> None:
    """What is away for a moment is tried again soon; what is away for long is left in peace, however long."""
    backoff = Backoff(0.1, 5.0)
    longest = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2] + [5.0] * 2000
    for bound in longest:
        assert bound / 2 <= backoff.next_s() <= bound


def test_after_a_success_the_waits_begin_anew() -> None:
    """A loss after a long good time is mended as quickly as the first."""
    backoff = Backoff(0.1, 5.0)
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_first_wait_over_the_longest_is_cut() -> None:
    """An operator who sets a short longest wait gets that, from the first one on."""
    backoff = Backoff(0.5, 0.05)
    assert backoff.next_s() <= 0.05
    backoff.reset()
    assert backoff.next_s() <= 0.05


def test_two_that_failed_at_once_do_not_come_back_at_once() -> None:
    """Waits are spread over the second half of their time, so that a crowd comes back one by one."""
    waits = {jittered(1.0) for _ in range(50)}
    assert len(waits) > 1
    assert all(0.5 <= wait_s <= 1 for wait_s in waits)
