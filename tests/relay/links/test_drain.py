"""``stream-relay serve`` while it drains: what its clients, its platform and its operator see."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgspec
import pytest

from relay.live.following.feed import Feed
from tests.nats import NatsServer
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay
from tests.relay.event_stream import EventStream, stream
from tests.relay.serving import Serving, serving

pytestmark = pytest.mark.service

LINKS = 50
DEADLINE_S = 20.0
GRACE_S, SPREAD_S = 5.0, 2.0
GRACE = {"RELAY_DRAIN_GRACE_S": "5", "RELAY_DRAIN_MARGIN_S": "3", "RELAY_LINKS_RETRY_MS": "300"}

WebSocket = aiohttp.ClientWebSocketResponse


@pytest.fixture
async def many() -> AsyncIterator[aiohttp.ClientSession]:
    """A client without a limit of connections."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


@asynccontextmanager
async def links(
    client: aiohttp.ClientSession, relay: Serving
) -> AsyncIterator[tuple[list[WebSocket], list[EventStream]]]:
    """Open many links of both kinds."""
    headers = {"X-API-Key": relay.key}
    async with AsyncExitStack() as stack:
        opening = [
            stack.enter_async_context(client.ws_connect(f"{relay.url}/ws/crash", headers=headers)) for _ in range(LINKS)
        ]
        sockets = [await each for each in opening]
        streams = [
            await stack.enter_async_context(stream(client, f"{relay.url}/sse/crash", headers=headers))
            for _ in range(LINKS)
        ]
        yield sockets, streams


async def disconnect_of(ws: WebSocket) -> tuple[float, int, dict[str, Any]]:
    """Wait for the close frame; return when it came, its code and its reason."""
    while (message := await ws.receive(DEADLINE_S)).type is not aiohttp.WSMsgType.CLOSE:
        assert message.type is aiohttp.WSMsgType.TEXT
    return time.monotonic(), message.data, msgspec.json.decode(message.extra or "")


async def end_of(events: EventStream) -> tuple[float, dict[str, str]]:
    """Wait for the regular end of a stream; return when it came, and the fields of its last block."""
    last: dict[str, str] = {}
    while (block := await events.block_or_end()) is not None:
        last = dict(block.fields)
    return time.monotonic(), last


async def test_sigterm_ends_every_link_within_the_grace(
    nats: NatsServer, publish: Publish, many: aiohttp.ClientSession
) -> None:
    """Not ready at once; each link gets a reason, a delay and its cursor, at a time of its own; then exit 0."""
    async with serving(nats.url, settings=GRACE) as relay, links(many, relay) as (sockets, streams):
        [sequence] = await publish("crash", 1)
        cursors = {msgspec.json.decode(await ws.receive_str(timeout=DEADLINE_S))["cursor"] for ws in sockets}
        for events in streams:
            cursors.add((await events.round())["cursor"])
        began = time.monotonic()
        relay.signal(signal.SIGTERM)
        await relay.logged("drain_started")
        readiness = asyncio.create_task(reason_of(many, relay.url))
        disconnects, ends = await asyncio.gather(
            asyncio.gather(*(disconnect_of(ws) for ws in sockets)),
            asyncio.gather(*(end_of(events) for events in streams)),
        )
        code = await relay.exit_code()
        took_s = time.monotonic() - began

    [cursor] = cursors
    assert cursor.endswith(f"-{sequence}")
    assert await readiness == "draining"
    assert {(code, reason["reason"], reason["cursor"]) for _, code, reason in disconnects} == {
        (1012, "draining", cursor)
    }
    delays = [reason["retry_ms"] for _, _, reason in disconnects] + [int(last["retry"]) for _, last in ends]
    assert {last["id"] for _, last in ends} == {cursor}
    assert all(0 <= delay <= 300 for delay in delays)
    assert len(set(delays)) > LINKS / 2
    assert (code, took_s < GRACE_S) == (0, True), took_s
    for times in ([at - began for at, *_ in disconnects], [at - began for at, _ in ends]):
        assert min(times) < SPREAD_S / 3, "begins at once"
        assert max(times) > SPREAD_S / 2, "and takes its time"


async def reason_of(client: aiohttp.ClientSession, url: str) -> str:
    async with client.get(f"{url}/readyz") as probe:
        assert probe.status == 503
        return str((await probe.json())["reason"])


