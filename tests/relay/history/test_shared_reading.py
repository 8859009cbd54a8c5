"""Questions to the log that several readers ask: once for all of them, and never older than they may be."""

import asyncio

import pytest

from relay.history.reading import shared_pages
from relay.history.reading.flight import Flight, Flights
from relay.history.reading.pages import PAGE
from tests.resume.replay_rig import Rig, turns

CRASH = frozenset({"crash"})


@pytest.fixture
async def rig() -> Rig:
    """A relay that has seen a log of 1,200 rounds."""
    rig = Rig()
    for _ in range(1200):
        rig.store()
    rig.hear()
    while rig.hub.head.sequence < 1200:
        await turns(1)
    return rig


class Question:
    """A question that is answered when the test says so."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = asyncio.Event()

    async def ask(self, flight: Flight[int]) -> int:
        flight.sent()
        self.asked += 1
        asked = self.asked
        await self.answer.wait()
        return asked


async def test_readers_of_one_page_share_it(rig: Rig) -> None:
    """One request for all that come within a second, and one item for each round: it is encoded once."""
    pages, generation = rig.history.pages, rig.hub.generation

    first, second = await asyncio.gather(*(pages.read(0, CRASH, generation=generation) for _ in range(2)))
    third = await pages.read(0, CRASH, generation=generation)

    assert rig.log.requests == 1
    assert first.items()[0] is second.items()[0] is third.items()[0]


async def test_page_is_read_again_when_it_is_old(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deleted meanwhile is sent no longer."""
    monkeypatch.setattr(shared_pages, "_FRESH_S", -1)
    pages, generation = rig.history.pages, rig.hub.generation
    await pages.read(0, CRASH, generation=generation)
    rig.log.entries = [entry for entry in rig.log.entries if entry.sequence != 7]

    page = await pages.read(0, CRASH, generation=generation)

    assert 7 not in [entry.sequence for entry in page.entries]


async def test_page_up_to_the_end_of_the_log_is_not_kept(rig: Rig) -> None:
    """More may follow at once."""
    pages, generation = rig.history.pages, rig.hub.generation
    before = await pages.read(1000, CRASH, generation=generation)
    rig.store()
    after = await pages.read(1000, CRASH, generation=generation)

    assert (before.entries[-1].sequence, after.entries[-1].sequence) == (1200, 1201)


async def test_few_pages_are_kept(rig: Rig) -> None:
    """Those that were asked for last: memory is bounded."""
    pages, generation = rig.history.pages, rig.hub.generation
    for position in range(0, 500, 50):
        await pages.read(position, CRASH, generation=generation)
    requests = rig.log.requests

    await pages.read(450, CRASH, generation=generation)
    assert rig.log.requests == requests
    await pages.read(0, CRASH, generation=generation)
    assert rig.log.requests == requests + 1


async def test_page_whose_reader_has_left_serves_the_next_one(rig: Rig) -> None:
    """The log answers anyway. Clients that leave early would otherwise make as many requests as they are."""
    pages, generation = rig.history.pages, rig.hub.generation
    for _ in range(100):
        reading = asyncio.create_task(pages.read(0, CRASH, generation=generation))
        await turns(2)
        reading.cancel()
    await pages.read(0, CRASH, generation=generation)

    assert rig.log.requests == 1


async def test_page_that_waits_for_its_turn_is_not_read_when_its_reader_has_left(rig: Rig) -> None:
    """And those that come later read it."""
    pages, generation = rig.history.pages, rig.hub.generation
    async with pages._turn_to_read(), pages._turn_to_read():  # both turns are taken
        reading = asyncio.create_task(pages.read(0, CRASH, generation=generation))
        await turns(2)
        reading.cancel()
        await turns(2)
    assert rig.log.requests == 0

    assert len((await pages.read(0, CRASH, generation=generation)).entries) == PAGE


async def test_answer_is_not_older_than_the_question() -> None:
    """All that ask while a question is under way share the next one, whose answer knows what was stored meanwhile."""
    question, flights = Question(), Flights()
    first = asyncio.create_task(flights.join("ends", question.ask))
    await turns(2)
    others = [asyncio.create_task(flights.join("ends", question.ask)) for _ in range(10)]
    await turns(2)
    question.answer.set()

    assert await first == 1
    assert await asyncio.gather(*others) == [2] * 10
    assert await flights.join("ends", question.ask) == 3
    await turns(2)
    assert (flights._asked, flights._next) == ({}, {})


async def test_answer_that_failed_is_asked_for_again() -> None:
    """Whoever waited gets the error; whoever comes later asks anew."""
    flights = Flights()

    async def fail(flight: Flight[int]) -> int:
        flight.sent()
        raise ValueError("no answer")

    with pytest.raises(ValueError, match="no answer"):
        await flights.join("ends", fail)
    question = Question()
    question.answer.set()
    assert await flights.join("ends", question.ask) == 1


async def test_reader_that_leaves_takes_no_answer_from_others() -> None:
    """Neither of a question under way, nor of the next one."""
    question, flights = Question(), Flights()
    readers = [asyncio.create_task(flights.join("ends", question.ask)) for _ in range(4)]
    await turns(2)
    readers[0].cancel()
    readers[1].cancel()
    await turns(2)
    question.answer.set()

    assert await asyncio.gather(*readers[2:]) == [2, 2]
