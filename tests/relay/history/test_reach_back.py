"""A relay that has just started reads the rounds that clients missed once for all of them."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.live.item import Item
from relay.live.ring import Ring
from roundlog.entry import LogEntry
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.relay.conftest import KEY_HEADER, StartRelay, metric
from tests.resume.log_writer import LogWriter, make_round
from tests.resume.viewers import watch

GAMES = ("crash", "dice", "plinko")
RESUMED_FROM = 'relay_resumes_total{{source="{}"}}'


@given(
    games=st.lists(st.sampled_from(GAMES), min_size=12, max_size=40),
    begun_at=st.integers(0, 40),
    reached=st.lists(st.integers(0, 40), min_size=1, max_size=3),
    rounds_per_game=st.sampled_from([1, 2, 3, 5, 50]),
    wanted=st.sets(st.sampled_from(GAMES), min_size=1),
)
def test_memory_that_reached_back_answers_completely_or_not_at_all(
    games: list[str], begun_at: int, reached: list[int], rounds_per_game: int, wanted: set[str]
) -> None:
    """After any reach-back, the ring answers with all that the log holds or not at all; if it has room, it answers."""
    log = [Item("k1", LogEntry(number, game, b"x")) for number, game in enumerate(games, 1)]
    begun_at = min(begun_at, len(log))
    ring = Ring(rounds_per_game=rounds_per_game, bytes_per_game=1 << 20)
    ring.begin(begun_at)
    for item in log[begun_at:]:
        ring.append(item)
    for start in reached:
        if start < ring.begun_at:
            ring.reach_back(start, log[start : ring.begun_at])

    for position in range(len(log) + 1):
        expected = [item for item in log[position:] if item.game in wanted]
        found = ring.after(position, wanted, limit=100)
        assert found is None or found == expected
        if position >= ring.begun_at and rounds_per_game >= len(log):
            assert found is not None
    for game in GAMES:
        assert ring.last(game, rounds_per_game + 1) is None


@pytest.fixture
async def log(nats: NatsServer) -> AsyncIterator[LogWriter]:
    async with LogWriter.open(LogSettings(url=nats.url)) as writer:
        yield writer


@pytest.mark.service
async def test_many_clients_of_another_relay_cost_a_new_one_a_few_reads(
    log: LogWriter, start_relay: StartRelay, client: aiohttp.ClientSession
) -> None:
    """Each gets what it missed and then live rounds, with a few requests to NATS for all of them."""
    await log.store_many(make_round(game, number) for number in range(1, 301) for game in GAMES)
    async with start_relay() as url, asyncio.TaskGroup() as tasks:

        async def come_back(behind: int) -> None:
            async with watch(url, "", after=log.cursor(900 - behind)) as viewer:
                await viewer.until_rounds(behind)
                arrived.append(behind)
                if len(arrived) == 40:
                    everybody.set()
                await viewer.until_rounds(behind + 1)
                assert viewer.sequences == list(range(901 - behind, 902))
                assert viewer.events[0]["complete"]

        arrived: list[int] = []
        everybody = asyncio.Event()
        for number in range(40):
            tasks.create_task(come_back(100 + number))
        await everybody.wait()
        await log.store(make_round("crash", 301))
        assert await metric(client, url, "relay_log_requests_total") < 20
        assert await metric(client, url, RESUMED_FROM.format("memory")) == 40


@pytest.mark.service
async def test_history_of_a_new_relay_is_soon_answered_from_memory(
    log: LogWriter, start_relay: StartRelay, client: aiohttp.ClientSession
) -> None:
    """The first query for recent rounds has them read, for all games; the next need no request."""
    await log.store_many(make_round(game, number) for number in range(1, 301) for game in GAMES)
    async with start_relay() as url:
        first = [await _history(client, url, game) for game in GAMES]
        requests = await metric(client, url, "relay_log_requests_total")
        again = [await _history(client, url, game) for game in GAMES]

        assert first == again == [list(range(300, 200, -1))] * len(GAMES)
        assert await metric(client, url, "relay_log_requests_total") == requests


async def _history(client: aiohttp.ClientSession, url: str, game: str) -> list[int]:
    async with client.get(f"{url}/api/history/{game}?limit=100", headers=KEY_HEADER) as answer:
        return [round_["round_id"] for round_ in await answer.json()]


@pytest.mark.service
async def test_purged_rounds_are_a_gap_for_memory_too(log: LogWriter, start_relay: StartRelay) -> None:
    """Reach-back stops at the oldest round; clients that miss more get a gap."""
    await log.store_many(make_round("crash", number) for number in range(1, 201))
    await log.purge_up_to(120)
    async with start_relay() as url:
        for position, missing in ((150, []), (120, []), (50, [(50, 120)])):
            async with watch(url, "", after=log.cursor(position)) as viewer:
                await viewer.until_round(200)
            gaps = [(gap["from"], gap["to"]) for gap in viewer.gaps]
            assert gaps == [(log.cursor(begin), log.cursor(end)) for begin, end in missing]
            assert viewer.sequences == list(range(max(position, 120) + 1, 201))


@pytest.mark.service
async def test_a_cursor_of_long_ago_is_read_from_the_log(
    log: LogWriter, start_relay: StartRelay, client: aiohttp.ClientSession
) -> None:
    """Memory is not filled with the log for one client."""
    await log.store_many(make_round("crash", number) for number in range(1, 6001))
    async with start_relay() as url:
        async with watch(url, "", after=log.cursor(10)) as viewer:
            await viewer.until_round(6000)
            assert viewer.sequences == list(range(11, 6001))
        assert await metric(client, url, RESUMED_FROM.format("log")) == 1
        assert await metric(client, url, "relay_ring_rounds") == 0
