"""The server around the service: health, reflection, TLS, its port."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from auth.key_secret import DEMO_KEY
from relay.errors import StartError
from rounds import datastream_pb2 as pb
from tests.cli.command import assert_one_line, run
from tests.nats import NatsServer
from tests.rpc.caller import SERVICE, WAIT_S, Caller, read_to_end
from tests.rpc.certificates import Authority, Pair
from tests.rpc.conftest import GrpcRelay, Outliving, StartRelay

pytestmark = pytest.mark.service

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def channel(relay: GrpcRelay) -> AsyncIterator[aio.Channel]:
    async with aio.insecure_channel(relay.address) as open_channel:
        yield open_channel


# --- health --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_health_follows_readiness(channel: aio.Channel, nats: NatsServer, service: str) -> None:
    """A watcher sees the log become unavailable and available again. It needs no key: platforms send none."""
    stub = health_pb2_grpc.HealthStub(channel)
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)
    while (await watch.read()).status != SERVING:
        pass
    await nats.kill()
    assert (await watch.read()).status == NOT_SERVING
    await nats.start()
    assert (await watch.read()).status == SERVING
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)
    watch.cancel()

    assert answer.status == SERVING


@pytest.mark.parametrize("service", ["", SERVICE])
async def test_health_before_the_first_readiness(start_relay: StartRelay, nats: NatsServer, service: str) -> None:
    """A relay that has never reached its log is NOT_SERVING."""
    await nats.kill()
    async with start_relay(ready=False) as relay, aio.insecure_channel(relay.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service=service)
        first = await stub.Check(request, timeout=WAIT_S)
        watch = stub.Watch(request, timeout=WAIT_S)
        watched = [(await watch.read()).status]
        await nats.start()
        watched.append((await watch.read()).status)
        watch.cancel()
        all_ = await stub.List(health_pb2.HealthListRequest(), timeout=WAIT_S)

    assert first.status == NOT_SERVING
    assert watched == [NOT_SERVING, SERVING]
    assert all_.statuses[service].status == SERVING


async def test_health_of_an_unknown_service(channel: aio.Channel) -> None:
    """NOT_FOUND, as in the health protocol."""
    with pytest.raises(aio.AioRpcError) as failed:
        await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="nope"), timeout=WAIT_S)

    assert failed.value.code() is StatusCode.NOT_FOUND


# --- reflection ----------------------------------------------------------------------------------------------------


async def test_reflection_lists_and_describes_the_service(channel: aio.Channel) -> None:
    """The requests of grpcurl and similar tools, without a key."""
    request = reflection_pb2.ServerReflectionRequest
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    asked = iter([request(list_services=""), request(file_containing_symbol=SERVICE)])
    answers = [answer async for answer in stub.ServerReflectionInfo(asked, timeout=WAIT_S)]

    assert SERVICE in {service.name for service in answers[0].list_services_response.service}
    files = [FileDescriptorProto.FromString(data) for data in answers[1].file_descriptor_response.file_descriptor_proto]
    [service] = [service for file in files for service in file.service if service.name == "DataStream"]
    assert {method.name for method in service.method} >= {"StreamByGame", "GetLatest", "Replay"}


# --- TLS -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority", "stream-relay tests")


def files(pair: Pair, client_ca: Path | None = None) -> dict[str, object]:
    clients = {} if client_ca is None else {"tls_client_ca_file": client_ca}
    return {**pair.files, **clients}


def trusting(authority: Authority, pair: Pair | None = None) -> grpc.ChannelCredentials:
    """A client that trusts an authority and, with `pair`, presents a certificate."""
    if pair is None:
        return grpc.ssl_channel_credentials(authority.certificate.read_bytes())
    return grpc.ssl_channel_credentials(
        authority.certificate.read_bytes(), pair.key.read_bytes(), pair.certificate.read_bytes()
    )


async def serves(relay: GrpcRelay, credentials: grpc.ChannelCredentials | None) -> bool:
    """Whether a new connection succeeds."""
    key = relay.caller().metadata[0][1]
    async with Caller(relay.address, key, credentials, use_local_subchannel_pool=1) as calling:
        try:
            return bool((await calling.ask(pb.ListGamesRequest(), timeout_s=5)).games)
        except aio.AioRpcError as error:
            if error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED):
                return False
            raise


async def test_tls(start_relay: StartRelay, authority: Authority) -> None:
    """With a certificate the port accepts TLS only."""
    async with start_relay(grpc=files(authority.sign("relay"))) as relay:
        assert await serves(relay, trusting(authority))
        assert not await serves(relay, None)


async def test_mutual_tls(start_relay: StartRelay, authority: Authority, tmp_path: Path) -> None:
    """With a client authority, a client without a certificate of that authority is refused."""
    stranger = Authority(tmp_path / "stranger", "someone else")
    async with start_relay(grpc=files(authority.sign("relay"), authority.certificate)) as relay:
        assert await serves(relay, trusting(authority, authority.sign("client")))
        assert not await serves(relay, trusting(authority))
        assert not await serves(relay, trusting(authority, stranger.sign("client")))


async def test_client_authority_that_is_replaced(start_relay: StartRelay, authority: Authority, tmp_path: Path) -> None:
    """From the next handshake on, clients of the new authority are accepted and those of the old one are not."""
    fresh = Authority(tmp_path / "fresh", "the next authority")
    clients = tmp_path / "clients.pem"
    clients.write_bytes(authority.certificate.read_bytes())
    old, new = authority.sign("old-client"), fresh.sign("new-client")
    async with start_relay(grpc=files(authority.sign("relay"), clients)) as relay:
        assert await serves(relay, trusting(authority, old))
        assert not await serves(relay, trusting(authority, new))
        clients.write_bytes(fresh.certificate.read_bytes())
        assert await serves(relay, trusting(authority, new))
        assert not await serves(relay, trusting(authority, old))


async def test_renewed_certificate(start_relay: StartRelay, authority: Authority, tmp_path: Path) -> None:
    """Replaced files are used from the next handshake on; open streams continue."""
    other = Authority(tmp_path / "other", "another authority")
    pair = other.sign("relay")
    async with start_relay(grpc=files(pair)) as relay:
        key = relay.caller().metadata[0][1]
        async with (
            Caller(relay.address, key, trusting(other)) as calling,
            calling.stream(pb.StreamAllRequest()) as call,
        ):
            assert not await serves(relay, trusting(authority))
            pair.replace_by(authority.sign("renewed"))
            assert await serves(relay, trusting(authority))
            assert not call.done()


async def test_broken_renewal(start_relay: StartRelay, authority: Authority) -> None:
    """After a certificate is removed or half written, the last valid one is still used."""
    pair = authority.sign("breaks")
    async with start_relay(grpc=files(pair)) as relay:
        pair.key.write_text("half a k")
        assert await serves(relay, trusting(authority))
        pair.certificate.unlink()
        assert await serves(relay, trusting(authority))


async def test_invalid_certificate(start_relay: StartRelay, authority: Authority, tmp_path: Path) -> None:
    """The error names the file, before the relay listens."""
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    for pair in (Pair(tmp_path / "none.pem", tmp_path / "none.key"), Pair(broken, broken)):
        with pytest.raises(ExceptionGroup) as failed:
            async with start_relay(grpc=files(pair)):
                pass

        assert failed.group_contains(StartError, match=pair.certificate.name)


# --- port ----------------------------------------------------------------------------------------------------------


async def test_port_in_use(start_relay: StartRelay, relay: GrpcRelay) -> None:
    """A second relay on the same port does not start; the error names the setting."""
    with pytest.raises(ExceptionGroup) as failed:
        async with start_relay(grpc={"port": relay.grpc_port}):
            pass

    assert failed.group_contains(StartError, match="RELAY_GRPC_PORT")


async def test_relay_that_stops_while_health_is_watched(start_relay: StartRelay, outliving: Outliving) -> None:
    """A watcher does not delay the stop, and gets NOT_SERVING."""
    async with start_relay() as relay:
        watch = health_pb2_grpc.HealthStub(outliving(relay).channel).Watch(
            health_pb2.HealthCheckRequest(), timeout=WAIT_S
        )
        while (await watch.read()).status != SERVING:
            pass
    last, end = await read_to_end(watch)

    assert last[-1].status == NOT_SERVING
    assert end is not None
    assert end.code is StatusCode.UNAVAILABLE


@pytest.mark.parametrize("via", ["ws", "sse"])
async def test_tail_of_the_wrong_port(relay: GrpcRelay, via: str) -> None:
    """It ends with the relay's sentence."""
    url = f"http://127.0.0.1:{relay.grpc_port}"
    outcome = await asyncio.to_thread(run, "tail", "crash", "--via", via, BASE_URL=url, API_KEY=DEMO_KEY)

    assert_one_line(outcome, "this port speaks HTTP/2, for gRPC; REST, WebSocket and SSE are on the HTTP port")
