"""Replays write slices in turns by key; between two slices the loop does everything else."""

import asyncio

import pytest

from relay.history.reading import slice_turns
from relay.history.reading.payer import Payer
from relay.history.reading.slice_turns import SliceTurns
from tests.resume.replay_rig import turns

CROWD, OTHER = Payer("crowd"), Payer("other")


async def replay(slices: SliceTurns, payer: Payer, count: int, done: list[Payer]) -> None:
    for _ in range(count):
        async with slices.turn(payer):
            done.append(payer)


async def test_slices_of_another_key_do_not_wait_for_those_of_a_crowd() -> None:
    """A resume of a few pages is written as if it were alone."""
    slices, done = SliceTurns(), list[Payer]()
    crowd = [asyncio.create_task(replay(slices, CROWD, 1000, done)) for _ in range(300)]
    await turns(500)
    before = len(done)

    await replay(slices, OTHER, 20, done)

    assert done[before:].count(CROWD) <= 2
    for task in crowd:
        task.cancel()


async def test_a_turn_of_the_loop_has_one_slice_at_most() -> None:
    """Live rounds come between any two."""
    slices, done = SliceTurns(), list[Payer]()
    tasks = [asyncio.create_task(replay(slices, payer, 20, done)) for payer in (CROWD, OTHER, CROWD)]
    most, had = 0, 0
    while not all(task.done() for task in tasks):
        await turns(1)
        most, had = max(most, len(done) - had), len(done)

    assert had == 60
    assert most == 1


async def test_what_takes_several_turns_of_the_loop_is_done_between_two_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request to nats-server and back, or an answer, must not wait for a slice at each step."""
    monkeypatch.setattr(slice_turns, "_REST_AFTER_S", 0.0)  # as if each slice took long
    monkeypatch.setattr(slice_turns, "_REST_S", 60.0)
    slices, done = SliceTurns(), list[Payer]()
    crowd = [asyncio.create_task(replay(slices, CROWD, 1000, done)) for _ in range(10)]
    await turns(200)
    before = len(done)
    await turns(12)

    assert len(done) - before <= 2
    for task in crowd:
        task.cancel()


async def test_replay_that_leaves_passes_its_turn_on() -> None:
    """Whether it waited, or was just given it."""
    slices, done = SliceTurns(), list[Payer]()
    gone = [asyncio.create_task(replay(slices, CROWD, 1, done)) for _ in range(5)]
    for task in gone[1:]:
        await turns(1)
        task.cancel()
    async with asyncio.timeout(10):
        await replay(slices, OTHER, 3, done)

    assert done.count(OTHER) == 3
