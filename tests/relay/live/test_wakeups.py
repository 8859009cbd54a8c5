"""Rounds that nobody watches wait, against a real nats-server: what clients get is as if each were read as it comes."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from relay.live.following.feed import Feed
from relay.live.following.wakeups import Wakeups
from roundlog.entry import LogEntry
from roundlog.stream import last_sequence
from tests.backends.harness import captured_events
from tests.nats import NatsServer
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, metric, metric_becomes
from tests.relay.live.test_feed import DEADLINE_S, link, make_anew, next_of, numbers, publish_stubbornly
from tests.roundlog.nats_wire import NatsWire
from tests.waiting import until

pytestmark = pytest.mark.service

_WAITS = "relay_live_rounds_wait"


@pytest.fixture(autouse=True)
def _eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait after a few rounds, and for as long as a test takes; look so seldom that only wake-ups deliver in time."""
    monkeypatch.setattr("relay.live.following.reading_rule._LEAST", 5)
    monkeypatch.setattr("relay.live.following.reading_rule._ENDS_BELOW", 0)
    monkeypatch.setattr("relay.live.following.reading_rule._ROUNDS_PER_WAKEUP", 0)
    monkeypatch.setattr("relay.live.following.wakeups._TAKE_S", 3600.0)
    monkeypatch.setattr("relay.live.following.feed._POLL_S", 3600.0)
    monkeypatch.setattr("relay.live.following.wakeups._PAUSE_S", (0.05, 0.1))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sequences that the feed was given, in order, by whatever way."""
    sequences, on_live = list[int](), Feed._on_live

    def note(self: Feed, entries: list[LogEntry]) -> None:
        sequences.extend(entry.sequence for entry in entries)
        on_live(self, entries)

    monkeypatch.setattr(Feed, "_on_live", note)
    return sequences


@asynccontextmanager
async def waiting(
    client: aiohttp.ClientSession, url: str, publish: Publish
) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """Open a link to ``crash``, and store rounds of ``dice`` until they wait."""
    async with link(client, url, "/ws/crash") as ws:
        await some_wait(client, url, publish)
        yield ws


async def some_wait(client: aiohttp.ClientSession, url: str, publish: Publish) -> None:
    async def is_waiting() -> bool:
        await publish("dice", 1)
        return await metric(client, url, _WAITS) == 1

    await until(is_waiting)


async def reaches(source: aiohttp.ClientWebSocketResponse, number: int) -> None:
    """Read up to a round. Earlier ones of its game may come before it: stored is not received, a link may be sooner."""
    while (read := await numbers(source, 1)) != [number]:
        assert read < [number]


async def test_watched_rounds_come_at_once_and_bring_the_others(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, taken: list[int]
) -> None:
    """Each sequence is read once and in order; rounds of other games only together with one that is watched."""
    async with start_relay() as url, waiting(client, url, publish) as ws:
        repaired = await metric(client, url, "relay_rounds_repaired_total")
        for number in range(1, 31):
            [unwatched] = await publish("dice", number)
            await asyncio.sleep(0)
            assert unwatched not in taken
            [watched] = await publish("crash", number)
            assert await numbers(ws, 1) == [number]
            assert taken[-1] == watched
        assert await metric(client, url, _WAITS) == 1
        assert await metric(client, url, "relay_rounds_repaired_total") == repaired

    assert taken == list(range(taken[0], watched + 1))


async def test_game_that_is_watched_from_now_on_wakes_too(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """By a new link, and by an open one that subscribes; before its subscription exists, all is read as it comes."""
    async with start_relay() as url, waiting(client, url, publish) as ws:
        async with link(client, url, "/ws/dice") as other:
            await publish("dice", 7)
            await reaches(other, 7)
            await metric_becomes(client, url, _WAITS, 1)
            await publish("dice", 8)
            assert await numbers(other, 1) == [8]
        await ws.send_json({"action": "subscribe", "games": ["plinko"]})
        assert (await next_of(ws))["event"] == "subscribed"
        await publish("plinko", 9)
        assert await numbers(ws, 1) == [9]
        await metric_becomes(client, url, _WAITS, 1)
        await publish("plinko", 10)
        await publish("crash", 11)
        assert await numbers(ws, 2) == [10, 11]


async def test_game_that_is_watched_again_while_its_subscription_ends_is_read(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has ended the subscription of a game that nobody watched, and has not answered yet."""
    monkeypatch.setattr("relay.live.following.wakeups._STALE", 1)
    has_asked, answers = asyncio.Event(), asyncio.Event()
    answers.set()

    async def asked(*arguments: Any) -> int:
        last = await last_sequence(*arguments)  # the server has done all that was asked before
        has_asked.set()
        await answers.wait()
        return last

    monkeypatch.setattr("relay.live.following.wakeups.last_sequence", asked)
    async with start_relay() as url, waiting(client, url, publish):
        async with link(client, url, "/ws/dice") as before:
            await publish("dice", 7)
            await reaches(before, 7)
            await metric_becomes(client, url, _WAITS, 1)
        await metric_becomes(client, url, "relay_links", 1)
        answers.clear()
        has_asked.clear()
        await publish("dice", 8)
        await has_asked.wait()
        async with link(client, url, "/ws/dice") as again:
            await publish("dice", 9)
            async with asyncio.timeout(DEADLINE_S / 3):  # the connection that is not read would be made again later
                await reaches(again, 9)
            answers.set()


