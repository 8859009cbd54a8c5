"""Connections to PostgreSQL that are closed at any moment, under uvloop: a lost connection, and nothing else."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import pytest

from backends.postgres.database import ConnectionLost, ask, close_connection, open_connection, terminate
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.notify.notify_session import NotifySession
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.slot import ReplicationOptions
from tests.postgres.ingesting import set_up_notify
from tests.postgres_server import PostgresServer
from tests.roundlog.test_closed_transports import on_uvloop

pytestmark = pytest.mark.service


def close_socket(connection: Any) -> None:
    """Close the transport below asyncpg, which has not noticed it yet."""
    connection._transport.abort()


async def test_query_on_a_closed_transport_is_a_lost_connection(postgres: PostgresServer) -> None:
    """A query raises `ConnectionLost`; closing and terminating raise nothing."""
    options = NotifyOptions.read({"dsn": postgres.dsn()})

    async def work() -> None:
        connection = await open_connection(options, "test")
        close_socket(connection)
        with pytest.raises(ConnectionLost):
            await ask(options, connection.fetch("SELECT 1", timeout=1))
        await close_connection(connection, within_s=1)
        terminate(connection)
        for is_gentle in (True, False):
            connection = await open_connection(options, "test")
            close_socket(connection)
            if is_gentle:
                await close_connection(connection, within_s=1)
            else:
                terminate(connection)

    assert await on_uvloop(work) == []


async def test_session_of_notify_closes_over_closed_transports(postgres: PostgresServer) -> None:
    """Closing the reader raises no error in any state of its connections."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    options = NotifyOptions.read({"dsn": postgres.dsn()})

    async def work() -> None:
        for method in ("heartbeat", "writers", "close"):
            session = await NotifySession.connect(options)
            close_socket(session._keeper)
            close_socket(session._reader)
            with suppress(ConnectionLost):
                await (session.tables[0].writers() if method == "writers" else getattr(session, method)())
            await session.close()

    assert await on_uvloop(work) == []


async def _query(link: ReplicationConnection) -> None:
    await link.query("SELECT 1", 1)


async def _receive(link: ReplicationConnection) -> None:
    await link.receive()


async def _send(link: ReplicationConnection) -> None:
    for _ in range(2):
        link.send(b"r" + bytes(33))


async def _close(link: ReplicationConnection) -> None:
    await link.close(b"r" + bytes(33))


_CALLS: Final[tuple[Callable[[ReplicationConnection], Awaitable[None]], ...]] = (_query, _receive, _send, _close)


async def test_replication_connection_that_is_closed_below_is_lost(postgres: PostgresServer) -> None:
    """The network ends the connection, or libpq has closed it: every call raises `StreamLost` at most."""
    options = ReplicationOptions.read({"dsn": postgres.dsn()})

    async def lose_and_call(call: Callable[[ReplicationConnection], Awaitable[None]], *, by_libpq: bool) -> None:
        link = await ReplicationConnection.connect(options)
        if by_libpq:
            link._libpq.finish()
        else:
            with socket.socket(fileno=link._libpq.socket) as below:
                below.shutdown(socket.SHUT_RDWR)
                below.detach()
        with suppress(StreamLost):
            await call(link)
        await link.close()
        await link.close()

    async def work() -> None:
        for call in _CALLS:
            await lose_and_call(call, by_libpq=False)
            await lose_and_call(call, by_libpq=True)

    assert await on_uvloop(work) == []


async def test_closing_a_lost_connection_leaves_another_with_its_number_alone(postgres: PostgresServer) -> None:
    """libpq closes its socket when it is lost; the next connection of the process gets the same number."""
    options = ReplicationOptions.read({"dsn": postgres.dsn()})

    async def work() -> None:
        loop = asyncio.get_running_loop()
        link = await ReplicationConnection.connect(options)
        number = link._libpq.socket
        link._libpq.finish()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            if ours.fileno() != number:
                ours, theirs = theirs, ours
            assert ours.fileno() == number
            readable = loop.create_future()
            loop.add_reader(ours, readable.set_result, None)
            await link.close()
            theirs.send(b"data")
            async with asyncio.timeout(5):
                await readable
            loop.remove_reader(ours)

    assert await on_uvloop(work) == []
