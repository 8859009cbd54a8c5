"""Clients without a key on the gRPC port: what they may hold, and that nobody with a key is shut out."""

import asyncio
import socket
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from h2.config import H2Configuration
from h2.connection import H2Connection

from relay.rpc.keyless.open_calls import OpenCall
from relay.rpc.keyless.readiness import Readiness
from rounds import datastream_pb2 as pb
from tests.network.streams import connected
from tests.rpc.caller import SERVICE, WAIT_S, read_to_end, status_of
from tests.rpc.conftest import GrpcRelay, StartRelay
from tests.waiting import until

pytestmark = pytest.mark.service

SHORT_S: Final = 0.3
SERVING: Final = health_pb2.HealthCheckResponse.SERVING
HELD: Final = {
    f"/{SERVICE}/ListGames": StatusCode.UNAUTHENTICATED,
    f"/{SERVICE}/StreamAll": StatusCode.UNAUTHENTICATED,
    f"/{SERVICE}/Replay": StatusCode.UNAUTHENTICATED,
    "/grpc.health.v1.Health/Check": StatusCode.DEADLINE_EXCEEDED,
    "/grpc.health.v1.Health/List": StatusCode.DEADLINE_EXCEEDED,
    "/grpc.health.v1.Health/Watch": StatusCode.DEADLINE_EXCEEDED,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": StatusCode.DEADLINE_EXCEEDED,
}


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of this process do not share connections."""
    monkeypatch.setattr(aio, "insecure_channel", _apart(aio.insecure_channel))


def _apart(connect: Any) -> Any:
    def channel(address: str, options: Any = ()) -> Any:
        return connect(address, options=[*options, ("grpc.use_local_subchannel_pool", 1)])

    return channel


@pytest.mark.usefixtures("held")
async def test_strangers_do_not_shut_the_port(start_relay: StartRelay) -> None:
    """1,500 watches, 100 reflection streams and 300 idle connections: a client with a key gets in at once."""
    async with start_relay(links={"max_links": 20}) as relay, AsyncExitStack() as stack:
        async with relay.caller() as before:
            stream = before.call(pb.StreamAllRequest())
            await stream.initial_metadata()
            watches, reflections = await hold_calls(relay, stack)
            for each in range(300):
                idle = stack.enter_context(socket.create_connection(("127.0.0.1", relay.grpc_port)))
                if each % 2:
                    idle.sendall(preface())

            async with relay.caller() as good:
                assert (await good.ask(pb.ListGamesRequest(), timeout_s=5)).games
                async with good.stream(pb.StreamAllRequest()):
                    pass
            assert not stream.done()
            stream.cancel()

        ended = await asyncio.gather(*(read_to_end(call) for call in (*watches[:500], *reflections[:50])))
        assert not any(call.done() for call in (*watches[500:], *reflections[50:]))

    assert {status.code for _, status in ended if status} == {StatusCode.RESOURCE_EXHAUSTED}
    assert all(1000 <= int(status.trailers["retry-after-ms"]) <= 3000 for _, status in ended if status)


async def hold_calls(relay: GrpcRelay, stack: AsyncExitStack) -> tuple[list[Any], list[Any]]:
    """Open calls without a key, and wait until each has its first answer."""
    channels = [await stack.enter_async_context(aio.insecure_channel(relay.address)) for _ in range(2)]
    watches = []
    for number in range(1500):
        watch = health_pb2_grpc.HealthStub(channels[number % 2]).Watch(health_pb2.HealthCheckRequest(), timeout=120)
        watches.append(watch)
        if number % 250 == 249:
            await watch.read()
    await asyncio.gather(*(watch.read() for watch in watches[1000:] if watch not in watches[249::250]))
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    reflections = []
    for number in range(100):
        call = reflection_pb2_grpc.ServerReflectionStub(channels[number % 2]).ServerReflectionInfo(timeout=120)
        await call.write(ask)
        await call.read()
        reflections.append(call)
    return watches, reflections


@pytest.mark.parametrize(("path", "code"), HELD.items(), ids=[path.rpartition("/")[2] for path in HELD])
async def test_call_without_a_message(start_relay: StartRelay, path: str, code: StatusCode) -> None:
    """Without a key it is refused at once; where none is needed, it has the time for a request."""
    short = code is StatusCode.DEADLINE_EXCEEDED
    async with (
        start_relay(grpc={"request_s": SHORT_S if short else 60}) as relay,
        aio.insecure_channel(relay.address) as channel,
    ):
        with pytest.raises(aio.AioRpcError) as refused:
            await channel.stream_stream(path)(timeout=WAIT_S).read()

    assert refused.value.code() is code


async def test_call_with_a_key_and_without_a_message(start_relay: StartRelay) -> None:
    """It has the time for a request; a call that ends without one is malformed."""
    async with start_relay(grpc={"request_s": SHORT_S}) as relay, relay.caller() as caller:
        method = caller.channel.stream_unary(f"/{SERVICE}/ListGames")
        codes = []
        for closes in (False, True):
            call = method(metadata=caller.metadata, timeout=WAIT_S)
            if closes:
                await call.done_writing()
            with pytest.raises(aio.AioRpcError) as refused:
                await call
            codes.append(status_of(refused.value).code)

    assert codes == [StatusCode.DEADLINE_EXCEEDED, StatusCode.INVALID_ARGUMENT]


async def test_call_whose_time_is_over_gives_way_once() -> None:
    """It may be the oldest in its share while it ends."""
    calls = []

    async def too_long() -> None:
        async with asyncio.timeout(0) as deadline:
            calls.append(OpenCall("client", deadline, 0.0))
            try:
                await asyncio.Event().wait()
            finally:
                calls[0].shed()

    with pytest.raises(TimeoutError):
        await too_long()
    assert not calls[0].was_shed


async def test_idle_connections_end(start_relay: StartRelay) -> None:
    """One that does not begin HTTP/2, and one without calls."""
    async with start_relay(grpc={"request_s": 1, "idle_s": 1}) as relay:
        for greeting in (b"", preface()):
            async with asyncio.timeout(WAIT_S), connected("127.0.0.1", relay.grpc_port) as (reader, writer):
                writer.write(greeting)
                while await reader.read(1 << 16):
                    pass


async def test_watchers_share_one_look_at_readiness() -> None:
    """Each sees each change; with 50 watchers readiness is read as often as with one."""
    asked, obstacle = 0, "log_unavailable"

    def ask() -> str | None:
        nonlocal asked
        asked += 1
        return obstacle or None

    readiness = Readiness(ask)

    async def next_change() -> bool:
        with readiness.watched():
            await readiness.changed.wait()
            return readiness.is_ready

    watching = [asyncio.create_task(next_change()) for _ in range(50)]
    await until(lambda: asked >= 3)  # once at the start, and then at the interval
    obstacle = ""
    seen = await asyncio.gather(*watching)

    assert all(seen)
    assert asked <= 3 + 2 + 50  # each watcher reads the answer


@pytest.mark.parametrize(
    ("access", "without", "with_key"),
    [
        ("public", None, None),
        ("key", StatusCode.UNAUTHENTICATED, None),
        ("off", StatusCode.UNIMPLEMENTED, StatusCode.UNIMPLEMENTED),
    ],
)
async def test_reflection_asks_for_a_key_when_so_set(
    start_relay: StartRelay, access: str, without: StatusCode | None, with_key: StatusCode | None
) -> None:
    """Health never does, since platforms send none."""
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    async with start_relay(grpc={"reflection": access}) as relay, relay.caller() as caller:
        found = []
        for metadata in ((), caller.metadata):
            call = reflection_pb2_grpc.ServerReflectionStub(caller.channel).ServerReflectionInfo(
                iter([ask]), metadata=metadata, timeout=WAIT_S
            )
            try:
                found.append(None if (await call.read()).list_services_response.service else StatusCode.UNKNOWN)
            except aio.AioRpcError as error:
                found.append(error.code())
        answer = await health_pb2_grpc.HealthStub(caller.channel).Check(health_pb2.HealthCheckRequest())

    assert found == [without, with_key]
    assert answer.status == SERVING


def preface() -> bytes:
    h2 = H2Connection(H2Configuration(client_side=True))
    h2.initiate_connection()
    return h2.data_to_send()
