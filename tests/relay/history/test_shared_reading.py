"""Questions to the log that several readers ask: once for all of them, and never older than they may be."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from relay.history.reading import pages, shared_pages
from relay.history.reading.flight import Flight, Flights
from relay.history.reading.pages import PAGE
from roundlog.log_errors import LogUnavailable
from tests.resume.replay_rig import Rig, turns

CRASH = frozenset({"crash"})


@pytest.fixture
async def rig() -> Rig:
    """A relay that has seen a log of 1,200 rounds."""
    return await Rig.filled(1200)


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
    source, generation = rig.history.pages, rig.hub.generation

    first, second = await asyncio.gather(*(source.read(0, CRASH, generation=generation) for _ in range(2)))
    third = await source.read(0, CRASH, generation=generation)

    assert rig.log.requests == 1
    assert first.items()[0] is second.items()[0] is third.items()[0]


async def test_page_is_read_again_when_it_is_old(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deleted meanwhile is sent no longer."""
    monkeypatch.setattr(shared_pages, "_FRESH_S", -1)
    source, generation = rig.history.pages, rig.hub.generation
    await source.read(0, CRASH, generation=generation)
    rig.log.entries = [entry for entry in rig.log.entries if entry.sequence != 7]

    page = await source.read(0, CRASH, generation=generation)

    assert 7 not in [entry.sequence for entry in page.entries]


async def test_page_up_to_the_end_of_the_log_is_not_kept(rig: Rig) -> None:
    """More may follow at once."""
    source, generation = rig.history.pages, rig.hub.generation
    before = await source.read(1000, CRASH, generation=generation)
    rig.store()
    after = await source.read(1000, CRASH, generation=generation)

    assert (before.entries[-1].sequence, after.entries[-1].sequence) == (1200, 1201)


async def test_few_pages_are_kept(rig: Rig) -> None:
    """Those that were asked for last: memory is bounded."""
    source, generation = rig.history.pages, rig.hub.generation
    for position in range(0, 500, 50):
        await source.read(position, CRASH, generation=generation)
    requests = rig.log.requests

    await source.read(450, CRASH, generation=generation)
    assert rig.log.requests == requests
    await source.read(0, CRASH, generation=generation)
    assert rig.log.requests == requests + 1


async def test_page_whose_reader_has_left_serves_the_next_one(rig: Rig) -> None:
    """The log answers anyway. Clients that leave early would otherwise make as many requests as they are."""
    source, generation = rig.history.pages, rig.hub.generation
    for _ in range(100):
        reading = asyncio.create_task(source.read(0, CRASH, generation=generation))
        await turns(2)
        reading.cancel()
    await source.read(0, CRASH, generation=generation)

    assert rig.log.requests == 1


async def test_page_that_waits_for_its_turn_is_not_read_when_its_reader_has_left(rig: Rig) -> None:
    """And those that come later read it."""
    source, generation = rig.history.pages, rig.hub.generation
    async with source._turn_to_read(), source._turn_to_read():  # both turns are taken
        reading = asyncio.create_task(source.read(0, CRASH, generation=generation))
        await turns(2)
        reading.cancel()
        await turns(2)
    assert rig.log.requests == 0

    assert len((await source.read(0, CRASH, generation=generation)).entries) == PAGE


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
    """Readers that waited get the error; the next one asks again."""
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


async def test_few_answers_are_made_at_a_time(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds up to 1,000 rounds. The others wait, and not for ever: the log may have stopped answering."""
    monkeypatch.setattr(pages, "TURN_S", 0.05)
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(rig.history.answering())
        with pytest.raises(LogUnavailable, match="no turn to answer from history within"):
            await stack.enter_async_context(rig.history.answering())
    async with rig.history.answering():
        pass
