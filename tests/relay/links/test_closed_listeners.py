"""A relay that drains closes its ports, so that balancers send clients to another relay; what is open stays open."""

import asyncio
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import grpc
import msgspec
import pytest

from relay.config.sections import DrainSettings
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.relay.conftest import Publish, wait_ready
from tests.relay.event_stream import stream
from tests.relay.links.balancers import haproxy, nginx
from tests.relay.serving import Serving, serving
from tests.waiting import until

pytestmark = pytest.mark.service

DEADLINE_S = 20.0
SLOWLY = {"RELAY_DRAIN_GRACE_S": "30", "RELAY_DRAIN_MARGIN_S": "1", "RELAY_GRPC_HOST": "127.0.0.1"}
QUICKLY = SLOWLY | {"RELAY_DRAIN_GRACE_S": "5"}
CLOSES_SOON = {"RELAY_DRAIN_ACCEPT_S": "0.2", "RELAY_HTTP_MONITOR_PORT": "0"}


@pytest.fixture
async def many() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that makes a connection for each request."""
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as session:
        yield session


@pytest.mark.parametrize(
    ("grace_s", "accept_s", "expected_s"), [(10, None, 2), (5, None, 1), (60, None, 2), (0, None, 0), (30, 7, 7)]
)
def test_default_leaves_time_for_routes_to_change(grace_s: float, accept_s: float | None, expected_s: float) -> None:
    """A fifth of the grace, at most 2 s, unless it is set."""
    assert DrainSettings(grace_s=grace_s, accept_s=accept_s).accepting_s == expected_s


def ports_of(relay: Serving) -> dict[str, Any]:
    [line] = [line for line in relay.printed if '"relay_listening"' in line]
    return dict(msgspec.json.decode(line))


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_ports_close_and_open_streams_stay(
    nats: NatsServer, publish: Publish, many: aiohttp.ClientSession
) -> None:
    """New connections are refused on both ports; open streams of each protocol get rounds, and end with a cursor."""
    async with serving(nats.url, settings=QUICKLY | CLOSES_SOON) as relay, AsyncExitStack() as stack:
        ports, headers = ports_of(relay), {"X-API-Key": relay.key}
        sockets = [
            await stack.enter_async_context(many.ws_connect(f"{relay.url}/ws/crash", headers=headers))
            for _ in range(30)
        ]
        events = await stack.enter_async_context(stream(many, f"{relay.url}/sse/crash", headers=headers))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{ports['grpc_port']}"))
        method: Any = channel.unary_stream(
            "/datastream.DataStream/StreamByGame", response_deserializer=pb.Round.FromString
        )
        request = pb.StreamByGameRequest(game_slug="crash").SerializeToString()
        calls = [method(request, metadata=(("x-api-key", relay.key),)) for _ in range(15)]
        for call in calls:
            await call.initial_metadata()
        relay.signal(signal.SIGTERM)
        await relay.logged("listeners_closed")

        for port in (int(relay.url.rpartition(":")[2]), ports["grpc_port"]):
            await until(partial(is_refused, port))
        monitor = f"http://127.0.0.1:{ports['monitor_port']}"
        async with many.get(f"{monitor}/healthz") as alive, many.get(f"{monitor}/readyz") as ready:
            assert (alive.status, ready.status) == (200, 503)
        async with many.get(f"{monitor}/metrics") as metrics:
            assert "relay_ready 0.0" in await metrics.text()
        with pytest.raises(grpc.aio.AioRpcError) as refused:  # on the connection that is open
            await method(request, metadata=(("x-api-key", relay.key),)).read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        [sequence] = await publish("crash", 7)
        got = [ws.receive(DEADLINE_S) for ws in sockets]
        texts = [message.data for message in await asyncio.gather(*got) if message.type is aiohttp.WSMsgType.TEXT]
        rounds = [text for text in texts if msgspec.json.decode(text)["round_id"] == 7]
        statuses = [await status_of(call, 7) for call in calls]
        block = await events.block_or_end()
        relay.signal(signal.SIGKILL)

    assert rounds, "some were still open"
    assert block is not None
    assert any(has_round for has_round, _ in statuses)
    assert {code for _, code in statuses} <= {"UNAVAILABLE"}
    assert sequence


async def test_relay_without_links_accepts_for_the_time_that_is_set(
    nats: NatsServer, many: aiohttp.ClientSession
) -> None:
    """A platform that still sends clients to it needs that time, however few links there are."""
    async with serving(nats.url, settings=SLOWLY | {"RELAY_DRAIN_ACCEPT_S": "2"}) as relay:
        relay.signal(signal.SIGTERM)
        await relay.logged("drain_started")
        async with stream(many, f"{relay.url}/sse/crash", headers={"X-API-Key": relay.key}) as events:
            assert await events.block_or_end() is None
        await relay.logged("listeners_closed")
        await relay.logged("drain_finished")


async def status_of(call: Any, round_id: int) -> tuple[bool, str]:
    """Read a call to its end; return whether the round came, and the status."""
    has_round = False
    async with asyncio.timeout(DEADLINE_S):
        with suppress(grpc.aio.AioRpcError):
            has_round = (await call.read()).round_id == round_id
            await call.read()
        keys = {key for key, _ in await call.trailing_metadata()}
    assert {"resume-cursor", "retry-after-ms"} <= keys
    return has_round, (await call.code()).name


async def test_kept_connections_close_after_an_answer(nats: NatsServer) -> None:
    """A balancer that keeps connections would send more requests on them."""
    async with serving(nats.url, settings=SLOWLY) as relay, aiohttp.ClientSession() as client:
        headers = {"X-API-Key": relay.key}
        async with client.get(f"{relay.url}/api/games", headers=headers) as response:
            assert response.headers.get("Connection") != "close"
        async with (
            stream(client, f"{relay.url}/sse", headers=headers),
            stream(client, f"{relay.url}/sse", headers=headers),
        ):
            relay.signal(signal.SIGTERM)
            await relay.logged("drain_started")
            async with client.get(f"{relay.url}/readyz") as response:
                assert (response.status, response.headers["Connection"]) == (503, "close")
            relay.signal(signal.SIGKILL)


@pytest.mark.parametrize("balancer", [nginx, haproxy])
async def test_balancer_sends_clients_to_the_other_relay(
    nats: NatsServer,
    many: aiohttp.ClientSession,
    tmp_path: Path,
    unused_tcp_port: int,
    balancer: Callable[..., AbstractContextManager[None]],
) -> None:
    """Once the ports are closed every client that comes gets the other relay, though that one has more connections."""
    async with serving(nats.url, settings=SLOWLY | CLOSES_SOON) as leaving, AsyncExitStack() as stack:
        own_key = {"RELAY_AUTH_KEYS": f"k={leaving.stored_key}"}
        staying = await stack.enter_async_context(serving(nats.url, settings=own_key))
        port, headers = unused_tcp_port, {"X-API-Key": leaving.key}
        stack.enter_context(balancer(tmp_path, port, [urlsplit(relay.url).netloc for relay in (leaving, staying)]))
        url = f"http://127.0.0.1:{port}"
        await until(lambda: not is_refused(port))
        await wait_ready(url)
        for _ in range(20):
            await stack.enter_async_context(stream(many, f"{url}/sse/crash", headers=headers))
        leaving.signal(signal.SIGTERM)
        await leaving.logged("listeners_closed")
        await until(lambda: is_refused(int(leaving.url.rpartition(":")[2])), within_s=DEADLINE_S)

        for _ in range(8):
            async with many.ws_connect(f"{url}/ws/crash", headers=headers) as ws:
                await ws.send_str('{"action":"ping"}')
                assert await ws.receive_json(timeout=DEADLINE_S) == {"event": "pong"}
            async with many.get(f"{url}/api/games", headers=headers) as response:
                assert response.status == 200
        leaving.signal(signal.SIGKILL)
