"""What one replay holds of the log: a page, the next one, and its share of what all replays may hold."""

import asyncio

import pytest

from relay.history.reading.budget import FEW
from relay.history.reading.pages import PAGE, LogChanged, Pages
from roundlog.log_errors import LogUnavailable
from tests.resume.replay_rig import Rig, turns

GAMES = frozenset({"crash", "dice"})


@pytest.fixture
async def rig() -> Rig:
    """A relay that has seen a log of 2,000 rounds."""
    return await Rig.filled(2000)


def held(rig: Rig) -> int:
    """Rounds that all replays of a relay may hold, less those that they could take now."""
    budget = rig.history.pages.held
    return budget._rounds - budget._free


async def test_next_page_is_read_while_one_is_held(rig: Rig) -> None:
    """It needs no second request, and takes the place of the first."""
    pages, generation = Pages(rig.history.pages), rig.hub.generation
    first = await pages.read(0, GAMES, generation)
    pages.read_ahead(first.covered_to, GAMES, generation)
    assert held(rig) == 2 * PAGE
    await turns(5)
    requests = rig.log.requests

    second = await pages.read(first.covered_to, GAMES, generation)

    assert rig.log.requests == requests
    assert (first.covered_to, second.covered_to) == (PAGE, 2 * PAGE)
    assert held(rig) == PAGE
    pages.drop()
    assert held(rig) == 0


async def test_page_read_ahead_for_another_position_is_discarded(rig: Rig) -> None:
    """The rest of a page may have been dropped: the replay continues from where it is."""
    pages, generation = Pages(rig.history.pages), rig.hub.generation
    pages.read_ahead(PAGE, GAMES, generation)
    await turns(5)

    stretch = await pages.read(125, GAMES, generation)

    assert [entry.sequence for entry in stretch.entries] == list(range(126, PAGE + 1))
    pages.release()
    assert held(rig) == 0


@pytest.mark.parametrize("ahead", [False, True], ids=["read now", "read ahead"])
async def test_page_of_an_earlier_generation_is_not_returned(rig: Rig, ahead: bool) -> None:
    """Its position means another place in the log that there is now; no share is lost with it."""
    pages, generation = Pages(rig.history.pages), rig.hub.generation
    if ahead:
        pages.read_ahead(0, GAMES, generation)
    rig.rebuild()

    with pytest.raises(LogChanged):
        await pages.read(0, GAMES, generation)

    assert held(rig) == 0


@pytest.mark.parametrize("by_game", [False, True], ids=["page", "page of each game"])
async def test_share_is_given_back_when_the_log_does_not_answer(rig: Rig, by_game: bool) -> None:
    """Also when the replay is cancelled: it may wait for long, and holds nothing meanwhile."""
    pages, generation = Pages(rig.history.pages), rig.hub.generation
    answering = asyncio.Event()

    async def page(start: int, *, limit: int, game: str | None = None) -> None:
        await answering.wait()
        raise LogUnavailable(f"no answer for {start}, {limit}, {game}")

    rig.log.page = page  # type: ignore[assignment, method-assign]
    reading: list[asyncio.Task[object]] = []
    for _ in range(2):
        read = pages.read_each({"crash": 0, "dice": 0}, generation) if by_game else pages.read(0, GAMES, generation)
        reading.append(asyncio.create_task(read))
        await turns(2)
        assert held(rig) == PAGE * (2 if by_game else 1)
        if len(reading) == 1:
            reading[0].cancel()
        else:
            answering.set()
        await asyncio.wait(reading)
        assert held(rig) == 0

    assert reading[0].cancelled()
    assert isinstance(reading[1].exception(), LogUnavailable)


async def test_pages_are_small_for_a_client_that_stalled_and_grow_again(rig: Rig) -> None:
    """Few rounds need no share; each page that the client takes in time doubles the next."""
    pages, generation = Pages(rig.history.pages), rig.hub.generation
    await pages.read(0, GAMES, generation)
    pages.shrink()
    pages.release()
    assert pages.is_few

    sizes = []
    for _ in range(3):
        stretch = await pages.read(0, GAMES, generation)
        sizes.append(len(stretch.entries))
        if len(sizes) == 1:
            assert held(rig) == 0
            pages.read_ahead(stretch.covered_to, GAMES, generation)
            assert held(rig) == 0, "nothing is read ahead for a slow client"
        pages.release()

    assert sizes == [FEW, 2 * FEW, 4 * FEW]
