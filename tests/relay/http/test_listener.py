"""Accepting connections: within the share of strangers, few at a time, and without files."""

import asyncio
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Self, cast

import pytest
import uvloop
from structlog.testing import capture_logs

from relay.admission.strangers import FRESH_S, Share
from relay.http.connections.http_port import bound_socket
from relay.http.connections.listener import Listener
from relay.http.monitoring.exposition import listening_socket
from relay.turns import Turns
from tests.waiting import until

pytestmark = pytest.mark.service

both_loops = pytest.mark.parametrize(
    "loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
LoopFactory = Callable[[], asyncio.AbstractEventLoop]
OLD_S: Final = 3 * FRESH_S
"""Age at which a connection that was read is closed for another one."""
WITHOUT_FILES_S: Final = 0.5
"""Time in which a listener that spins would try thousands of times."""


class Echo(asyncio.Protocol):
    """A connection that sends back what it gets."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self.address = "client"
        self.idle_since = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # that of uvloop has another base
        self._share.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._share.leave(self)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def shed(self) -> None:
        self._transport.abort()


class Port:
    """A listener on a port of its own, with clients. Leaving the block closes all of them."""

    def __init__(self, *, most: int) -> None:
        self.share = Share(most)
        self.attempts = 0
        self._clients: list[socket.socket] = []
        self._connections: list[Echo] = []
        listening = Counting(self)
        listening.setblocking(False)
        self._address = listening.getsockname()
        self.turns = Turns()
        self.listener = Listener(listening, self._connection, strangers=self.share, turns=self.turns)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.listener.close()
        for connection in self._connections:
            connection.shed()
        await until(lambda: self.share.count == 0)
        for client in self._clients:
            client.close()
        await asyncio.sleep(0)  # uvloop closes its handles in the next turn

    def _connection(self) -> Echo:
        self._connections.append(connection := Echo(self.share))
        return connection

    def connect(self) -> socket.socket:
        """The kernel completes it; whether it is accepted is another question."""
        client = socket.create_connection(self._address)
        client.setblocking(False)
        self._clients.append(client)
        return client


class Counting(socket.socket):
    """A listening socket that counts how often it is asked."""

    def __init__(self, port: Port) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self._port = port
        self.bind(("127.0.0.1", 0))
        self.listen(4096)

    def accept(self) -> tuple[socket.socket, object]:
        self._port.attempts += 1
        return super().accept()


class Waiting:
    """The turns of a relay in which work from before now still waits."""

    def __init__(self, turns: Turns) -> None:
        self.ends = asyncio.Event()
        since, waited_since = asyncio.get_running_loop().time(), turns.waited_since
        turns.waited_since = lambda now: waited_since(now) if self.ends.is_set() else since  # type: ignore[method-assign]


async def echoed(client: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(client, b"x")
    async with asyncio.timeout(20):
        return await loop.sock_recv(client, 1)


@contextmanager
def no_files() -> Iterator[None]:
    """Run the block with a limit of open files that is used up."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as free:
        lowest = free.fileno()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@both_loops
def test_no_files(loop_factory: LoopFactory) -> None:
    """The connection waits, the process does not spin, one line is logged; with files it is accepted."""

    async def work() -> None:
        async with Port(most=10) as port:
            waiting = [port.connect() for _ in range(3)]
            with capture_logs() as logs, no_files():
                await asyncio.sleep(WITHOUT_FILES_S)
            attempts = port.attempts
            assert [await echoed(client) for client in waiting] == [b"x"] * 3
            assert 1 <= attempts <= WITHOUT_FILES_S / 0.02 + 2
            assert [entry["event"] for entry in logs] == ["accept_failed"]

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work())


@both_loops
def test_connections_wait_for_a_place(loop_factory: LoopFactory) -> None:
    """More at once than the share holds: each gets an answer, since none is closed while it is fresh."""

    async def work() -> None:
        async with Port(most=4) as port:
            clients = [port.connect() for _ in range(40)]
            for client in clients:
                await asyncio.get_running_loop().sock_sendall(client, b"x")
            async with asyncio.timeout(20):
                answers = [await asyncio.get_running_loop().sock_recv(client, 1) for client in clients]
            assert answers == [b"x"] * 40
            assert port.share.count <= 4

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work())


@both_loops
def test_connection_whose_bytes_wait_for_their_turn_keeps_its_place(loop_factory: LoopFactory) -> None:
    """A busy relay has not read its request yet, however old it is. Simulated work waits for a turn."""

    async def work() -> None:
        async with Port(most=1) as port:
            waiting = Waiting(port.turns)
            held = port.connect()
            await until(lambda: port.share.count == 1)
            second = port.connect()
            await asyncio.sleep(OLD_S)
            assert port.share.shed == 0
            assert await echoed(held) == b"x"

            waiting.ends.set()
            assert await echoed(second) == b"x"
            assert port.share.shed == 1

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work())


@both_loops
def test_closed_listener_accepts_nothing(loop_factory: LoopFactory) -> None:
    """Also one that waits for a place."""

    async def work() -> None:
        async with Port(most=1) as port:
            assert await echoed(port.connect()) == b"x"
            late = port.connect()
            await asyncio.sleep(FRESH_S / 4)
            port.listener.close()
            port.listener.close()
            await until(lambda: _is_reset(late))
            assert port.share.count == 1

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(work())


def _is_reset(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "listen", [lambda: listening_socket("127.0.0.1", 0), lambda: bound_socket("127.0.0.1", 0, setting="X")]
)
def test_writes_wait_for_no_acknowledgement(listen: Callable[[], socket.socket]) -> None:
    """With Nagle's algorithm, the second of two rounds would come 40 ms late."""
    with listen() as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
