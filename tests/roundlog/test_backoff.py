"""Waits between attempts grow, have a bound, and differ between processes."""

from roundlog.backoff import Backoff, jittered


def test_each_wait_is_up_to_twice_the_one_before_and_none_is_over_the_longest() -> None:
    """A short outage is retried soon, and a long one, of any length, at the longest interval."""
    backoff = Backoff(0.1, 5.0)
    longest = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2] + [5.0] * 2000
    for bound in longest:
        assert bound / 2 <= backoff.next_s() <= bound


def test_after_a_success_the_first_wait_is_short_again() -> None:
    """A loss after a long connection is retried as quickly as the first."""
    backoff = Backoff(0.1, 5.0)
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.next_s() <= 0.1


def test_first_wait_over_the_longest_is_cut() -> None:
    """A longest wait below the first one applies to the first one too."""
    backoff = Backoff(0.5, 0.05)
    assert backoff.next_s() <= 0.05
    backoff.reset()
    assert backoff.next_s() <= 0.05


def test_processes_that_failed_together_do_not_retry_together() -> None:
    """Waits are random in the second half of their interval."""
    waits = {jittered(1.0) for _ in range(50)}
    assert len(waits) > 1
    assert all(0.5 <= wait_s <= 1 for wait_s in waits)
