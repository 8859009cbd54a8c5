"""Meters: the same as a token bucket with exact numbers, and bounded."""

from fractions import Fraction

from hypothesis import assume, example, given
from hypothesis import strategies as st

from relay.admission.limits.meters import Meters, Rate

STEPS = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 3)), max_size=60)


ROUNDING = Fraction(1, 100)


class TokenBucket:
    """The reference: tokens come evenly, up to the amount."""

    def __init__(self, amount: int, period_s: int) -> None:
        self._amount, self._rate = amount, Fraction(amount, period_s)
        self._tokens, self._at = Fraction(amount), Fraction(0)

    def take(self, now: Fraction, count: int) -> bool:
        self._tokens = min(Fraction(self._amount), self._tokens + (now - self._at) * self._rate)
        self._at = now
        # What is nearly regained counts as regained; exactly there, sums of floats go either way.
        assume(abs((self._tokens + ROUNDING) % 1 - Fraction(1, 2)) < Fraction(1, 2) - Fraction(1, 10**6))
        if self._tokens + ROUNDING < 1:
            return False
        self._tokens -= count
        return True

    @property
    def free(self) -> int:
        return max(0, (self._tokens + ROUNDING).__floor__())


@given(st.sampled_from((1, 2, 3, 5, 60, 100, 120, 1000)), STEPS)
@example(3, [(0, 3), (19_801, 1)])
@example(3, [(0, 1), (19_800, 1)])
def test_meter_is_a_token_bucket(amount: int, steps: list[tuple[int, int]]) -> None:
    """It admits, and shows as free, what a bucket with exact numbers does, whenever and however much is used."""
    rate, meters, bucket = Rate.per_min(amount), Meters(10), TokenBucket(amount, 60)
    start, now_ms = 1_000_000.0, 0
    for pause_ms, count in steps:
        now_ms += pause_ms
        now = start + now_ms / 1000
        admitted = meters.wait_s("k", rate, now) == 0
        assert admitted == bucket.take(Fraction(now_ms, 1000), count)
        if admitted:
            meters.use("k", rate, now, count)
        assert meters.quota("k", rate, now).remaining == bucket.free


@given(st.integers(1, 1000), STEPS)
def test_refused_use_is_admitted_after_the_wait(amount: int, steps: list[tuple[int, int]]) -> None:
    """Not before; and after ``reset_s`` all of the limit is free."""
    rate, meters, now = Rate.per_min(amount), Meters(10), 500.0
    for pause_ms, count in steps:
        now += pause_ms / 1000
        meters.use("k", rate, now, count)
        wait_s = meters.wait_s("k", rate, now)
        if wait_s:
            assert meters.wait_s("k", rate, now + wait_s * 0.9 - rate.interval_s * 0.1) > 0
            assert meters.wait_s("k", rate, now + wait_s) == 0
        quota = meters.quota("k", rate, now)
        assert meters.quota("k", rate, now + quota.reset_s).remaining == amount


def test_a_slow_rate_admits_one_at_once() -> None:
    """Half a link per second is one every two seconds."""
    rate, meters = Rate.per_s(0.5), Meters(10)
    meters.use("k", rate, 10.0)

    assert meters.wait_s("k", rate, 10.0) == 2.0
    assert meters.wait_s("k", rate, 12.0) == 0


def test_very_many_users_take_bounded_memory_and_free_nobody_who_is_at_the_limit() -> None:
    """A client with 100,000 addresses displaces its own: one that is over its limit stays refused."""
    rate, meters, now = Rate.per_min(100), Meters(1000), 0.0
    meters.use("limited", rate, now, 100)
    for number in range(100_000):
        now += 0.000001
        meters.use(number, rate, now)

    assert len(meters) <= 1000
    assert meters.wait_s("limited", rate, now) > 0


def test_users_at_rest_are_forgotten_first() -> None:
    """They have nothing to be remembered for."""
    rate, meters = Rate.per_min(60), Meters(3)
    for name in ("a", "b", "c"):
        meters.use(name, rate, 0.0)
    meters.use("c", rate, 0.0, 30)
    meters.use("d", rate, 2.0)

    assert len(meters) == 2
    assert meters.quota("c", rate, 2.0).remaining == 31
    assert meters.quota("d", rate, 2.0).remaining == 59


@given(st.integers(1, 10**9))
def test_debt_is_bounded(amount: int) -> None:
    """A huge use is paid back after two periods."""
    rate, meters = Rate.per_min(100), Meters(10)
    meters.use("k", rate, 0.0, amount)

    assert meters.wait_s("k", rate, 0.0) <= 120


def test_a_rate_near_none_gives_delays_that_can_be_read() -> None:
    """Also of the least number above 0: the client waits for a day, and not for longer than a float can say."""
    for amount in (5e-324, 1e-300, 1e-9):
        rate, meters = Rate.per_s(amount), Meters(10)
        meters.use("k", rate, 0.0)
        assert 0 < meters.wait_s("k", rate, 1.0) <= 86_400
        assert meters.quota("k", rate, 1.0).reset_s <= 86_400
