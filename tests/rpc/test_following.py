"""Clients that reconnect over gRPC when their relay ends: ``tail --via grpc`` and the samples."""

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import pytest

from auth.key_secret import DEMO_KEY
from relay.commands.client.follow import follow
from relay.commands.client.grpc import read_grpc
from relay.commands.client.target import OPEN, Interrupted, Target
from tests.network.ports import HeldPort
from tests.rpc.conftest import GrpcRelay, Publish, StartRelay
from tests.samples.program_samples import start

pytestmark = pytest.mark.service

EVERYTHING: Mapping[str, str] = {}
UNWANTED, WANTED = '{"point":"1.50"}', '{"point":"7.00"}'


def reading(target: Target, parameters: Mapping[str, str] = EVERYTHING) -> "aclosing[Any]":
    """One stream, closed at the end of the block."""
    messages: Any = read_grpc(None, target, parameters)
    return aclosing(messages)


@pytest.mark.parametrize("language", ["go", "javascript", "python"])
async def test_sample_whose_relay_ends_before_a_round_matches(
    start_relay: StartRelay, publish: Publish, language: str
) -> None:
    """It resumes after the cursor of the relay: rounds stored while there was no relay are printed."""
    held = HeldPort()
    port = held.number
    environment = {"GRPC_URL": f"127.0.0.1:{port}", "API_KEY": DEMO_KEY, "GAME": "crash", "MIN_POINT": "5"}
    async with start_relay(grpc={"port": port}, links={"retry_ms": 100}) as relay:
        sample = await asyncio.to_thread(start, f"grpc/{language}", environment)
        try:
            await relay.metric_becomes("relay_links", 1, within_s=90)
            await publish("crash", 1, extras=UNWANTED)
            await relay.metric_becomes("relay_head_sequence", 1)
        except BaseException:
            await asyncio.to_thread(sample.stop)
            raise
    try:
        await publish("crash", 2, extras=WANTED)
        async with start_relay(grpc={"port": port}):
            await publish("crash", 3, extras=WANTED)
            printed = await asyncio.to_thread(sample.wait_for, r"^\[crash\] Round (\d+)$", count=2)
    finally:
        await asyncio.to_thread(sample.stop)

    assert [match[1] for match in printed] == ["2", "3"]


async def test_tail_whose_relay_ends_before_a_round_matches(start_relay: StartRelay, publish: Publish) -> None:
    """The same for our own client."""
    held = HeldPort()
    port = held.number
    target = Target(f"grpc://127.0.0.1:{port}", DEMO_KEY, "crash")
    said: list[str] = []
    following: Any = follow(target, via="grpc", parameters={"min_point": "5"}, notify=said.append)
    async with aclosing(following) as rounds:
        async with start_relay(grpc={"port": port}, links={"retry_ms": 100}) as relay:
            first = asyncio.create_task(anext(rounds))
            await relay.metric_becomes("relay_links", 1)
            await publish("crash", 1, extras=UNWANTED)
            await relay.metric_becomes("relay_head_sequence", 1)
        await publish("crash", 2, extras=WANTED)
        async with start_relay(grpc={"port": port}):
            async with asyncio.timeout(30):
                seen = [await first]
                await publish("crash", 3, extras=WANTED)
                seen.append(await anext(rounds))

    assert [b'"round_id":2' in seen[0], b'"round_id":3' in seen[1]] == [True, True]
    assert any("draining" in sentence for sentence in said)


async def test_tail_has_a_cursor_before_its_first_round(relay: GrpcRelay, publish: Publish) -> None:
    """So that a stream that breaks before its first round loses none."""
    await publish("crash", 1)
    target = Target(f"grpc://{relay.address}", DEMO_KEY, "crash")
    async with reading(target) as messages:
        assert await anext(messages) == OPEN
        begun = await anext(messages)
    async with reading(target, {"last": "1"}) as messages:
        first = await anext(messages)

    assert begun.startswith(b'{"event":"begun","cursor":"')
    assert b'"round_id":1' in first


async def test_tail_waits_for_the_retry_delay(start_relay: StartRelay) -> None:
    """That of a full relay."""
    async with start_relay(links={"max_links": 1, "retry_ms": 5000}) as relay:
        target = Target(f"grpc://{relay.address}", DEMO_KEY, "crash")
        async with reading(target) as messages:
            await anext(messages)
            with pytest.raises(Interrupted) as broken:
                await anext(read_grpc(None, target, {}))

    assert broken.value.wait_s is not None
    assert broken.value.wait_s >= 5
    assert broken.value.cursor is None


async def test_tail_over_ipv6(start_relay: StartRelay, publish: Publish) -> None:
    """The brackets of the URL belong to the address."""
    try:
        held = HeldPort("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    port = held.number
    await publish("crash", 1)
    async with (
        start_relay(grpc={"host": "::1", "port": port}),
        reading(Target(f"grpc://[::1]:{port}", DEMO_KEY, "crash"), {"last": "1"}) as messages,
    ):
        first = await anext(messages)

    assert b'"round_id":1' in first
