"""gRPC on the HTTP port: the same port serves HTTP/1.1, WebSocket, event streams and calls."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
import grpc
import httpx
import pytest
from grpc import StatusCode, aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from structlog.testing import capture_logs

from auth.key_secret import DEMO_KEY
from relay.config.settings import InvalidSettings, load
from relay.http.connections import guarded
from relay.http2 import Http2Code
from relay.http2.header_blocks import header_block
from relay.http2.http2_frames import PREFACE, header_frames, ping_frame, reset_frame, settings_frame
from rounds import datastream_pb2 as pb
from tests.relay.conftest import Publish
from tests.relay.event_stream import stream
from tests.relay.raw_http import connection
from tests.rpc.caller import WAIT_S, Caller, read_to_end
from tests.rpc.certificates import Authority
from tests.rpc.conftest import GrpcRelay, StartRelay
from tests.waiting import until

pytestmark = pytest.mark.service

HTTP: Final = {"host": "127.0.0.1", "port": 0, "h2c": True}
KEY: Final = {"X-API-Key": DEMO_KEY}
_APART_S: Final = 0.01
"""Between two pieces of a request, so that they are mostly read one by one."""
SERVING: Final = health_pb2.HealthCheckResponse.SERVING


@pytest.fixture
async def relay(start_relay: StartRelay) -> AsyncIterator[GrpcRelay]:
    """A relay with one port."""
    async with start_relay(http=HTTP, grpc={"port": "off"}) as running:
        yield running


def caller(relay: GrpcRelay, **options: Any) -> Caller:
    return Caller(urlsplit(relay.url).netloc, DEMO_KEY, **options)


async def test_one_port_serves_every_protocol(relay: GrpcRelay, publish: Publish) -> None:
    """The same round by WebSocket, SSE and gRPC; unary calls, REST, health and reflection; there is no other port."""
    assert relay.grpc_port == 0
    async with caller(relay) as calling, aiohttp.ClientSession(headers=KEY) as http:
        stub = health_pb2_grpc.HealthStub(calling.channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest(), timeout=WAIT_S)).status == SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        reflected = reflection_pb2_grpc.ServerReflectionStub(calling.channel).ServerReflectionInfo(
            iter([ask]), timeout=WAIT_S
        )
        assert (await reflected.read()).list_services_response.service
        assert (await calling.ask(pb.ListGamesRequest())).games
        async with (
            calling.stream(pb.StreamByGameRequest(game_slug="crash")) as call,
            http.ws_connect(f"{relay.url}/ws/crash") as socket,
            stream(http, f"{relay.url}/sse/crash") as events,
        ):
            await publish("crash", 1)
            by_socket = await socket.receive_json(timeout=WAIT_S)
            by_event = await events.round()
            assert (await call.read()).round_id == by_socket["round_id"] == by_event["round_id"] == 1
        async with http.get(f"{relay.url}/api/latest/crash") as answer:
            assert (await answer.json())["round_id"] == 1
        await relay.metric_becomes("relay_links", 0)


async def test_connections_are_counted_as_those_of_http(relay: GrpcRelay) -> None:
    """A stranger, a guest and then a link, which is counted elsewhere."""

    async def groups() -> tuple[float, float]:
        names = ("strangers", "guests")
        strangers, guests = [await relay.metric(f'relay_connections{{group="{name}"}}') for name in names]
        return strangers, guests

    async def becomes(expected: tuple[float, float]) -> None:
        async def has() -> bool:
            return await groups() == expected

        await until(has)

    # Each look is a connection of a stranger itself.
    async with caller(relay) as calling:
        await calling.channel.channel_ready()
        await becomes((2, 0))
        assert (await calling.ask(pb.ListGamesRequest())).games
        await becomes((1, 1))
        async with calling.stream(pb.StreamAllRequest()):
            await becomes((1, 0))
        await becomes((1, 1))
    await becomes((1, 0))
    async with httpx.AsyncClient(http1=False, http2=True, base_url=relay.url) as client:
        assert (await client.get("/api/games", headers=KEY)).status_code == 200
        await becomes((1, 1))
    await becomes((1, 0))


async def test_other_requests_over_http2(relay: GrpcRelay, publish: Publish) -> None:
    """They have the same answers as over HTTP/1.1, however large, and with bodies of any form."""
    await publish("crash", *range(1, 1001), extras='{"point":"2.50","more":"' + "x" * 200 + '"}')
    two = httpx.AsyncClient(http1=False, http2=True, base_url=relay.url, headers=KEY, timeout=WAIT_S)
    one = httpx.AsyncClient(base_url=relay.url, headers=KEY, timeout=WAIT_S)
    json_body, proxy = {"game_slug": "crash"}, "/api/grpc/datastream.DataStream/GetLatest"
    async with one, two:
        for client, version in ((two, "HTTP/2"), (one, "HTTP/1.1")):
            answers = [await client.get(path) for path in ("/api/latest/crash", "/api/history/crash?limit=1000")]
            answers += [await client.get(path) for path in ("/healthz", "/no-such-path", "/ws/crash", "/openapi.json")]
            answers += [await client.post(proxy, json=json_body), await client.head("/healthz")]
            answers += [await client.post(proxy, content=_pieces(), headers={"content-type": "application/json"})]
            answers += [await client.get("/api/games", headers={"X-API-Key": "sk_live_nobody"})]
            wrong = ({"cookie": "a" * 9000}, {f"x-{number}": "1" for number in range(140)}, {"expect": "x"})
            answers += [await client.get("/api/games", headers=more) for more in wrong]
            token = await client.post("/api/auth/token")
            assert {answer.http_version for answer in (*answers[:10], token)} == {version}
            assert token.json().keys() == {"token", "expires_at"}
            found = [(answer.status_code, answer.content, _shown(answer)) for answer in answers]
            if client is two:
                over_http2 = found

    assert over_http2 == found
    assert [status for status, _, _ in found] == [200, 200, 200, 404, 426, 200, 200, 200, 200, 401, 431, 431, 417]
    assert len(found[1][1]) > 300_000


def _shown(answer: httpx.Response) -> dict[str, str]:
    of_connection = {"connection", "date", "transfer-encoding", "upgrade", "keep-alive", "x-ratelimit-remaining"}
    return {name: value for name, value in answer.headers.items() if name not in of_connection}


async def _pieces() -> AsyncIterator[bytes]:
    """A body without a length."""
    for piece in (b'{"game_', b"", b'slug":"cr', b'ash"}'):
        yield piece
        await asyncio.sleep(0)


async def test_event_streams_over_http2(relay: GrpcRelay, publish: Publish) -> None:
    """Many on one connection get each round, beside calls; one that its client leaves is closed."""
    async with httpx.AsyncClient(http1=False, http2=True, base_url=relay.url, headers=KEY, timeout=WAIT_S) as client:
        async with AsyncExitStack() as stack:
            streams = []
            for _ in range(10):
                answer = await stack.enter_async_context(client.stream("GET", "/sse/crash"))
                assert (answer.status_code, answer.http_version) == (200, "HTTP/2")
                lines = answer.aiter_lines()
                assert (await anext(lines)).startswith("retry: ")
                streams.append(lines)
            await relay.metric_becomes("relay_links", 10)
            assert (await client.get("/api/games")).status_code == 200
            await publish("crash", 1, 2)
            for lines in streams:
                data = [line async for line in _data(lines, 2)]
                assert ['"round_id":1,' in data[0], '"round_id":2,' in data[1]] == [True, True]
        assert (await client.get("/api/games")).status_code == 200
    await relay.metric_becomes("relay_links", 0)


async def test_answer_over_http2_that_is_not_read(
    start_relay: StartRelay, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cut as over HTTP/1.1, and its connection stays open."""
    monkeypatch.setattr(guarded, "_TAKEN_S", 0.1)
    await publish("crash", *range(500), extras='{"point":"2.50","more":"' + "x" * 1000 + '"}')
    async with start_relay(http=HTTP) as relay, connection(relay.url) as raw:
        await raw.send(PREFACE + settings_frame({}) + _get(1, b"/api/history/crash"))
        await raw.until(reset_frame(1, Http2Code.CANCEL))
        await raw.send(ping_frame(b"are you?", ack=False))
        await raw.until(b"are you?")


