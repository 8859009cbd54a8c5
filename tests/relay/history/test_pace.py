"""When rounds of a paced replay are due. The tests give the time; no clock is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.history.pace import ReplayPace


def test_first_round_is_due_at_once_and_the_others_from_there() -> None:
    """The time taken to find the first round does not count."""
    pace = ReplayPace(2)

    assert pace.due_at_s(10_000, now_s=77.0) == 77.0
    assert pace.due_at_s(11_000, now_s=77.1) == 77.5
    assert pace.due_at_s(20_000, now_s=99.0) == 82.0


@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0.01, 10_000), st.floats(0, 5))
def test_delays_of_sending_do_not_add_up(offsets_ms: list[int], speed: float, late_s: float) -> None:
    """Rounds are due relative to the first one, however late the previous one was sent."""
    pace, begun_s = ReplayPace(speed), 1000.0
    first_ms = offsets_ms[0]
    for number, offset_ms in enumerate(offsets_ms):
        due_s = pace.due_at_s(offset_ms, now_s=begun_s + number * late_s)
        assert due_s == pytest.approx(begun_s + (offset_ms - first_ms) / 1000 / speed)


def test_round_of_an_earlier_time_is_due_already() -> None:
    """The log is not quite in the order of the rounds' times; an earlier round is due at once."""
    pace = ReplayPace(1)
    pace.due_at_s(10_000, now_s=5.0)

    assert pace.due_at_s(9_000, now_s=5.0) == 4.0
