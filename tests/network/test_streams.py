"""Connections of tests: whatever state they are in at the end of their block, nothing is open or runs afterwards."""

import asyncio
import gc
import socket
import warnings
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from tests.clients.balancer import Balancer
from tests.clients.cutting_proxy import CuttingProxy
from tests.network.forwarder import Forwarder
from tests.network.streams import connected, serving
from tests.network.wire import Wire
from tests.resume.slow_wire import SlowWire

MORE_THAN_BUFFERS_HOLD = b"line\r\n" * (3 << 20)

Leave = Callable[[Forwarder, socket.socket], Awaitable[None]]


def balancer(port: int) -> Forwarder:
    forwarder = Balancer()
    forwarder._relay.set_result(port)
    return forwarder


FORWARDERS: dict[str, Callable[[int], Forwarder]] = {
    "wire": lambda port: Wire("a>b", lambda: port),
    "balancer": balancer,
    "cutting-proxy": lambda port: CuttingProxy(port, carry_bytes=10),
    "slow-wire": lambda port: SlowWire(port, client="a", delay_s=0.001),
}


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def send(forwarder: Forwarder, client: socket.socket) -> None:
    """Send what the other side does not read."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.2):  # the situation: buffers are full
            await asyncio.get_running_loop().sock_sendall(client, MORE_THAN_BUFFERS_HOLD)


async def held(forwarder: Forwarder, client: socket.socket) -> None:
    """The block ends in the turn in which connections that waited may connect."""
    assert isinstance(forwarder, Wire)
    forwarder.hold()
    forwarder.cut()
    with socket.create_connection(("127.0.0.1", forwarder.port)) as another:
        await turns(10)
        forwarder.heal()
        another.send(b"1")


ENDS: dict[str, Leave] = {
    **{f"after {count} turns": lambda *_, count=count: turns(count) for count in range(12)},
    "with full buffers": send,
}


async def unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve nothing, until cancelled."""
    writer.write(b"hello\r\n")
    await asyncio.Event().wait()


def left_by(block: Callable[[], Awaitable[None]]) -> list[str]:
    """Run it, close its loop, and return what was reported as not closed and the tasks that still ran."""
    running: set[asyncio.Task[None]] = set()

    async def run() -> None:
        await block()
        running.update(asyncio.all_tasks() - {asyncio.current_task()})

    gc.collect()
    gc.freeze()  # what other tests have loaded: the second collection would look at all of it again
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        asyncio.run(run())
        gc.collect()
    return [str(warning.message) for warning in caught] + [repr(task) for task in running]


def ending(kind: str, leave: Leave) -> Callable[[], Awaitable[None]]:
    async def block() -> None:
        async with asyncio.timeout(20), serving(unread) as port:
            forwarder = FORWARDERS[kind](port)
            with socket.socket() as client:
                client.setblocking(False)
                async with forwarder.listening():
                    client.connect_ex(("127.0.0.1", forwarder.port))
                    await leave(forwarder, client)

    return block


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("kind", FORWARDERS)
def test_forwarder_leaves_nothing(kind: str, end: str) -> None:
    """A connection that is accepted, that connects further, that is open, or whose reader is slow, is closed."""
    assert left_by(ending(kind, ENDS[end])) == []


def test_wire_that_was_held_leaves_nothing() -> None:
    """What waits for the wire does not connect after its end."""
    assert left_by(ending("wire", held)) == []


def test_connection_of_a_test_leaves_nothing() -> None:
    """Also when the other side has not read what was sent."""

    async def block() -> None:
        async with serving(unread) as port, connected("127.0.0.1", port) as (_, writer):
            writer.write(MORE_THAN_BUFFERS_HOLD)

    assert left_by(block) == []


def test_connection_that_is_left_open_is_seen() -> None:
    """Otherwise the tests above would prove nothing."""

    async def block() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            await asyncio.open_connection(*server.getsockname())

    assert left_by(block) != []


async def test_failure_of_a_server_is_raised_at_its_end() -> None:
    """A check within it fails the test; the end of a connection does not."""

    async def check(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        if line := await reader.readexactly(1):
            raise AssertionError(line)

    async def connect(port: int, data: bytes) -> None:
        async with connected("127.0.0.1", port) as (reader, writer):
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == b""

    async with serving(check) as port:
        await connect(port, b"")
    with pytest.raises(AssertionError, match="a"):
        async with serving(check) as port:
            await connect(port, b"a")


async def test_what_a_server_has_written_is_sent_before_the_end() -> None:
    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(MORE_THAN_BUFFERS_HOLD)

    async with serving(answer) as port, connected("127.0.0.1", port) as (reader, _):
        assert await reader.read() == MORE_THAN_BUFFERS_HOLD