@pytest.mark.parametrize("kind", [b"application/grpc", b"Application/GRPC+proto", b"APPLICATION/grpc;charset=utf-8"])
async def test_media_types_of_calls_have_any_case(relay: GrpcRelay, kind: bytes) -> None:
    """As on the gRPC port."""
    fields = ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/none"), (b":authority", b"x"))
    request = header_frames(1, header_block((*fields, (b"content-type", kind))), ended=True)
    async with connection(relay.url) as raw:
        await raw.send(PREFACE + settings_frame({}) + request)
        await raw.until(b"there is no method '/none' here")


def _event_stream(stream_id: int) -> bytes:
    return _get(stream_id, b"/sse/crash")


def _get(stream_id: int, path: bytes) -> bytes:
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", path), (b":authority", b"x"))
    return header_frames(stream_id, header_block((*fields, (b"x-api-key", DEMO_KEY.encode()))), ended=True)


async def test_event_stream_over_http2_that_is_reset(relay: GrpcRelay) -> None:
    """Its link is closed, and the connection is not."""
    async with connection(relay.url) as raw:
        await raw.send(PREFACE + settings_frame({}) + _event_stream(1))
        await raw.until(b"retry: ")
        await relay.metric_becomes("relay_links", 1)
        assert await relay.metric('relay_connections{group="strangers"}') == 1  # that of this look
        assert await relay.metric('relay_connections{group="guests"}') == 0
        await raw.send(reset_frame(1, Http2Code.CANCEL) + ping_frame(b"are you?", ack=False))
        await raw.until(b"are you?")
        await relay.metric_becomes("relay_links", 0)


