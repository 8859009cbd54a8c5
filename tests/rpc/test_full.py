"""A full relay: each protocol is refused in its own way, and permits are freed for any protocol."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
from grpc import StatusCode

from auth.key_secret import DEMO_KEY
from relay import compose
from relay.admission import capacity
from relay.admission.capacity import Capacity
from relay.admission.open_files import FileShares
from rounds import datastream_pb2 as pb
from tests.rpc.caller import METHODS, read_to_end
from tests.rpc.certificates import Authority
from tests.rpc.conftest import GrpcRelay, Publish, StartRelay
from tests.rpc.envelopes import elements, end_status, envelope

pytestmark = pytest.mark.service

TEN: Final = Capacity(10, {"websocket": 1, "sse": 1, "proxy": 3, "grpc": 5})
CONNECT: Final = {"Content-Type": "application/connect+json"}
DEADLINE_S: Final = 20.0
FIT: Final = 2
"""Links that fit into an empty relay whatever their protocol."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay with capacity for two gRPC streams, or three streams of the proxy, or ten others."""
    monkeypatch.setattr(compose, "capacity_of", lambda *_, **__: TEN)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as session:
        yield session


async def open_sse(relay: GrpcRelay, http: aiohttp.ClientSession, stack: AsyncExitStack) -> Any:
    return await stack.enter_async_context(http.get(f"{relay.url}/sse/crash"))


async def open_websocket(relay: GrpcRelay, http: aiohttp.ClientSession, stack: AsyncExitStack) -> Any:
    return await stack.enter_async_context(http.ws_connect(f"{relay.url}/ws/crash"))


async def open_proxy(relay: GrpcRelay, http: aiohttp.ClientSession, stack: AsyncExitStack) -> Any:
    request = http.post(relay.proxy("StreamAll"), headers=CONNECT, data=envelope(b"{}"))
    return await stack.enter_async_context(request)


async def open_grpc(relay: GrpcRelay, _: aiohttp.ClientSession, stack: AsyncExitStack) -> Any:
    calling = await stack.enter_async_context(relay.caller())
    return await stack.enter_async_context(calling.stream(pb.StreamAllRequest()))


Open = Callable[..., Awaitable[Any]]
OPEN: Final[dict[str, Open]] = {
    "sse": open_sse,
    "websocket": open_websocket,
    "proxy": open_proxy,
    "grpc": open_grpc,
}
each_protocol = pytest.mark.parametrize("opened", OPEN.values(), ids=OPEN)


async def readiness(relay: GrpcRelay, http: aiohttp.ClientSession) -> tuple[int, str | None]:
    async with http.get(f"{relay.url}/readyz") as probe:
        return probe.status, (await probe.json()).get("reason")


async def test_full_relay_refuses_each_protocol_in_its_own_way(
    start_relay: StartRelay, http: aiohttp.ClientSession
) -> None:
    """One gRPC stream and one of the proxy fill it: all other links get a retry delay; REST still answers."""
    async with start_relay(links={"retry_ms": 700}) as relay, AsyncExitStack() as stack:
        await open_grpc(relay, http, stack)
        ready_before = await readiness(relay, http)
        await open_proxy(relay, http, stack)
        ready_after = await readiness(relay, http)
        async with http.get(f"{relay.url}/sse/crash") as sse:
            retry, delay = (await sse.text()).strip().split(": ")
        async with http.ws_connect(f"{relay.url}/ws/crash") as ws:
            close = await ws.receive(DEADLINE_S)
        async with http.post(relay.proxy("StreamAll"), headers=CONNECT, data=envelope(b"{}")) as refused:
            [(_, end)] = elements(await refused.read())
        async with relay.caller() as calling:
            refusal = await calling.failure(pb.StreamAllRequest())
            replay = await calling.failure(pb.ReplayRequest())
            answer = await calling.ask(pb.ListGamesRequest())
        async with http.get(f"{relay.url}/api/games") as rest:
            games = await rest.json()
        links = [await relay.metric(name) for name in ("relay_links", "relay_links_max", "relay_ready")]

    assert (ready_before, ready_after) == ((200, None), (503, "capacity"))
    assert (sse.status, sse.content_type, retry) == (200, "text/event-stream", "retry")
    reason = msgspec.json.decode(close.extra or "")
    assert (close.type, close.data, reason["reason"]) == (aiohttp.WSMsgType.CLOSE, 1013, "capacity")
    proxied = end_status(end)
    assert proxied is not None
    assert proxied.code is refusal.code is replay.code is StatusCode.RESOURCE_EXHAUSTED
    trailers = [each.trailers["retry-after-ms"] for each in (proxied, refusal, replay)]
    assert all(700 <= int(text) <= 2100 for text in (delay, reason["retry_ms"], *trailers))
    assert answer.games
    assert (rest.status, len(games)) == (200, len(answer.games))
    assert links == [2, 2, 0]


async def test_capacity_is_shared_by_all_protocols(start_relay: StartRelay, http: aiohttp.ClientSession) -> None:
    """Six event streams leave no capacity for a gRPC stream; after one of them has left, there is enough."""
    async with start_relay() as relay, AsyncExitStack() as stack:
        for _ in range(5):
            await open_sse(relay, http, stack)
        first_left = AsyncExitStack()
        await open_sse(relay, http, first_left)
        full = await readiness(relay, http)
        await first_left.aclose()
        await relay.metric_becomes("relay_ready", 1)
        await open_grpc(relay, http, stack)
        full_again = await readiness(relay, http)
        links = await relay.metric("relay_links")

    assert full == full_again == (503, "capacity")
    assert links == 6


