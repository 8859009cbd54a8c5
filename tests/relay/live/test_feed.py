"""The live feed against a real nats-server that is killed, cut off, slow, empty or new: every round, once, in order."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import msgspec
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError

from auth.key_secret import DEMO_KEY
from relay.live.following.feed import Feed
from roundlog.client.connection import connect
from roundlog.entry import LogEntry
from roundlog.live import LiveSubscription
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader
from roundlog.stream import open_log
from rounds import log_subject
from tests.nats import NatsServer, nats_client
from tests.network.streams import reset
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, make_round, metric, wait_ready
from tests.relay.event_stream import EventStream, stream
from tests.relay.raw_http import connection
from tests.roundlog.nats_wire import NatsWire, live_round
from tests.waiting import until

pytestmark = pytest.mark.service

DEADLINE_S = 30.0

WebSocket = aiohttp.ClientWebSocketResponse


@pytest.fixture
async def wire(nats: NatsServer) -> AsyncIterator[NatsWire]:
    """The relay's path to NATS; the tests' own publisher does not use it."""
    async with NatsWire(nats).listening() as laid:
        yield laid


@pytest.fixture
def quick_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare the log's tail with ours more often than in production."""
    monkeypatch.setattr("relay.live.following.feed._POLL_S", 0.2)


@asynccontextmanager
async def link(client: aiohttp.ClientSession, url: str, path: str = "/ws") -> AsyncIterator[WebSocket]:
    async with client.ws_connect(f"{url}{path}", headers=KEY_HEADER) as ws:
        yield ws


async def next_of(source: WebSocket | EventStream) -> dict[str, Any]:
    if isinstance(source, EventStream):
        return await source.round()
    message: dict[str, Any] = msgspec.json.decode(await source.receive_str(timeout=DEADLINE_S))
    return message


async def numbers(source: WebSocket | EventStream, count: int) -> list[int]:
    return [(await next_of(source))["round_id"] for _ in range(count)]


async def test_nats_killed_and_restarted_mid_stream(
    start_relay: StartRelay, client: aiohttp.ClientSession, nats: NatsServer
) -> None:
    """SIGKILL and a restart: links stay open, and every round arrives once, in order."""
    count = 200
    async with start_relay() as url, link(client, url) as ws, stream(client, f"{url}/sse") as sse:
        publishing = asyncio.create_task(publish_stubbornly(nats.url, *range(1, count + 1)))
        first = [await numbers(source, 50) for source in (ws, sse)]
        await nats.kill()
        await nats.start()
        rest = [await numbers(source, count - 50) for source in (ws, sse)]
        await publishing
        assert not ws.closed

    assert [first[n] + rest[n] for n in range(2)] == [list(range(1, count + 1))] * 2


async def publish_stubbornly(nats_url: str, *numbers: int) -> None:
    """Store rounds, each repeated until the log acknowledges it; the id prevents duplicates."""
    settings = LogSettings(url=nats_url)
    async with nats_client(settings) as nc:
        for number in numbers:
            await until(partial(stored, nc, number))


async def stored(nc: Client, number: int) -> bool:
    try:
        await nc.jetstream(timeout=1).publish(
            log_subject("crash"), make_round("crash", number).to_json(), headers={"Nats-Msg-Id": f"crash:{number}"}
        )
    except (NatsError, JetStreamError, OSError, TimeoutError):
        return False
    return True


async def test_round_lost_by_the_live_subscription_is_read_from_the_log(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, wire: NatsWire
) -> None:
    """The next round shows the hole, and is delivered after the lost one."""
    async with start_relay(nats_url=wire.url) as url, link(client, url) as ws:
        await settled(ws, publish)
        wire.loses = live_round(4)
        await publish("crash", 3, 4, 5)
        seen = await numbers(ws, 3)
        repaired = await metric(client, url, "relay_rounds_repaired_total")

    assert seen == [3, 4, 5]
    assert wire.lost == 1
    assert repaired >= 1


async def settled(ws: WebSocket, publish: Publish) -> None:
    """Deliver rounds 1 and 2: the feed then knows which log it follows."""
    for number in (1, 2):
        await publish("crash", number)
        assert await numbers(ws, 1) == [number]


async def test_lost_tail_is_found_without_a_later_round(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, wire: NatsWire, quick_poll: None
) -> None:
    """No hole shows when the last round is lost: the feed reads the log's tail every few seconds."""
    async with start_relay(nats_url=wire.url) as url, link(client, url) as ws:
        await settled(ws, publish)
        wire.loses = live_round(4)
        await publish("crash", 3, 4)
        seen = await numbers(ws, 2)

    assert seen == [3, 4]
    assert wire.lost == 1


