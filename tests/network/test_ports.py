"""Ports that tests hold for servers."""

import errno
import socket

import pytest
from grpc import aio

from tests.nats import NatsServer
from tests.network.ports import HeldPort

pytestmark = pytest.mark.service


def test_held_port_is_given_to_nobody_else() -> None:
    """A socket that does not ask for reuse, as one whose port the system chooses, cannot have it."""
    port = HeldPort()
    with socket.socket() as other, pytest.raises(OSError, match="in use") as taken:
        other.bind(("127.0.0.1", port.number))
    assert taken.value.errno == errno.EADDRINUSE
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port.number))


def test_server_may_listen_on_a_held_port_again_and_again() -> None:
    """Here Python's own."""
    port = HeldPort()
    address = "127.0.0.1", port.number
    for _ in range(2):
        with socket.create_server(address) as server, socket.create_connection(address):
            server.accept()[0].close()


def test_port_that_nobody_holds_any_more_is_free() -> None:
    """It is held for as long as its object."""
    port = HeldPort()
    number = port.number
    del port
    with socket.socket() as other:
        other.bind(("127.0.0.1", number))


async def test_server_of_grpc_may_listen_on_a_held_port() -> None:
    """With the option of the relay."""
    port = HeldPort()
    for _ in range(2):
        server = aio.server(options=[("grpc.so_reuseport", 0)])
        assert server.add_insecure_port(f"127.0.0.1:{port.number}") == port.number
        await server.start()
        await server.stop(grace=None)


async def test_nats_server_keeps_its_port_while_it_is_away(nats: NatsServer) -> None:
    """Nobody else gets it between a kill and the next start."""
    port = nats.port
    for end in (nats.kill, nats.stop):
        await end()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        await nats.start()
        assert nats.port == port
