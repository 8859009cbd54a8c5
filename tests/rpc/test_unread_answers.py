"""Answers that clients of the gRPC port do not read: bounded, and others are answered when they are gone."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from grpc import StatusCode, aio

from relay import compose
from relay.admission.unread_answers import UnreadAnswers
from relay.errors import TooManyCalls
from rounds import datastream_pb2 as pb
from tests.network.streams import connected
from tests.relay.conftest import Publish
from tests.rpc.caller import SERVICE, status_of
from tests.rpc.conftest import GrpcRelay, StartRelay
from tests.rpc.envelopes import envelope
from tests.rpc.raw_calls import raw_calls

MB: Final = 1 << 20
PAGE: Final = pb.GetHistoryRequest(game_slug="crash", limit=500)


async def test_answers_are_counted_until_their_call_is_over() -> None:
    """One address may have half of all; the first answer is never refused."""
    unread, over = UnreadAnswers(200, retry_ms=lambda: 7), asyncio.Event()

    async def call(address: str, size: int) -> None:
        unread.count(address, size)
        await over.wait()

    async def refused(address: str, size: int) -> bool:
        task = asyncio.create_task(call(address, size))
        tasks.append(task)
        await asyncio.sleep(0)
        return task.done() and isinstance(task.exception(), TooManyCalls)

    tasks: list[asyncio.Task[None]] = []
    assert [await refused(address, 25) for address in ("1.1.1.1", "1.1.1.1", "1.1.1.1")] == [False, False, True]
    assert [await refused(address, 25) for address in ("2.2.2.2", "2.2.2.2", "3.3.3.3")] == [False, False, True]
    assert unread.total == 200
    over.set()
    await asyncio.wait(tasks)
    await asyncio.sleep(0)
    assert unread.total == 0
    assert not await refused("1.1.1.1", 1000)


@pytest.fixture
async def relay(start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch, publish: Publish) -> AsyncIterator[GrpcRelay]:
    """A relay whose gRPC clients may leave 4 MB unread, of each address 2 MB; a page of its history has 0.5 MB."""
    monkeypatch.setattr(compose, "held_bytes_limit", lambda: 8 * MB)
    async with start_relay() as running:
        await publish("crash", *range(500), extras='{"point":"2.50","more":"' + "x" * 1000 + '"}')
        yield running


@pytest.mark.service
async def test_unread_answers_are_refused_before_they_are_too_many(relay: GrpcRelay) -> None:
    """Of 60 calls that nobody reads, few are kept; after their connection has ended, a client gets its answer."""
    async with relay.caller() as good:
        async with AsyncExitStack() as stack:
            reader, writer = await stack.enter_async_context(connected("127.0.0.1", relay.grpc_port))
            writer.write(unread_calls(60))
            seen = b""
            while b"retry-after-ms" not in seen:  # trailers of one that is refused
                seen += await reader.read(1 << 16)
            with pytest.raises(aio.AioRpcError) as refused:
                await good.ask(PAGE)
            assert (await good.ask(pb.ListGamesRequest())).games  # small answers still fit
        status = status_of(refused.value)
        async with asyncio.timeout(20):
            while not await answered(good):
                pass

    assert status.code is StatusCode.RESOURCE_EXHAUSTED
    assert int(status.trailers["retry-after-ms"]) >= 0


async def answered(caller: Any) -> bool:
    try:
        return len((await caller.ask(PAGE)).rounds) == 500
    except aio.AioRpcError as error:
        if error.code() is StatusCode.RESOURCE_EXHAUSTED:
            return False
        raise


def unread_calls(count: int) -> bytes:
    """Return the bytes of calls whose answers have a window of 64 KB, and get no more."""
    return raw_calls(f"/{SERVICE}/GetHistory", envelope(PAGE), count=count)