async def test_rest_and_resumes_know_rounds_that_wait(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """What asks for rounds of games that nobody watches reads first what waits."""
    async with start_relay() as url, waiting(client, url, publish):
        await publish("dice", 77)

        async def latest() -> bool:  # stored is not received: nats-server sends it a moment later
            async with client.get(f"{url}/api/latest/dice", headers=KEY_HEADER) as answer:
                return bool((await answer.json())["round_id"] == 77)

        await until(latest)
        await publish("dice", 78)

        async def resumed() -> bool:
            async with link(client, url, "/ws/dice?last=1") as late:
                return bool((await next_of(late))["round_id"] == 78)

        await until(resumed)


async def test_rounds_come_when_nothing_wakes(
    start_relay: StartRelay,
    client: aiohttp.ClientSession,
    publish: Publish,
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second subscription loses what wakes: looking finds the rounds, and then nothing waits for a while."""
    monkeypatch.setattr("relay.live.following.wakeups._TAKE_S", 0.05)
    monkeypatch.setattr(Wakeups, "_on_wakeup", lambda _self, _entries: None)
    with captured_events() as events:
        async with start_relay() as url, waiting(client, url, publish) as ws:
            await publish("crash", 1)
            assert await numbers(ws, 1) == [1]
            await events.seen("wakeups_unavailable")
            assert await metric(client, url, _WAITS) == 0


@pytest.mark.parametrize("end", ["killed", "cut"])
async def test_rounds_stored_while_nats_is_away_come_when_it_is_back(
    start_relay: StartRelay,
    client: aiohttp.ClientSession,
    publish: Publish,
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
    end: str,
) -> None:
    """The end of a connection that is not read is noticed, also without a round."""
    monkeypatch.setattr("relay.live.following.wakeups._TAKE_S", 0.05)
    async with (
        NatsWire(nats).listening() as wire,
        start_relay(nats_url=wire.url) as url,
        waiting(client, url, publish) as ws,
    ):
        if end == "cut":
            wire.silence()
            wire.cut()
            await publish("crash", 1, 2)
            wire.restore()
        else:
            await nats.kill()
            await nats.start()
            await publish_stubbornly(nats.url, 1, 2)
        assert await numbers(ws, 2) == [1, 2]
        await metric_becomes(client, url, _WAITS, 0)
        await some_wait(client, url, publish)
        await publish("crash", 3)
        assert await numbers(ws, 1) == [3]


async def test_round_that_both_subscriptions_lose_is_read_from_the_log(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, nats: NatsServer
) -> None:
    """The next round shows the hole, whatever its game: no sequence goes unchecked."""
    async with (
        NatsWire(nats).listening() as wire,
        start_relay(nats_url=wire.url) as url,
        waiting(client, url, publish) as ws,
    ):
        await publish("crash", 1)
        assert await numbers(ws, 1) == [1]
        wire.loses = lambda subject, body: subject.startswith(b"live.") and b'"round_id":2,' in body
        await publish("crash", 2)
        await publish("dice", 3)
        await publish("crash", 4)
        assert await numbers(ws, 2) == [2, 4]
        assert wire.lost == 2
        assert await metric(client, url, "relay_rounds_repaired_total") >= 1


async def test_rebuilt_log_is_noticed_while_rounds_wait(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, nats: NatsServer
) -> None:
    """Its rounds come with cursors of the new log, and a client that uses cursors gets the gap first."""
    async with start_relay() as url, waiting(client, url, publish) as ws:
        await publish("crash", 1)
        old = await next_of(ws)
        await make_anew(nats)
        await publish("crash", 2, 3)
        new = [await next_of(ws) for _ in range(2)]

    assert [round_["round_id"] for round_ in new] == [2, 3]
    assert all(round_["cursor"].partition("-")[0] != old["cursor"].partition("-")[0] for round_ in new)


async def test_feed_without_listeners_leaves_no_second_connection(
    start_relay: StartRelay,
    client: aiohttp.ClientSession,
    publish: Publish,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When the last client has left, the subscription ends, and what it would have read is read by the next one."""
    monkeypatch.setattr("relay.live.following.feed._LINGER_S", 0.05)
    async with start_relay() as url, asyncio.timeout(DEADLINE_S):
        async with waiting(client, url, publish):
            pass
        await metric_becomes(client, url, _WAITS, 0)
        async with waiting(client, url, publish) as ws:
            await publish("crash", 5)
            assert await numbers(ws, 1) == [5]