async def test_new_clients_during_a_drain(nats: NatsServer, many: aiohttp.ClientSession) -> None:
    """1012 and a delay on a WebSocket, 200 and a delay on an event stream: another relay answers them then."""
    async with serving(nats.url, RELAY_DRAIN_GRACE_S="20", RELAY_DRAIN_MARGIN_S="1") as relay:
        headers = {"X-API-Key": relay.key}
        async with AsyncExitStack() as stack:
            for _ in range(20):  # so that the drain has something to spread
                await stack.enter_async_context(stream(many, f"{relay.url}/sse", headers=headers))
            relay.signal(signal.SIGTERM)
            await relay.logged("drain_started")
            async with many.ws_connect(f"{relay.url}/ws/crash", headers=headers) as ws:
                _, code, reason = await disconnect_of(ws)
            async with many.get(f"{relay.url}/sse/crash", headers=headers) as response:
                text = await response.text()

    assert (code, reason["reason"]) == (1012, "draining")
    assert reason["retry_ms"] > 0
    assert (response.status, text.partition(" ")[0]) == (200, "retry:")


async def test_second_signal_ends_a_drain_at_once(nats: NatsServer, many: aiohttp.ClientSession) -> None:
    """The process is killed."""
    async with serving(nats.url, RELAY_DRAIN_GRACE_S="60", RELAY_DRAIN_MARGIN_S="1") as relay, links(many, relay):
        relay.signal(signal.SIGTERM)
        await relay.logged("drain_started")
        relay.signal(signal.SIGTERM)
        assert await relay.exit_code(within_s=20) == -signal.SIGTERM


async def test_client_that_ignores_its_disconnect_does_not_delay_the_exit(
    nats: NatsServer, many: aiohttp.ClientSession
) -> None:
    """A link whose client does not answer the close frame is cut when the grace is over."""
    async with (
        serving(nats.url, RELAY_DRAIN_GRACE_S="1", RELAY_DRAIN_MARGIN_S="1") as relay,
        many.ws_connect(f"{relay.url}/ws/crash", headers={"X-API-Key": relay.key}, autoclose=False),
    ):
        relay.signal(signal.SIGTERM)
        assert await relay.exit_code(within_s=20) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_idle_relay_ends_at_once(nats: NatsServer, number: signal.Signals) -> None:
    """Ctrl-C on a relay without clients does not wait for the grace."""
    async with serving(nats.url, RELAY_DRAIN_GRACE_S="60") as relay:
        relay.signal(number)
        assert await relay.exit_code(within_s=20) == 0


async def test_relay_without_nats_ends_at_once_too(nats: NatsServer) -> None:
    """The wait for NATS does not delay the exit."""
    await nats.kill()
    async with serving(nats.url, ready=False, RELAY_NATS_CONNECT_TIMEOUT_S="0.2") as relay:
        await relay.logged("log_unavailable")
        relay.signal(signal.SIGINT)
        assert await relay.exit_code(within_s=20) == 0


async def test_relay_ends_although_its_feed_swallows_a_cancellation(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connecting to NATS can swallow one; an interrupt at that moment used to leave the process running."""

    async def run(_: Feed) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(Feed, "run", run)
    started = asyncio.Event()

    async def interrupted() -> None:
        async with start_relay(ready=False):
            started.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(interrupted())
    await started.wait()
    task.cancel()
    await asyncio.wait([task], timeout=DEADLINE_S)
    assert task.cancelled()


async def test_client_resumes_at_the_next_relay(
    start_relay: StartRelay, many: aiohttp.ClientSession, nats: NatsServer, publish: Publish
) -> None:
    """The cursor of one relay's disconnect resumes at another: a deploy loses nothing."""
    async with (
        serving(nats.url, settings=GRACE) as relay,
        many.ws_connect(f"{relay.url}/ws/crash", headers={"X-API-Key": relay.key}) as ws,
    ):
        await publish("crash", 1)
        assert msgspec.json.decode(await ws.receive_str(timeout=DEADLINE_S))["round_id"] == 1
        relay.signal(signal.SIGTERM)
        _, _, reason = await disconnect_of(ws)
    await publish("crash", 2, 3)
    async with (
        start_relay() as url,
        many.ws_connect(f"{url}/ws/crash?after={reason['cursor']}", headers=KEY_HEADER) as ws,
    ):
        came = [msgspec.json.decode(await ws.receive_str(timeout=DEADLINE_S)) for _ in range(3)]

    assert (came[0]["event"], came[0]["complete"]) == ("hello", True)
    assert [round_["round_id"] for round_ in came[1:]] == [2, 3]
