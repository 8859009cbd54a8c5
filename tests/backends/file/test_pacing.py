"""Rounds are due at fixed times after the start, at any speed. No test here waits."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.file.pacing import RecordingPace
from tests.backends.file.replaying import (
    START_MS,
    StoppedClock,
    played,
    replay,
    round_at,
    rounds,
    rounds_of,
    write,
)

HOUR_MS = 3_600_000


@pytest.mark.parametrize(("speed", "due_s"), [(1, [0, 1.5, 60]), (10, [0, 0.15, 6]), (0.5, [0, 3, 120])])
def test_speed_divides_the_time_between_rounds(speed: float, due_s: list[float]) -> None:
    """Times count from the first round."""
    pace = RecordingPace(speed)

    assert [pace.due_s(START_MS + after) for after in (0, 1500, 60_000)] == pytest.approx(due_s)


def test_days_of_rounds_do_not_drift() -> None:
    """A million steps of 333 ms end at the same time as one step of their sum."""
    pace = RecordingPace(7.0)

    for number in range(1_000_000):
        last = pace.due_s(START_MS + number * 333)

    assert last == pytest.approx(999_999 * 0.333 / 7, abs=1e-6)


def test_round_a_little_out_of_order_is_due_at_once_and_delays_nothing() -> None:
    """Rounds of several games may be recorded in another order than they were committed in."""
    pace = RecordingPace(1.0)

    assert [pace.due_s(START_MS + after) for after in (0, 5000, 4000, 6000)] == [0, 5, 5, 6]


def test_recording_that_begins_again_keeps_its_cadence() -> None:
    """A folder may have one file per game, each from the first day on; no file is played at full speed."""
    pace = RecordingPace(1.0)

    assert [pace.due_s(START_MS + after) for after in (0, HOUR_MS, 0, 1000, HOUR_MS)] == [0, 3600, 3600, 3601, 7200]


def test_long_pause_is_cut_to_the_longest_allowed() -> None:
    """A night without rounds takes `max_gap_s` seconds of real time; shorter pauses do not change."""
    pace = RecordingPace(10.0, max_gap_s=2.0)

    assert [pace.due_s(START_MS + after) for after in (0, 10_000, HOUR_MS, HOUR_MS + 5_000)] == [0, 1, 3, 3.5]


@given(st.lists(st.integers(0, 2**63 - 1), min_size=1), st.floats(1e-3, 1e6), st.floats(1e-3, 1e9))
def test_no_round_is_due_before_the_one_before_it(times: list[int], speed: float, max_gap_s: float) -> None:
    """Due times never decrease, and no pause is longer than allowed, for any times in the recording."""
    pace = RecordingPace(speed, max_gap_s)

    due_s = [pace.due_s(time_ms) for time_ms in times]

    assert due_s[0] == 0
    assert due_s == sorted(due_s)
    assert due_s[-1] <= max_gap_s * len(times)
    assert pace.reached_s == due_s[-1]


async def test_replay_waits_for_each_round_by_one_timer(tmp_path: Path) -> None:
    """At twice the cadence, one round is due each half second, each in its own batch."""
    path = write(tmp_path / "a.jsonl", rounds(4))
    clock = StoppedClock()

    await played(replay(clock, path=str(path), speed=2))

    assert clock.waits == [0, 0.5, 1, 1.5]


async def test_delayed_replay_catches_up_with_its_schedule(tmp_path: Path) -> None:
    """Rounds that became due during the delay come in one batch; later rounds come when they are due."""
    path = write(tmp_path / "a.jsonl", rounds(6))
    clock = StoppedClock()
    backend = replay(clock, path=str(path), speed=1)

    sizes = []
    async with backend.open():
        async for batch in backend.read():
            sizes.append(len(batch))
            if len(sizes) == 1:
                clock.passed_s = 3.5  # the publisher waited for NATS

    assert sizes == [1, 3, 1, 1]
    assert clock.waits == [0, 1, 4, 5]


async def test_replay_at_full_speed_never_waits(tmp_path: Path) -> None:
    """``max`` has no schedule."""
    path = write(tmp_path / "a.jsonl", rounds(3))
    clock = StoppedClock()

    assert len(await played(replay(clock, path=str(path)))) == 3
    assert clock.waits == []


async def test_shifted_round_is_stamped_with_the_moment_it_is_played(tmp_path: Path) -> None:
    """Then now - timestamp is the true latency; the time between finish and commit is divided by the speed."""
    path = write(tmp_path / "a.jsonl", rounds(3))
    clock = StoppedClock(wall_ms=1_800_000_000_000)

    items = await played(replay(clock, path=str(path), speed=10, shift_to_now=True))

    assert [round_.timestamp - 1_800_000_000_000 for round_ in rounds_of(items)] == [0, 100, 200]
    assert [round_.finished_at for round_ in rounds_of(items)] == [
        "2027-01-15T07:59:59.997Z",
        "2027-01-15T08:00:00.097Z",
        "2027-01-15T08:00:00.197Z",
    ]
    assert [round_.round_id for round_ in rounds_of(items)] == [100, 101, 102]


async def test_round_finished_after_its_commit_is_shifted_to_now(tmp_path: Path) -> None:
    """Some exports have such times; a round must not have a time in the future."""
    strange = round_at(1, at_ms=5)
    path = write(tmp_path / "a.jsonl", [strange])

    (round_,) = rounds_of(await played(replay(StoppedClock(1_800_000_000_000), path=str(path), shift_to_now=True)))

    assert (round_.timestamp, round_.finished_at) == (1_800_000_000_000, "2027-01-15T08:00:00Z")
