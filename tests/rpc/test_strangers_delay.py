"""1,100 clients without a key, on both ports, do not delay a client with one, nor probes and metrics."""

import time
from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import urlsplit

import aiohttp
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from auth.key_secret import DEMO_KEY
from tests.clients.promptness import ATTEMPTS
from tests.network.streams import connected
from tests.rpc.conftest import GrpcRelay, StartRelay

pytestmark = [pytest.mark.service, pytest.mark.heavy]

STRANGERS: Final = 1100
WATCHES: Final = 900
"""Fewer than calls fit on a connection."""
ASKED: Final = 300
LEAST_S: Final = 0.005
"""The jitter of a machine: below it, a ratio says nothing of the relay."""


async def test_strangers_delay_nobody(start_relay: StartRelay) -> None:
    """The p99 of a good client, of probes and of scrapes is at most twice that without them."""
    async with start_relay() as relay, AsyncExitStack() as stack:
        quiet = await slowest(relay)
        http_port = urlsplit(relay.url).port
        for port in (http_port, relay.grpc_port):
            for _ in range(STRANGERS):
                await stack.enter_async_context(connected("127.0.0.1", port))
        channel = await stack.enter_async_context(aio.insecure_channel(relay.address))
        for _ in range(WATCHES):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=120)
            stack.callback(watch.cancel)
        await watch.read()
        for _ in range(ATTEMPTS):
            under = await slowest(relay)
            delayed = {path: under[path] for path in under if under[path] > 2 * max(quiet[path], LEAST_S)}
            if not delayed:
                break

    assert delayed == {}


async def slowest(relay: GrpcRelay) -> dict[str, float]:
    """Return the p99 of each path, in seconds, asked in turn."""
    took: dict[str, list[float]] = {path: [] for path in ("/api/games", "/readyz", "/healthz", "/metrics")}
    async with aiohttp.ClientSession(relay.url, headers={"X-API-Key": DEMO_KEY}) as client:
        for _ in range(ASKED):
            for path, times in took.items():
                began = time.perf_counter()
                async with client.get(path) as answer:
                    assert answer.status == 200
                    await answer.read()
                times.append(time.perf_counter() - began)
    return {path: sorted(times)[ASKED * 99 // 100] for path, times in took.items()}