# --- permits are freed ----------------------------------------------------------------------------------------------


async def is_empty(relay: GrpcRelay) -> None:
    """Wait until no link is open; then check that all of the capacity is free."""
    await relay.metric_becomes("relay_links", 0)
    assert await relay.metric("relay_links_max") == FIT


async def read_link(link: Any) -> None:
    """Read a link to its end."""
    async with asyncio.timeout(DEADLINE_S):
        if isinstance(link, aiohttp.ClientWebSocketResponse):
            async for _ in link:
                pass
        elif isinstance(link, aiohttp.ClientResponse):
            await link.read()
        else:
            await read_to_end(link)


@each_protocol
async def test_client_that_leaves_frees_its_permit(
    start_relay: StartRelay, http: aiohttp.ClientSession, opened: Open
) -> None:
    """All of its cost."""
    async with start_relay() as relay:
        async with AsyncExitStack() as stack:
            await opened(relay, http, stack)
            assert await relay.metric("relay_links") == 1
        await is_empty(relay)


@each_protocol
async def test_link_that_we_end_frees_its_permit(
    start_relay: StartRelay, http: aiohttp.ClientSession, opened: Open
) -> None:
    """By its age, here; all reasons end a link in the same way."""
    async with start_relay(links={"max_age_s": 1, "heartbeat_s": 0.1}) as relay, AsyncExitStack() as stack:
        await read_link(await opened(relay, http, stack))
        await is_empty(relay)
        assert await relay.metric('relay_links_closed_total{reason="max_age"}') == 1


@each_protocol
async def test_aborted_link_frees_its_permit(
    start_relay: StartRelay, http: aiohttp.ClientSession, publish: Publish, opened: Open
) -> None:
    """A client that does not read is ended as slow, and aborted when it does not read the end either."""
    async with (
        start_relay(links={"unsent_bytes": 16 << 10, "linger_s": 0.1}) as relay,
        AsyncExitStack() as stack,
    ):
        link = await opened(relay, http, stack)
        if isinstance(link, aiohttp.ClientResponse) and link.connection and link.connection.transport:
            link.connection.transport.pause_reading()
        sent = 0
        while await relay.metric("relay_links_slow_total") == 0:
            sent += 1
            await publish("crash", sent, extras=f'{{"point":"2.50","ballast":"{"x" * 200_000}"}}')
        await is_empty(relay)


async def test_stream_that_has_reached_its_end_takes_no_permit(
    start_relay: StartRelay, http: aiohttp.ClientSession, publish: Publish
) -> None:
    """An EventSource that reconnects to it gets 204."""
    await publish("crash", 1)
    async with start_relay() as relay:
        async with http.get(f"{relay.url}/api/latest/crash") as answer:
            cursor = (await answer.json())["cursor"]
        over = "to=2026-01-01T00:00:00Z"
        async with http.get(f"{relay.url}/sse/crash?{over}", headers={"Last-Event-ID": cursor}) as response:
            status = response.status
        await is_empty(relay)

    assert status == 204


async def test_call_for_an_unknown_game_frees_its_permit(relay: GrpcRelay, http: aiohttp.ClientSession) -> None:
    """The request is checked after the permit was taken: over gRPC and the proxy, for every kind of call."""
    requests = (pb.StreamByGameRequest(game_slug="nope"), pb.ReplayRequest(game_slugs=["nope"]))
    codes = []
    async with relay.caller() as calling:
        for request in requests:
            codes.append((await calling.failure(request)).code)
            proto = {"Content-Type": "application/connect+proto"}
            url = relay.proxy(METHODS[type(request)])
            async with http.post(url, headers=proto, data=envelope(request)) as response:
                [(_, end)] = elements(await response.read())
            refusal = end_status(end)
            assert refusal is not None
            codes.append(refusal.code)
    await is_empty(relay)

    assert codes == [StatusCode.NOT_FOUND] * 4


# --- from memory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_memory_of_the_container_decides(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, http: aiohttp.ClientSession, tls: bool
) -> None:
    """An empty relay reports how many of the most expensive links fit: gRPC, fewer over TLS; then of the open ones."""
    limit = tmp_path / "memory.max"
    limit.write_text(f"{512 << 20}\n")
    monkeypatch.setattr(capacity, "_CGROUP_FILES", (str(limit),))
    monkeypatch.setattr(compose, "capacity_of", capacity.capacity_of)
    monkeypatch.setattr(compose, "shared_files", lambda links: FileShares.of(1 << 20, links=links))
    grpc: dict[str, str] = {}
    if tls:
        pair = Authority(tmp_path / "authority", "test").sign("relay")
        grpc = {"tls_cert_file": str(pair.certificate), "tls_key_file": str(pair.key)}
    room = Capacity.of_memory(512 << 20, unsent_bytes=1 << 20, grpc_tls=tls)

    async with start_relay(grpc=grpc) as relay, AsyncExitStack() as stack:
        empty = await relay.metric("relay_links_max")
        await open_sse(relay, http, stack)
        with_one = await relay.metric("relay_links_max")

    assert (empty, with_one) == (room.fit("grpc"), room.fit("sse"))
