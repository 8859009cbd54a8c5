"""Memory of clients that send half a request, or read no answer: bounded for all of them together."""

import asyncio
import gc
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from auth.key_secret import DEMO_KEY
from relay import compose
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, metric, metric_becomes
from tests.waiting import until

pytestmark = pytest.mark.service

MB: Final = 1 << 20
LIMIT: Final = 4 * MB
KEY: Final = f"X-API-Key: {DEMO_KEY}\r\n"
BETWEEN_READS_S: Final = 0.02
"""A whole answer then takes longer than two looks at what its connection holds."""
HEAD: Final = f"GET /api/games HTTP/1.1\r\nHost: x\r\n{KEY}".encode() + b"".join(
    b"X-%d: %s\r\n" % (number, b"x" * 7000) for number in range(8)
)
BODY: Final = (
    f"POST /api/grpc/datastream.DataStream/GetHistory HTTP/1.1\r\nHost: x\r\n{KEY}"
    f"Content-Type: application/json\r\nContent-Length: 65000\r\n\r\n{' ' * 60_000}"
).encode()
HISTORY: Final = f"GET /api/history/crash HTTP/1.1\r\nHost: x\r\n{KEY}\r\n".encode()
LATEST: Final = f"GET /api/latest/crash HTTP/1.1\r\nHost: x\r\n{KEY}\r\n".encode()
ATTACKS: Final = {"heads": HEAD, "bodies": BODY, "answers": HISTORY, "small answers": LATEST * 100}


@pytest.fixture
async def relay(start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch, publish: Publish) -> AsyncIterator[str]:
    """A relay with 0.6 MB of history, whose connections may hold 4 MB."""
    monkeypatch.setattr(compose, "held_bytes_limit", lambda: LIMIT)
    async with start_relay(limits={"private_requests_per_min": 10_000_000}) as url:
        await publish("crash", *range(500), extras='{"point":"2.50","more":"' + "x" * 1000 + '"}')
        yield url


async def attacked(stack: AsyncExitStack, url: str, request: bytes, count: int) -> None:
    """Send a request on each of `count` connections, and read nothing."""
    loop, port = asyncio.get_running_loop(), urlsplit(url).port
    for _ in range(count):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(client, ("127.0.0.1", port))
        await loop.sock_sendall(client, request)


@pytest.mark.parametrize("attack", ATTACKS)
async def test_clients_that_hold_bytes_are_closed_in_time(
    relay: str, client: aiohttp.ClientSession, attack: str
) -> None:
    """100 of them hold at most 4 MB together; a client at another address reads its answer meanwhile."""
    connector = aiohttp.TCPConnector(local_addr=("127.0.0.2", 0))
    async with AsyncExitStack() as stack, aiohttp.ClientSession(connector=connector, headers=KEY_HEADER) as good:
        await attacked(stack, relay, ATTACKS[attack], 100)

        async def some_are_closed() -> bool:
            return await metric(client, relay, "relay_held_shed_total") > 0

        await until(some_are_closed)
        for _ in range(5):
            async with good.get(f"{relay}/api/history/crash", headers={"Accept-Encoding": "identity"}) as answer:
                assert len(await answer.json()) == 500
            assert await metric(client, relay, "relay_held_bytes") <= LIMIT
    await metric_becomes(client, relay, "relay_held_bytes", 0)


async def test_answer_of_a_closed_connection_is_freed_at_once(relay: str, client: aiohttp.ClientSession) -> None:
    """It does not wait for Python's garbage collector, which looks at everything once in a long time."""
    gc.collect()
    gc.disable()
    try:
        async with AsyncExitStack() as stack:
            await attacked(stack, relay, HISTORY, 60)

            async def most_are_closed() -> bool:
                return await metric(client, relay, "relay_held_shed_total") >= 50

            await until(most_are_closed)
            sizes = [found.body_length for found in gc.get_objects() if isinstance(found, web.Response) and found.body]
    finally:
        gc.enable()

    assert sum(sizes) <= LIMIT


async def test_client_that_reads_slowly_is_not_closed(relay: str, client: aiohttp.ClientSession) -> None:
    """While there is room: its answer takes longer than several looks at what it holds."""
    async with client.get(f"{relay}/api/history/crash", headers=KEY_HEADER | {"Accept-Encoding": "identity"}) as answer:
        size = 0
        while piece := await answer.content.read(64 << 10):
            size += len(piece)
            await asyncio.sleep(BETWEEN_READS_S)

    assert size > MB // 2
    assert await metric(client, relay, "relay_held_shed_total") == 0