async def test_round_stored_while_the_feed_starts_comes_at_once(
    start_relay: StartRelay,
    client: aiohttp.ClientSession,
    publish: Publish,
    nats: NatsServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is after the tail that was read, and before live rounds are used: it does not wait for the next poll."""
    monkeypatch.setattr("relay.live.following.feed._POLL_S", 3600)
    heard, on_live, newest = asyncio.Event(), Feed._on_live, LogReader.newest

    def hear(self: Feed, entries: list[LogEntry]) -> None:
        on_live(self, entries)
        heard.set()

    async def store_meanwhile(self: LogReader) -> list[LogEntry]:
        found = await newest(self)
        await publish("crash", 1)
        await heard.wait()
        return found

    monkeypatch.setattr(Feed, "_on_live", hear)
    monkeypatch.setattr(LogReader, "newest", store_meanwhile)
    async with connect(LogSettings(url=nats.url), name="operator") as nc:
        epoch = (await open_log(nc, LogSettings(url=nats.url))).epoch
    async with start_relay() as url, link(client, url, f"/ws?after={epoch}-0") as ws:
        assert (await next_of(ws))["event"] == "hello"
        assert await numbers(ws, 1) == [1]


async def test_client_that_leaves_while_the_feed_starts_leaves_no_subscription(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed was not started, so it is not stopped after its last listener either."""
    reading, unsubscribed, unsubscribe = asyncio.Event(), asyncio.Event(), LiveSubscription.unsubscribe

    async def read(_: LogReader) -> None:
        reading.set()
        await asyncio.get_running_loop().create_future()

    async def note(self: LiveSubscription) -> None:
        await unsubscribe(self)
        unsubscribed.set()

    monkeypatch.setattr(LogReader, "newest", read)
    monkeypatch.setattr(LiveSubscription, "unsubscribe", note)
    async with start_relay() as url, asyncio.timeout(DEADLINE_S):
        async with connection(url) as leaving:
            await leaving.send(f"GET /sse/crash HTTP/1.1\r\nHost: x\r\nX-API-Key: {DEMO_KEY}\r\n\r\n".encode())
            await reading.wait()
            reset(leaving.writer)
        await unsubscribed.wait()


async def test_rounds_of_a_long_outage_come_when_it_is_over(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, wire: NatsWire
) -> None:
    """More rounds than are read or parked at a time, also of a game without links: all come, in order."""
    async with start_relay(nats_url=wire.url) as url, link(client, url, "/ws/crash") as ws:
        wire.loses = lambda subject, _: subject.startswith(b"live.")
        for number in range(1, 1301):
            await publish("dice" if number % 4 == 0 else "crash", number)
        wire.loses = None
        await publish("crash", 1301)
        seen = await numbers(ws, 976)

    assert seen == [number for number in range(1, 1302) if number % 4]


@pytest.mark.parametrize("how", ["cut", "silence"])
async def test_rounds_stored_while_the_relay_is_cut_off(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, wire: NatsWire, how: str
) -> None:
    """The relay reads them from the log when it is connected again, before it delivers live rounds."""
    async with start_relay(nats_url=wire.url) as url, link(client, url) as ws:
        await publish("crash", 1)
        assert await numbers(ws, 1) == [1]
        wire.silence()
        if how == "cut":
            wire.cut()
        await publish("crash", 2, 3)
        wire.restore()
        await publish("crash", 4)
        assert await numbers(ws, 3) == [2, 3, 4]


async def test_rebuilt_log_is_noticed(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, nats: NatsServer, quick_poll: None
) -> None:
    """Its rounds are delivered with cursors of another epoch, though their sequences start at 1."""
    async with start_relay() as url, link(client, url) as ws:
        await publish("crash", 1, 2, 3)
        old = [await next_of(ws) for _ in range(3)]
        await make_anew(nats)
        await publish("crash", 4, 5)
        new = [await next_of(ws) for _ in range(2)]

    assert [round_["round_id"] for round_ in old + new] == [1, 2, 3, 4, 5]
    assert [round_["cursor"].partition("-")[2] for round_ in new] == ["1", "2"]
    assert old[0]["cursor"].partition("-")[0] != new[0]["cursor"].partition("-")[0]


async def test_rebuilt_log_that_is_longer_at_once_is_noticed(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, nats: NatsServer
) -> None:
    """Its first rounds are not skipped when it is longer than the old one at the first check."""
    async with start_relay() as url, link(client, url) as ws:
        await publish("crash", 1)
        assert await numbers(ws, 1) == [1]
        await make_anew(nats)
        await publish("crash", *range(2, 12))
        assert await numbers(ws, 10) == list(range(2, 12))


async def test_client_with_a_cursor_gets_a_gap_for_a_rebuilt_log(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, nats: NatsServer, quick_poll: None
) -> None:
    """It gets a gap before the new log's rounds."""
    async with start_relay() as url, link(client, url) as ws:
        await publish("crash", 1)
        cursor = (await next_of(ws))["cursor"]
        async with link(client, url, f"/ws?after={cursor}") as told:
            assert (await next_of(told))["event"] == "hello"
            await make_anew(nats)
            await publish("crash", 2)
            gap, round_ = await next_of(told), await next_of(told)

    assert (gap["event"], gap["from"], gap["reason"]) == ("gap", cursor, "rebuilt")
    assert round_["round_id"] == 2


async def test_missing_log_is_named(
    start_relay: StartRelay, client: aiohttp.ClientSession, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NATS is there and only the stream is missing: an operator must not look for a fault of the network."""
    monkeypatch.setattr("tests.relay.conftest.LogSettings", partial(LogSettings, create=False))
    async with start_relay(ready=False) as url:

        async def detail() -> str:
            async with client.get(f"{url}/readyz") as response:
                return str((await response.json()).get("detail", ""))

        assert await until(detail) == "stream 'ROUNDS' does not exist, and RELAY_NATS_CREATE is off"
        assert await not_ready(client, url) == "log_unavailable"
        await nats.kill()
        await until(lambda: _is_silent(detail))


async def _is_silent(detail: Callable[[], Awaitable[str]]) -> bool:
    return not await detail()


async def make_anew(nats: NatsServer) -> None:
    """Delete the log and rebuild it."""
    settings = LogSettings(url=nats.url)
    async with connect(settings, name="operator") as nc:
        await nc.client.jetstream().delete_stream(settings.stream)
        await open_log(nc, settings)


async def test_nats_down_at_start(start_relay: StartRelay, client: aiohttp.ClientSession, nats: NatsServer) -> None:
    """The relay listens and names what it waits for, refuses clients with a delay, and is ready once NATS is there."""
    await nats.kill()
    async with start_relay(ready=False) as url:
        await assert_refuses_for_now(client, url)
        await nats.start()
        await wait_ready(url)
        async with link(client, url) as ws:
            await publish_stubbornly(nats.url, 1)
            assert await numbers(ws, 1) == [1]


async def test_new_clients_while_nats_is_down(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish, nats: NatsServer
) -> None:
    """They are refused with a delay; open links stay, and miss nothing."""
    async with start_relay() as url, link(client, url) as ws:
        await publish("crash", 1)
        assert await numbers(ws, 1) == [1]
        await nats.kill()
        assert await not_ready(client, url) == "log_unavailable"
        await assert_refuses_for_now(client, url)
        assert not ws.closed
        await nats.start()
        await wait_ready(url)
        await publish_stubbornly(nats.url, 2)
        assert await numbers(ws, 1) == [2]
        async with link(client, url) as newcomer:
            await publish_stubbornly(nats.url, 3)
            assert await numbers(newcomer, 1) == await numbers(ws, 1) == [3]


async def test_nats_that_does_not_answer(
    start_relay: StartRelay, client: aiohttp.ClientSession, nats: NatsServer
) -> None:
    """Frozen with its connections open: a client that needs it is refused within a time limit."""
    async with start_relay() as url:
        nats.freeze()
        try:
            async with asyncio.timeout(DEADLINE_S), link(client, url) as ws:
                message = await ws.receive()
        finally:
            nats.thaw()
        async with link(client, url) as ws:
            await publish_stubbornly(nats.url, 1)
            assert await numbers(ws, 1) == [1]

    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1013)


async def not_ready(client: aiohttp.ClientSession, url: str) -> str:
    """Wait until the relay reports that it takes no clients; return why."""

    async def reason() -> str:
        async with client.get(f"{url}/readyz") as probe:
            return str((await probe.json())["reason"]) if probe.status == 503 else ""

    return await until(reason)


async def assert_refuses_for_now(client: aiohttp.ClientSession, url: str) -> None:
    """1013 on a WebSocket; 200, a delay and the end on an event stream; both probes answer accordingly."""
    async with link(client, url) as ws:
        message = await ws.receive(DEADLINE_S)
    async with client.get(f"{url}/sse/crash", headers=KEY_HEADER) as response:
        text = await response.text()
    async with client.get(f"{url}/healthz") as alive:
        pass

    reason = msgspec.json.decode(message.extra or "")
    assert (message.data, reason["reason"]) == (1013, "log_unavailable")
    assert reason["retry_ms"] > 0
    assert (response.status, text.startswith("retry: "), alive.status) == (200, True, 200)
    assert await not_ready(client, url) == "log_unavailable"
