"""A library may swallow a cancellation (see `roundlog.tasks`); the reader ends all the same, and frees the source."""

import asyncio
from typing import Any

import pytest

from backends.postgres.database import ConnectionLost
from backends.postgres.notify.notify_session import NotifySession
from backends.postgres.replication.protocol.replication_connection import StreamLost
from backends.postgres.replication.replication_stream import ReplicationStream
from roundlog.tasks import cancel_and_wait
from tests.postgres.ingesting import notify_backend, set_up_notify
from tests.postgres.reading import make_backend
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service


@pytest.mark.parametrize("name", ["postgres-notify", "postgres-replication"])
async def test_reader_ends_when_its_cancellation_was_swallowed(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It ends when its connection is closed, and does not connect again."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    waits, swallowed = asyncio.Event(), asyncio.Event()

    def swallowing(lost: Exception) -> Any:
        async def wait(*_: object) -> None:
            waits.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if swallowed.is_set():
                    raise
                swallowed.set()
                raise lost from None

        return wait

    backend: Any
    if name == "postgres-notify":
        backend = notify_backend(postgres)
        monkeypatch.setattr(NotifySession, "wait", swallowing(ConnectionLost("closed")))
    else:
        backend = make_backend(postgres)
        monkeypatch.setattr(ReplicationStream, "receive", swallowing(StreamLost("closed")))

    async def read() -> None:
        async for _ in backend.read():
            pass

    async with backend.open():
        task = asyncio.create_task(read())
        await waits.wait()
        task.cancel()
        await asyncio.wait([task], timeout=10)
        has_ended = task.done()
        await cancel_and_wait(task)

    assert swallowed.is_set()
    assert has_ended
