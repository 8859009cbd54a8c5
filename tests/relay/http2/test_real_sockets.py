"""Real sockets and foreign clients: curl, httpx, grpcio and a socket that does not read."""

import asyncio
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import grpc
import httpx
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from relay.http2 import Http2Code, Http2Connections, Http2Limits, Http2Protocol
from relay.links.intake import Intake
from relay.turns import Turns
from tests.clients.tools import tool
from tests.relay.http2.peers import REQUEST
from tests.relay.http2.serving_streams import Server, Streams, serving
from tests.rpc.certificates import Authority
from tests.waiting import until

pytestmark = pytest.mark.service

_BODY: Final = Random(3).randbytes(700_000)
_PINGS_S: Final = 1.0
"""Five pings."""


class FirstBytes:
    """What one port for several protocols does: looks at the first bytes, and gives the connection to the engine."""

    holds_reading = False

    def __init__(self, engine: Http2Protocol) -> None:
        self.intake: Intake
        self._engine = engine
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

    def data_received(self, data: bytes) -> None:
        self._seen += data
        if len(self._seen) >= 3:
            assert self._seen.startswith(b"PRI")
            self._engine.connection_made(self._transport)
            self.intake.put_back(self._seen)
            self.intake.hand_to(self._engine)

    def eof_received(self) -> bool:
        return False


async def test_connection_that_another_protocol_has_begun_to_read() -> None:
    """The engine takes it over with its first bytes."""
    turns, connections, service = Turns(), Http2Connections(Http2Limits()), Streams()

    def connection() -> Intake:
        first = FirstBytes(Http2Protocol(service, connections))
        first.intake = Intake(turns, first)
        return first.intake

    listener = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    async with listener:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/echo"
        async with httpx.AsyncClient(http1=False, http2=True, timeout=60) as client:
            answer = await client.post(url, content=_BODY)
        assert answer.content == _BODY
    await until(lambda: not len(connections))


