"""The gRPC port: TLS, clients that never finish a handshake, and no room."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from typing import Any, Final

import pytest
import uvloop
from structlog.testing import capture_logs

from relay.admission.held_bytes import HeldBytes
from relay.admission.strangers import FRESH_S, Share
from relay.config.sections import GrpcSettings
from relay.http2 import Http2Connections, Http2Limits
from relay.http2.guards.guarded_http2 import ConnectionGuards
from relay.http2.http2_frames import PREFACE, settings_frame
from relay.rpc.port.http2_port import listening_http2
from relay.turns import Turns
from tests.network.streams import connected
from tests.relay.http2.serving_streams import Streams
from tests.rpc.certificates import Authority, Pair
from tests.waiting import until

pytestmark = pytest.mark.service

LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
_OLD_S: Final = 2 * FRESH_S
"""The age of a connection that may give way to a new one."""
NewLoop = Callable[[], asyncio.AbstractEventLoop]

both_loops = pytest.mark.parametrize("new_loop", LOOPS.values(), ids=list(LOOPS))


class Port:
    """A port that serves while `serving` runs."""

    def __init__(self, *, most: int = 100) -> None:
        self.share = Share(most)
        self.connections = Http2Connections(Http2Limits())
        self.number = 0

    @asynccontextmanager
    async def serving(self, **settings: Any) -> AsyncIterator[None]:
        guards = ConnectionGuards(self.share, self.share, HeldBytes(1 << 20))
        service, closers = Streams(), list[Callable[[], None]]()
        chosen = GrpcSettings(host="127.0.0.1", port=0, **settings)
        async with listening_http2(chosen, service, self.connections, guards, Turns(), closers) as number:
            assert number is not None
            self.number = number
            yield
        self.connections.abort()
        await until(lambda: self.share.count == 0)

    def connect(self) -> socket.socket:
        """Connect without TLS; the kernel completes it."""
        client = socket.create_connection(("127.0.0.1", self.number))
        client.setblocking(False)
        return client

    async def first_bytes(self, context: ssl.SSLContext | None, sent: bytes = PREFACE + settings_frame({})) -> bytes:
        """Connect, send bytes and return all that comes in one piece, or before the end."""
        async with connected("127.0.0.1", self.number, context=context) as (reader, writer):
            writer.write(sent)
            return await reader.read(4096)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "authority", "stream-relay tests")


@pytest.fixture(scope="module")
def pair(authority: Authority) -> Pair:
    return authority.sign("relay")


def trusting(authority: Authority, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.certificate)
    if protocols:
        context.set_alpn_protocols([*protocols])
    return context


def run(new_loop: NewLoop, work: Any) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(asyncio.wait_for(work, 60))


@both_loops
def test_alpn(new_loop: NewLoop, authority: Authority, pair: Pair) -> None:
    """h2 is served. Without it HTTP/2 is refused with a code, and HTTP/1 with a sentence."""

    async def work() -> None:
        port = Port()
        async with port.serving(**pair.files):
            served = await port.first_bytes(trusting(authority, "h2", "http/1.1"))
            unnamed = await port.first_bytes(trusting(authority))
            older = await port.first_bytes(trusting(authority, "http/1.1"), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert served[3] == 4  # SETTINGS
        assert b"GOAWAY" not in served
        assert b"TLS without ALPN h2" in unnamed
        assert older.startswith(b"HTTP/1.1 505 ")

    run(new_loop, work())


@both_loops
def test_handshake_that_fails_is_logged(new_loop: NewLoop, authority: Authority, pair: Pair) -> None:
    """With the reason, which the client does not learn; once a second at most."""

    async def work() -> None:
        port = Port()
        with capture_logs() as logs:
            async with port.serving(**pair.files, tls_client_ca_file=authority.certificate):
                for _ in range(3):
                    with suppress(OSError):
                        await port.first_bytes(trusting(authority, "h2"))
                await until(lambda: any(entry["event"] == "tls_handshake_failed" for entry in logs))
        [entry] = [entry for entry in logs if entry["event"] == "tls_handshake_failed"]
        assert entry["error"] == "peer did not return a certificate"
        assert entry["address"] == "127.0.0.1"

    run(new_loop, work())


@both_loops
def test_clients_without_a_handshake_shut_nobody_out(new_loop: NewLoop, authority: Authority, pair: Pair) -> None:
    """Each has a place; the oldest is closed for the next client."""

    async def work() -> None:
        port = Port(most=10)
        async with port.serving(request_s=30, **pair.files):
            silent = [port.connect() for _ in range(10)]
            await until(lambda: port.share.count == 10)
            assert (await port.first_bytes(trusting(authority, "h2")))[3] == 4
            assert port.share.count <= 10
            assert port.share.shed >= 1
            assert silent[0].recv(1) == b""
            for client in silent:
                client.close()

    run(new_loop, work())


@both_loops
def test_handshake_gives_its_place_to_its_connection(new_loop: NewLoop, authority: Authority, pair: Pair) -> None:
    """Also where there is only one."""

    async def work() -> None:
        port = Port(most=1)
        async with port.serving(**pair.files):
            assert (await port.first_bytes(trusting(authority, "h2")))[3] == 4
            assert port.share.shed == 0

    run(new_loop, work())


@both_loops
def test_handshake_that_does_not_end(new_loop: NewLoop, pair: Pair) -> None:
    """It has the time for a request."""

    async def work() -> None:
        port = Port()
        async with port.serving(request_s=0.2, **pair.files):
            with closing(port.connect()) as silent:
                await until(lambda: port.share.count == 1)
                await until(lambda: port.share.count == 0)
                await until(lambda: _is_cut(silent))

    run(new_loop, work())


def _is_cut(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@both_loops
def test_no_room(new_loop: NewLoop) -> None:
    """While all connections are kept, a new one is closed at once, so that its client goes elsewhere."""

    async def work() -> None:
        port = Port(most=2)
        async with port.serving():
            with closing(port.connect()), closing(port.connect()):
                await until(lambda: port.share.count == 2)
                for member in [member for held in port.share._idle.values() for member in held]:
                    port.share.work(member)
                with closing(port.connect()) as late:
                    await until(lambda: _is_cut(late))
                assert port.share.shed == 0

    run(new_loop, work())


async def test_idle_connection_gives_way() -> None:
    """When it is not fresh any more."""
    port = Port(most=1)
    async with port.serving():
        with closing(port.connect()) as first:
            await until(lambda: port.share.count == 1)
            await asyncio.sleep(_OLD_S)
            assert (await port.first_bytes(None))[3] == 4
            await until(lambda: _is_cut(first))
