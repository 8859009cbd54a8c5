"""Readers of several keys: each gets its pages in turn, and who causes a read pays for it."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from relay.history.query import Query, is_over, look_back
from relay.history.reading.pages import PAGE
from relay.history.reading.payer import RELAY, Payer, Payers
from relay.history.start import Start
from relay.live.channels import Subscription
from roundlog.entry import Page
from rounds import Cursor, Filter
from tests.relay.history.test_payer import PRIVATE, PUBLIC, Bucket, Over
from tests.resume.replay_rig import Client, Rig, turns
from tests.waiting import until

CRASH = frozenset({"crash"})
ROUNDS = 6000
NOTHING = Filter(min_point=Decimal(10) ** 9)


class SlowLog:
    """Answers a request for a page when the test says so, oldest first."""

    def __init__(self, rig: Rig) -> None:
        self.answered: list[int] = []
        """The first sequence of each page that was answered."""
        self.waiting: list[tuple[int, asyncio.Event]] = []
        self._page = rig.log.page
        rig.log.page = self._late  # type: ignore[method-assign]

    async def answer(self, count: int = 1) -> None:
        for _ in range(count):
            start, event = self.waiting.pop(0)
            event.set()
            self.answered.append(start)
            await turns(12)

    async def _late(self, start: int, *, limit: int, game: str | None = None) -> Page:
        self.waiting.append((start, event := asyncio.Event()))
        await event.wait()
        return await self._page(start, limit=limit, game=game)


@pytest.fixture
async def rig() -> Rig:
    """A relay that has seen a log of 6,000 rounds and has the newest few in memory."""
    return await Rig.filled(ROUNDS)


@pytest.fixture
async def tasks() -> AsyncIterator[list[asyncio.Task[object]]]:
    """Tasks that are cancelled at the end of the test."""
    tasks = list[asyncio.Task[object]]()
    yield tasks
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def reading(rig: Rig, position: int, payer: Payer, *, limit: int = PAGE) -> "asyncio.Task[object]":
    page = rig.history.pages.read(position, CRASH, generation=rig.hub.generation, limit=limit, payer=payer)
    return asyncio.create_task(page)


def sent_by(rig: Rig) -> list[int]:
    """The sizes of the pages that the log sends from now on."""
    sent, page_of = list[int](), rig.log.page

    async def page(start: int, *, limit: int, game: str | None = None) -> Page:
        found = await page_of(start, limit=limit, game=game)
        if limit > 1:  # 1: a question
            sent.append(len(found.entries))
        return found

    rig.log.page = page  # type: ignore[method-assign]
    return sent


def question(payer: Payer, **members: object) -> Query:
    return Query(Subscription(CRASH, Filter()), limit=500, payer=payer, **members)  # type: ignore[arg-type]


# --- turns -------------------------------------------------------------------------------------------------------


async def test_page_of_another_key_does_not_wait_for_those_of_a_crowd(
    rig: Rig, tasks: list[asyncio.Task[object]]
) -> None:
    """300 readers of one key wait for their pages, all different; one of another key is read next, or beside them."""
    log, crowd, other = SlowLog(rig), Payer("crowd"), Payer("other")
    tasks += [reading(rig, position, crowd) for position in range(300)]
    await turns(10)
    await log.answer(10)

    page = reading(rig, 4321, other)
    await turns(10)

    assert len(log.waiting) == 3
    assert 4322 in [start for start, _ in log.waiting]
    tasks.append(page)


async def test_resume_of_another_key_gets_every_second_page(rig: Rig, tasks: list[asyncio.Task[object]]) -> None:
    """100 replays of one key read on and on. One of another key has its pages as soon as it asks for them."""
    log, crowd, client = SlowLog(rig), Payer("crowd"), Client()
    for number in range(100):
        start = Start(after=Cursor("k1", number))
        tasks.append(asyncio.create_task(rig.replay(Client(), start, payer=crowd).run()))
    await turns(50)
    await log.answer(20)
    before = len(log.answered)

    resume = asyncio.create_task(rig.replay(client, Start(after=Cursor("k1", 555)), payer=Payer("other")).run())
    while not resume.done():
        await turns(20)
        if log.waiting:
            await log.answer()

    assert len(client.rounds) == ROUNDS - 555
    asked = len(range(555, ROUNDS, PAGE))
    # Two questions where the log begins and ends, and for each page of one game, where the log begins.
    assert len(log.answered) - before < 5 * (asked + 2)


async def test_answers_of_another_key_do_not_wait_for_those_of_a_crowd(
    rig: Rig, tasks: list[asyncio.Task[object]]
) -> None:
    """500 requests for different pages of the past; one of another key is answered after a few of them."""
    log, crowd = SlowLog(rig), Payer("crowd")

    async def answered(before: int, payer: Payer) -> int:
        async with rig.history.answering(payer):
            return len((await look_back(rig.history, question(payer, before=Cursor("k1", before)))).items)

    tasks += [asyncio.create_task(answered(1000 + number, crowd)) for number in range(500)]
    await turns(20)
    await log.answer(10)
    before = len(log.answered)

    answer = asyncio.create_task(answered(5001, Payer("other")))
    while not answer.done():
        await turns(20)
        if log.waiting and not answer.done():
            await log.answer()

    assert await answer == 500
    assert len(log.answered) - before <= 8


async def test_questions_of_another_key_do_not_wait_for_those_of_a_crowd(
    rig: Rig, tasks: list[asyncio.Task[object]]
) -> None:
    """Where a time begins is asked for one key after another."""
    asked, answering = list[int](), asyncio.Event()

    async def since(moment_ms: int) -> int:
        asked.append(moment_ms)
        await answering.wait()
        return 1

    rig.log.since = since  # type: ignore[assignment, method-assign]
    history = rig.history
    tasks += [
        asyncio.create_task(history.position_at(at, payer=Payer("crowd"))) for at in range(10_000_000, 10_000_300)
    ]
    await turns(10)
    assert len(asked) == 2

    tasks.append(asyncio.create_task(history.position_at(99_000_000, payer=Payer("other"))))
    await turns(10)

    assert len(asked) == 3
    assert asked[-1] > 90_000_000
    answering.set()


async def test_reader_of_another_key_does_not_wait_in_the_turns_of_the_one_that_asked_first(
    rig: Rig, tasks: list[asyncio.Task[object]]
) -> None:
    """A crowd has asked for the page that another key wants: it is read when the turn of either comes."""
    log, crowd, other = SlowLog(rig), Payer("crowd", reads=(reads := Payers()._reads)), Payer("other", reads=reads)
    tasks += [reading(rig, position, crowd) for position in range(300)]
    await turns(10)

    tasks.append(reading(rig, 299, other))
    await turns(10)
    assert [start for start, _ in log.waiting][-1] == 300
    await log.answer(3)

    assert reads["other"] == PAGE, "it was its turn"


# --- who pays ----------------------------------------------------------------------------------------------------


async def test_who_causes_a_read_pays_for_it_and_who_finds_it_does_not(rig: Rig) -> None:
    """What the log sends counts, once, however many readers want it at nearly the same time."""
    payers = Payers()
    first, second = payers.of(PRIVATE, ""), payers.of(PUBLIC, "192.0.2.1")

    await asyncio.gather(reading(rig, 0, first), *(reading(rig, 0, second) for _ in range(5)))
    await reading(rig, 0, second)

    assert dict(payers.reads()) == {"server": PAGE}
    await reading(rig, PAGE, second)
    assert dict(payers.reads()) == {"server": PAGE, "page": PAGE}


async def test_reader_that_leaves_pays_for_what_it_has_caused(rig: Rig) -> None:
    """The log sends the page all the same. One whose turn had not come pays nothing: the page is not read for it."""
    payers, log = Payers(), SlowLog(rig)
    payer = payers.of(PRIVATE, "")
    sent = [reading(rig, 0, payer, limit=limit) for limit in (PAGE, 1000)]  # shared with others, and not
    waiting = reading(rig, 3000, payer)
    await turns(10)
    for task in (*sent, waiting):
        task.cancel()
    await turns(2)
    assert len(log.waiting) == 2

    while log.waiting:  # the page, and where the log begins
        await log.answer()

    assert all(task.cancelled() for task in sent)
    assert dict(payers.reads()) == {"server": PAGE + 1000}


async def test_reader_that_wants_the_page_of_one_that_has_left_does_not_pay_again(rig: Rig) -> None:
    payers, log = Payers(), SlowLog(rig)
    gone, later = reading(rig, 0, payers.of(PRIVATE, "")), reading(rig, 0, payers.of(PUBLIC, "192.0.2.1"))
    await turns(10)
    gone.cancel()
    while log.waiting:
        await log.answer()
    await later

    assert dict(payers.reads()) == {"server": PAGE}


async def test_replay_that_matches_nothing_pays_for_every_round(rig: Rig) -> None:
    """`min_point=1e9` reads the whole log and sends nothing."""
    payers, client, sent = Payers(), Client(), sent_by(rig)
    payer = payers.of(PRIVATE, "")

    await rig.replay(client, Start(after=Cursor("k1", 0)), filter_=NOTHING, payer=payer).run()

    assert client.rounds == []
    assert dict(payers.reads()) == {"server": sum(sent)}
    assert sum(sent) > ROUNDS - PAGE


async def test_query_that_matches_nothing_pays_for_every_round_that_was_read(rig: Rig) -> None:
    payers, sent = Payers(), sent_by(rig)

    await look_back(rig.history, Query(Subscription(CRASH, NOTHING), limit=10, payer=payers.of(PRIVATE, "")))

    assert dict(payers.reads()) == {"server": sum(sent)}
    assert sum(sent) > ROUNDS - PAGE


async def test_rounds_in_memory_cost_nothing(rig: Rig) -> None:
    payers, client = Payers(), Client()
    payer = payers.of(PRIVATE, "")

    assert rig.replay(client, Start(after=Cursor("k1", ROUNDS - 3)), payer=payer).begin()
    await look_back(rig.history, Query(Subscription(CRASH, Filter()), limit=3, payer=payer))

    assert dict(payers.reads()) == {}


async def test_first_that_needs_older_rounds_in_memory_pays_for_them(rig: Rig) -> None:
    """They are read once, for all that come from another relay."""
    rig = Rig(ring_rounds=5000)
    for _ in range(2000):
        rig.store()
    rig.hub.begin(rig.hub.bounds._replace(first=1, head=2000))  # as a relay that has just started
    payers = Payers()
    start = Start(after=Cursor("k1", 1700))
    replays = [
        rig.replay(Client(), start, payer=payer).run()
        for payer in (payers.of(PRIVATE, ""), *(payers.of(PUBLIC, f"192.0.2.{number}") for number in range(20)))
    ]

    await asyncio.gather(*replays)

    assert dict(payers.reads()) == {"server": PAGE}


# --- limits ------------------------------------------------------------------------------------------------------


async def test_request_over_the_limit_is_refused_where_it_needs_the_log(rig: Rig) -> None:
    """What is in memory, or was read a moment ago for another client, is answered."""
    bucket = Bucket()
    limited = Payer("limited", meter=bucket)
    await look_back(rig.history, question(RELAY, before=Cursor("k1", 3001)))
    bucket.closed_s = 3.0

    assert len((await look_back(rig.history, question(limited, before=Cursor("k1", 3001)))).items) == 500
    assert len((await look_back(rig.history, Query(Subscription(CRASH, Filter()), limit=3, payer=limited))).items) == 3
    with pytest.raises(Over, match="3"):
        await look_back(rig.history, question(limited, before=Cursor("k1", 1001)))
    assert bucket.charged == 0
    assert not await is_over(rig.history, question(limited, until_ms=1)), "the stream itself decides: it can wait"


async def test_replay_over_the_limit_waits_before_its_next_page(rig: Rig, tasks: list[asyncio.Task[object]]) -> None:
    """It reads nothing, holds nothing, and continues when it may."""
    bucket, client = Bucket(), Client()
    limited = Payer("limited", meter=bucket)
    running = asyncio.create_task(rig.replay(client, Start(after=Cursor("k1", 0)), payer=limited).run())
    tasks.append(running)
    await until(lambda: client.rounds)
    bucket.closed_s = 0.001
    charged = -1
    while charged != bucket.charged:  # pages that were under way
        charged = bucket.charged
        await turns(500)
    asked = bucket.asked
    await until(lambda: bucket.asked > asked + 2)

    assert bucket.charged == charged < ROUNDS
    assert rig.history.pages.held._free == rig.history.pages.held._rounds
    bucket.closed_s = 0.0
    await running
    assert len(client.rounds) == ROUNDS
