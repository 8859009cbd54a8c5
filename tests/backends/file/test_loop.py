"""A loop plays the recording again and again, and never uses an id or a time twice."""

from pathlib import Path

import pytest

from backends.contract import Rejected, SourceError
from rounds.times import utc_text
from tests.backends.file.replaying import (
    START_MS,
    StoppedClock,
    ids,
    jsonl,
    played,
    replay,
    round_at,
    rounds,
    rounds_of,
    write,
)


async def test_each_pass_has_new_ids_and_times(tmp_path: Path) -> None:
    """Ids count up from the clock's time; each pass adds the length of the recording and one second to the times."""
    path = write(tmp_path / "a.jsonl", rounds(3))

    items = await played(replay(StoppedClock(1_800_000_000_000), path=str(path), loop=True), stop_after=9)

    assert ids(items) == list(range(1_800_000_000_000_000, 1_800_000_000_000_009))
    times = [START_MS + second * 1000 for second in range(9)]
    assert [round_.timestamp for round_ in rounds_of(items)] == times
    assert [round_.finished_at for round_ in rounds_of(items)] == [utc_text(time - 30) for time in times]
    assert [round_.extras for round_ in rounds_of(items)] == [round_.extras for round_ in rounds(3)] * 3


async def test_pass_begins_after_the_newest_round_of_the_one_before_not_after_its_last(tmp_path: Path) -> None:
    """No time is used twice, also when rounds are slightly out of order."""
    path = write(tmp_path / "a.jsonl", [round_at(0), round_at(2), round_at(1)])

    items = await played(replay(path=str(path), loop=True), stop_after=6)

    times = [round_.timestamp - START_MS for round_ in rounds_of(items)]
    assert times == [0, 2000, 1000, 3000, 5000, 4000]


async def test_passes_follow_each_other_at_the_cadence_of_the_recording(tmp_path: Path) -> None:
    """The next pass is due one second of the recording's time after the last round."""
    path = write(tmp_path / "a.jsonl", rounds(3))
    clock = StoppedClock()

    await played(replay(clock, path=str(path), loop=True, speed=10, shift_to_now=True), stop_after=7)

    assert clock.waits == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])


async def test_restart_without_a_state_file_takes_ids_above_all_earlier_ones(tmp_path: Path) -> None:
    """Ids of the second start are higher, since a process cannot play a million rounds per second."""
    path = write(tmp_path / "a.jsonl", rounds(2))
    options = {"path": str(path), "loop": True}

    before = ids(await played(replay(StoppedClock(1_800_000_000_000), **options), stop_after=500))
    after = ids(await played(replay(StoppedClock(1_800_000_000_001), **options), stop_after=500))

    assert max(before) < min(after)


async def test_restart_in_the_middle_of_a_pass_changes_no_round(tmp_path: Path) -> None:
    """With a state file the same rounds follow with the same ids and times, for a stop at any round."""
    path = write(tmp_path / "a.jsonl", rounds(3))
    whole = await played(replay(StoppedClock(1_800_000_000_000), path=str(path), loop=True), stop_after=12)

    for stop in range(1, 8):
        options = {"path": str(path), "loop": True, "state_file": str(tmp_path / f"state-{stop}")}
        first = await played(replay(StoppedClock(1_800_000_000_000), **options), stop_after=stop)
        second = await played(replay(StoppedClock(1_900_000_000_000), **options), stop_after=12 - stop)
        assert rounds_of(first + second) == rounds_of(whole)


async def test_round_that_was_not_confirmed_before_a_crash_comes_again_with_the_same_id(tmp_path: Path) -> None:
    """The log recognises the round by its id, also when no round was confirmed."""
    path = write(tmp_path / "a.jsonl", rounds(3))
    options = {"path": str(path), "loop": True, "state_file": str(tmp_path / "state")}

    lost = await played(replay(StoppedClock(1_800_000_000_000), **options), stop_after=5, confirm=False)
    again = await played(replay(StoppedClock(1_900_000_000_000), **options), stop_after=5)

    assert rounds_of(again) == rounds_of(lost)


async def test_malformed_line_is_rejected_in_the_first_pass_only(tmp_path: Path) -> None:
    """Otherwise a loop would fill the disk with the same line."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(rounds(1)) + b"broken\n" + jsonl(rounds(1, first=1)))
    rejects = tmp_path / "rejects"

    items = await played(replay(path=str(path), loop=True, rejects_file=str(rejects)), stop_after=9)

    assert [isinstance(item, Rejected) for item in items] == [False, True] + [False] * 7
    assert len(rejects.read_text().splitlines()) == 1


async def test_loop_without_a_round_to_play_is_refused(tmp_path: Path) -> None:
    """It would run for ever without a round, for instance when each line is malformed or not selected."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(jsonl(rounds(1)) + b"broken\n")

    with pytest.raises(SourceError, match="has no round that matches the options games, from and to"):
        await played(replay(path=str(path), loop=True, games="dice", rejects_file=str(tmp_path / "rejects")))


async def test_time_that_cannot_be_shifted_is_reported_with_its_round(tmp_path: Path) -> None:
    """A nonsensical time stops the run with one sentence."""
    path = write(tmp_path / "a.jsonl", [round_at(0), round_at(1, at_ms=300_000_000_000_000)])

    with pytest.raises(
        SourceError, match=r"round 100 of crash cannot be shifted in time: finished_at 2026-01-18T09:59"
    ):
        await played(replay(path=str(path), loop=True), stop_after=4)
