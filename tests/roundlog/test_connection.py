"""A connection to NATS is closed whatever interrupts its close."""

import asyncio
from contextlib import suppress

import pytest

from roundlog.client import connection
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer

pytestmark = pytest.mark.service


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def test_close_that_times_out_leaves_no_socket(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-py waits for a server that reads nothing; the socket is aborted then."""
    monkeypatch.setattr(connection._close, "__kwdefaults__", {"within_s": 0.05})
    async with connect(LogSettings(url=nats.url), name="test") as opened:
        client = opened.client
        socket, close = client._transport._io_writer.transport, client.close  # type: ignore[union-attr]
        monkeypatch.setattr(client, "close", never)

    assert socket.is_closing()
    await close()


async def test_close_that_is_cancelled_leaves_no_socket(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled twice is cancelled while it closes its connection."""
    opened, closing = asyncio.Event(), asyncio.Event()

    async def close_slowly() -> None:
        closing.set()
        await never()

    async def work() -> None:
        async with connect(LogSettings(url=nats.url), name="test") as connected:
            clients.append(connected.client)
            opened.set()
            await never()

    clients = []  # type: ignore[var-annotated]
    task = asyncio.create_task(work())
    await opened.wait()
    [client] = clients
    socket, close = client._transport._io_writer.transport, client.close
    monkeypatch.setattr(client, "close", close_slowly)
    task.cancel()
    await closing.wait()
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task

    assert socket.is_closing()
    await close()