async def _data(lines: AsyncIterator[str], count: int) -> AsyncIterator[str]:
    async for line in lines:
        if line.startswith("data: "):
            yield line
            count -= 1
        if not count:
            return


async def test_event_stream_over_http2_that_is_not_read(start_relay: StartRelay, publish: Publish) -> None:
    """It is ended as slow, and its connection stays open."""
    async with start_relay(http=HTTP, links={"unsent_bytes": 64 << 10}) as relay, connection(relay.url) as raw:
        await raw.send(PREFACE + settings_frame({}) + _event_stream(1))
        await relay.metric_becomes("relay_links", 1)
        sent = 0
        while await relay.metric("relay_links_slow_total") == 0:
            sent += 1
            await publish("crash", sent, extras='{"ballast":"' + "x" * 50_000 + '"}')
            assert sent < 100
        await relay.metric_becomes("relay_links", 0)
        await raw.send(ping_frame(b"are you?", ack=False))
        await raw.until(b"are you?")


async def test_first_bytes_in_pieces(relay: GrpcRelay) -> None:
    """Of HTTP/2, and of a request whose method begins with the same letter."""
    async with connection(relay.url) as raw:
        for at in range(len(PREFACE)):
            await raw.send(PREFACE[at : at + 1])
            await asyncio.sleep(0)
        await raw.send(settings_frame({}))
        assert (await raw.until(b"\0\0\0\4\1\0\0\0\0"))[3] == 4  # our settings, and the answer to those of the client
    request = f"POST /api/auth/token HTTP/1.1\r\nHost: x\r\nX-API-Key: {DEMO_KEY}\r\n\r\n".encode()
    for cut in (1, 2):
        async with connection(relay.url) as raw:
            await raw.send(request[:cut])
            await asyncio.sleep(_APART_S)
            await raw.send(request[cut:])
            assert (await raw.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_upgrade_is_ignored(relay: GrpcRelay) -> None:
    """RFC 9113 section 3.1: the upgrade from HTTP/1.1 is obsolete. The request is answered as it is."""
    upgrade = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    async with connection(relay.url) as raw:
        await raw.send(f"GET /healthz HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n".encode())
        assert (await raw.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_preface_later_on_a_connection(relay: GrpcRelay) -> None:
    """It is no begin, but a request that is malformed."""
    async with connection(relay.url) as raw:
        await raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        await raw.until(b"\r\n\r\n")
        await raw.send(PREFACE)
        assert b" 400 Bad Request\r\n" in await raw.rest()


async def test_port_without_grpc(start_relay: StartRelay) -> None:
    """By default, HTTP/2 is malformed on the HTTP port."""
    async with start_relay(http=HTTP | {"h2c": False}) as relay, connection(relay.url) as raw:
        await raw.send(PREFACE)
        assert b" 400 Bad Request\r\n" in await raw.rest()


async def test_drain_of_one_port(start_relay: StartRelay) -> None:
    """Streams end with their status, and the connection after them."""
    async with asyncio.timeout(60):
        async with start_relay(http=HTTP, grpc={"port": "off"}) as relay:
            calling = caller(relay)
            call = calling.call(pb.StreamAllRequest())
            await call.initial_metadata()
        _, end = await read_to_end(call)
        assert end is not None
        assert (end.code, end.trailers["retry-after-ms"].isdigit()) == (StatusCode.UNAVAILABLE, True)
        with pytest.raises(aio.AioRpcError) as refused:
            await calling.ask(pb.ListGamesRequest(), timeout_s=5)
        assert refused.value.code() is StatusCode.UNAVAILABLE
        await calling.channel.close()


async def test_address_behind_a_proxy(start_relay: StartRelay) -> None:
    """That of the client, from a proxy that is trusted; as on the gRPC port."""
    http = HTTP | {"trusted_proxies": "127.0.0.0/8"}
    with capture_logs() as logs:
        async with start_relay(http=http) as relay:
            for calling in (caller(relay), relay.caller()):
                async with calling:
                    calling.metadata.append(("x-forwarded-for", "192.0.2.7"))
                    async with calling.stream(pb.StreamAllRequest()):
                        pass

    opened = [entry["address"] for entry in logs if entry["event"] == "link_opened"]
    assert opened == ["192.0.2.7"] * 2


async def test_tls_needs_no_other_port(relay: GrpcRelay) -> None:
    """A client of TLS on this port without TLS fails, and others do not notice."""
    async with Caller(urlsplit(relay.url).netloc, DEMO_KEY, grpc.ssl_channel_credentials()) as wrong:
        with pytest.raises(aio.AioRpcError) as failed:
            await wrong.ask(pb.ListGamesRequest(), timeout_s=2)
    assert failed.value.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
    async with caller(relay) as calling:
        assert (await calling.ask(pb.ListGamesRequest())).games


async def test_client_certificates_that_the_other_port_does_not_ask_for(
    start_relay: StartRelay, tmp_path: Path
) -> None:
    """The start warns of it."""
    pair, clients = Authority(tmp_path / "ours", "ours").sign("relay"), tmp_path / "ours" / "ca.pem"
    grpc_ = {**pair.files, "tls_client_ca_file": clients}
    for h2c in (True, False):
        with capture_logs() as logs:
            async with start_relay(http={**HTTP, "h2c": h2c}, grpc=grpc_):
                pass
        assert ("grpc_without_client_certificates" in {entry["event"] for entry in logs}) is h2c


def test_port_that_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The word is allowed for the gRPC port only, and an error names it."""
    monkeypatch.setenv("RELAY_GRPC_PORT", "off")
    assert load().grpc.port is None
    monkeypatch.setenv("RELAY_GRPC_PORT", "none")
    with pytest.raises(InvalidSettings, match="a whole number from 0 to 65535, or off"):
        load()