@pytest.fixture(params=["uvloop", "asyncio"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(uses_uvloop=request.param == "uvloop") as started:
        yield started


def follow(channel: grpc.Channel) -> Any:
    """Call the method that streams; messages are bytes."""
    method = channel.unary_stream("/test/Follow", request_serializer=bytes, response_deserializer=bytes)
    return method(b"request")


def channel_to(server: Server) -> grpc.Channel:
    """Open a connection of its own."""
    return grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[("grpc.use_local_subchannel_pool", 1)])


def test_curl(server: Server, tmp_path: Path) -> None:
    """Large bodies in both directions; an answer that does not wait for the end of its request."""
    command = [tool("curl"), "-s", "--http2-prior-knowledge", "-w", "%{http_version} %{http_code}"]
    (tmp_path / "body").write_bytes(_BODY)
    command += ["--data-binary", f"@{tmp_path / 'body'}", "-o", str(tmp_path / "answer")]
    for path, said, answer in (("echo", b"2 200", _BODY), ("x", b"2 404", b"not found")):
        url = f"http://127.0.0.1:{server.port}/{path}"
        done = subprocess.run([*command, url], check=True, capture_output=True, timeout=60)

        assert done.stdout == said
        assert (tmp_path / "answer").read_bytes() == answer


def test_curl_over_tls(tmp_path: Path) -> None:
    """By ALPN, several requests at once."""
    curl, authority = tool("curl"), Authority(tmp_path / "ca", "test")
    pair = authority.sign("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    context.set_alpn_protocols(["h2"])
    (tmp_path / "body").write_bytes(_BODY)
    with serving(tls=context) as server:
        url = f"https://127.0.0.1:{server.port}/echo"
        outputs = [word for number in range(4) for word in ("-o", str(tmp_path / f"{number}"), url)]
        data = ["--data-binary", f"@{tmp_path / 'body'}"]
        subprocess.run([curl, "-sfZ", "--cacert", authority.certificate, *data, *outputs], check=True, timeout=60)

    assert all((tmp_path / f"{number}").read_bytes() == _BODY for number in range(4))


async def test_httpx(server: Server) -> None:
    """Fifty requests at once on one connection.

    They fit into its window: httpcore may wait for ever when several of its requests wait for a larger one.
    """
    url = f"http://127.0.0.1:{server.port}/echo"
    async with httpx.AsyncClient(http1=False, http2=True, timeout=60) as client:
        answers = await asyncio.gather(
            *(client.post(url, content=_BODY[number : 1000 + number]) for number in range(50))
        )

    assert [answer.content for answer in answers] == [_BODY[number : 1000 + number] for number in range(50)]


def test_grpc_streams(server: Server) -> None:
    """Each of ten streams gets each message: on connections of their own, and on one."""
    shared = channel_to(server)
    channels = [channel_to(server) for _ in range(5)]
    calls = [follow(channel) for channel in (*channels, *[shared] * 5)]
    for call in calls:
        assert dict(call.initial_metadata()) == {}
    sent = [b"%d:" % number + _BODY[number : number + number * 7 % 900] for number in range(3000)]
    for at in range(1000):
        server.call(server.service.write, sent[at])
    for at in range(1000, 3000, 100):
        server.call(server.service.write, *sent[at : at + 100])
    server.call(server.service.finish)

    for call in calls:
        assert list(call) == sent
        assert call.code() is grpc.StatusCode.OK
    for channel in (shared, *channels):
        channel.close()


def test_grpc_statuses(server: Server) -> None:
    """Those of trailers, those of HTTP, and messages in both directions before a reset."""
    with channel_to(server) as channel:
        call = follow(channel)
        assert dict(call.initial_metadata()) == {}
        server.call(server.service.write, b"only")
        server.call(server.service.finish, b"8")
        assert next(call) == b"only"
        with pytest.raises(grpc.RpcError, match=r"RESOURCE_EXHAUSTED.*\n.*done"):
            next(call)
        both = channel.stream_stream("/test/Echo", request_serializer=bytes, response_deserializer=bytes)
        sent = [_BODY[:1], b"", _BODY[:100_000], b"last"]
        echoes = both(iter(sent))
        assert list(echoes) == sent
        missing = channel.unary_unary("/test/No", request_serializer=bytes, response_deserializer=bytes)
        with pytest.raises(grpc.RpcError, match="UNIMPLEMENTED"):
            missing(b"")


async def test_grpc_client_that_cancels(server: Server) -> None:
    """The service learns its code; the other stream of the connection stays."""
    with channel_to(server) as channel:
        first, second = follow(channel), follow(channel)
        await until(lambda: len(server.service.followers) == 2)

        first.cancel()
        await until(lambda: server.service.lost == [Http2Code.CANCEL])
        server.call(server.service.write, b"alive")
        assert next(second) == b"alive"

    await until(lambda: server.service.followers == [])


async def test_client_that_does_not_read(server: Server) -> None:
    """What is unsent is known and kept within the windows; others are not delayed; its end frees it."""
    with socket.create_connection(("127.0.0.1", server.port)) as stuck, channel_to(server) as channel:
        client = H2Connection(H2Configuration(client_side=True))
        client.initiate_connection()
        client.send_headers(1, [*REQUEST[:2], (b":path", b"/test/Follow"), *REQUEST[3:]], end_stream=True)
        client.increment_flow_control_window(1 << 30)
        stuck.sendall(client.data_to_send())
        good = follow(channel)
        await until(lambda: len(server.service.followers) == 2)
        piece = _BODY[:50_000]
        for _ in range(200):
            server.call(server.service.write, piece)
            assert next(good) == piece

        assert server.unsent() > 9_000_000
        stuck_one = server.service.followers[0].stream
        server.call(stuck_one.abort)
        assert stuck_one.queued_bytes == 0


async def test_drain() -> None:
    """A gRPC client opens no more streams on the connection, and its stream gets the rest."""
    with serving(limits=Http2Limits(end_s=0.1)) as server, channel_to(server) as channel:
        call = follow(channel)
        await until(lambda: len(server.service.followers) == 1)
        server.call(server.service.write, b"first")
        assert next(call) == b"first"

        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(server.connections.leave(), server._loop))
        server.call(server.service.write, b"second")
        assert next(call) == b"second"
        again = follow(channel)
        await until(lambda: len(server.service.followers) == 2)
        assert server.call(len, server.connections) == 2
        server.call(server.service.finish)
        assert list(call) == []
        assert list(again) == []
        await until(lambda: len(server.connections) == 1)


async def test_keepalive_of_a_grpc_client() -> None:
    """A client answers our pings; one that pings too often is ended with the word that it knows."""
    with serving(limits=Http2Limits(keepalive_s=0.2, keepalive_timeout_s=5)) as server:
        with channel_to(server) as channel:
            call = follow(channel)
            await until(lambda: len(server.service.followers) == 1)
            await asyncio.sleep(_PINGS_S)
            server.call(server.service.write, b"alive")
            assert next(call) == b"alive"

        with socket.create_connection(("127.0.0.1", server.port)) as rude:
            client = H2Connection(H2Configuration(client_side=True))
            client.initiate_connection()
            for _ in range(4):
                client.ping(b"too many")
            rude.sendall(client.data_to_send())
            rude.settimeout(10)
            received = b""
            while data := rude.recv(4096):
                received += data
        assert received.endswith(b"too_many_pings")
