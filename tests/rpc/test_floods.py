"""Floods over HTTP/2, all at once: a client with a stream gets its rounds promptly, and memory is bounded."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import pytest

from bench._process import rss_bytes
from bench.hostile.attacker import KEY
from relay.http2 import FaultReason
from rounds import datastream_pb2 as pb
from tests.clients.program import Program
from tests.clients.promptness import ATTEMPTS, is_prompt
from tests.nats import NatsServer
from tests.relay.conftest import Publish, metric
from tests.relay.serving import Serving, serving
from tests.rpc.caller import Caller
from tests.waiting import until

pytestmark = [pytest.mark.service, pytest.mark.heavy]

ENDED: Final = (FaultReason.HEADERS, FaultReason.FRAMES, FaultReason.FLOW_CONTROL)
"""Those that come soon, however little of a turn each flood gets; the others are tested without sockets."""
NO_LIMITS: Final = {"RELAY_LIMITS_PRIVATE_LINKS_PER_S": "0", "RELAY_LIMITS_PRIVATE_REQUESTS_PER_MIN": "0"}
"""A limit of the key would end floods before they cost anything."""
ROUNDS: Final = 60
EVERY_S: Final = 0.02
MOST_BYTES: Final = 64 << 20
"""More than all that peers may cause, with what Python's allocator keeps."""


async def test_floods_delay_nobody(nats: NatsServer, publish: Publish) -> None:
    """They end the connections that send them; the good stream stays open."""
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(aiohttp.ClientSession())
        relay = await stack.enter_async_context(serving(nats.url, settings=NO_LIMITS))
        good = await stack.enter_async_context(Caller(f"127.0.0.1:{relay.grpc_port}", relay.key))
        call = await stack.enter_async_context(good.stream(pb.StreamByGameRequest(game_slug="crash")))
        numbers = iter(range(1, 10**6))
        quiet = await delays(call, publish, numbers)
        before = rss_bytes(relay.pid)
        await stack.enter_async_context(attacked(relay))
        for reason in ENDED:
            await until(partial(_has_ended, client, relay, reason), within_s=60)
        for _ in range(ATTEMPTS):
            under = await delays(call, publish, numbers)
            if is_prompt(under, quiet):
                break
        grown = rss_bytes(relay.pid) - before

    assert is_prompt(under, quiet), (sorted(quiet)[:: ROUNDS // 6], sorted(under)[:: ROUNDS // 6])
    assert grown < MOST_BYTES, grown


@asynccontextmanager
async def attacked(relay: Serving) -> AsyncIterator[None]:
    """Run all floods while the block runs."""
    command = [sys.executable, "-m", "tests.rpc.flooding", str(urlsplit(relay.url).port), str(relay.grpc_port)]
    program = await asyncio.to_thread(Program, command, env={KEY: relay.key})
    try:
        await asyncio.to_thread(program.wait_for, "^flooding$")
        yield
    finally:
        await asyncio.to_thread(program.stop)


async def delays(call: Any, publish: Publish, numbers: Any) -> list[float]:
    """Publish rounds at a steady rate; return how long each took to the stream."""
    sent: dict[int, float] = {}
    found = []

    async def send() -> None:
        for _ in range(ROUNDS):
            number = next(numbers)
            sent[number] = time.perf_counter()
            await publish("crash", number)
            await asyncio.sleep(EVERY_S)  # the rate of rounds

    sending = asyncio.create_task(send())
    async with asyncio.timeout(60):
        for _ in range(ROUNDS):
            round_ = await call.read()
            found.append(time.perf_counter() - sent[round_.round_id])
    await sending
    return found


async def _has_ended(client: aiohttp.ClientSession, relay: Serving, reason: FaultReason) -> bool:
    return await metric(client, relay.url, f'relay_http2_faults_total{{reason="{reason}"}}') > 0
