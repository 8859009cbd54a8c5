"""Run a Postgres backend in a test and collect what it yields, waiting for rounds and not for time."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from backends.contract import Backend, BackendContext, Captured, Rejected
from backends.ingest.run_ingest import run_ingest
from backends.postgres.notify.notify_admin import NotifyAdmin
from backends.postgres.notify.postgres_notify import PostgresNotify
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from roundlog.tasks import cancel_and_wait
from rounds import Catalogue
from tests.nats import NatsServer
from tests.postgres_server import PostgresServer

CONTEXT = BackendContext(catalogue=Catalogue.load())
WAIT_S = 30.0


class Reading:
    """What a running backend has yielded. Confirms everything at once by default."""

    def __init__(self, backend: Backend[Any], *, confirms: bool = True) -> None:
        self.ids: list[int] = []
        self.items: list[Captured[Any] | Rejected[Any]] = []
        self._backend = backend
        self._confirms = confirms
        self._news = asyncio.Condition()

    async def run(self) -> None:
        stream = self._backend.read()
        try:
            async for batch in stream:
                assert batch
                async with self._news:
                    for item in batch:
                        self.items.append(item)
                        if isinstance(item, Captured):
                            self.ids.append(item.round.round_id)
                    if self._confirms:
                        self._backend.confirm(batch[-1].offset)
                    self._news.notify_all()
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    async def reach(self, count: int) -> list[int]:
        """Wait until `count` items were yielded; return the ids of the rounds among them, in order."""
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: len(self.items) >= count)
        return self.ids


@asynccontextmanager
async def reading(backend: Backend[Any], *, confirms: bool = True) -> AsyncIterator[Reading]:
    """Open a backend and read from it until the block ends; an error of the backend ends the block."""
    result = Reading(backend, confirms=confirms)
    async with backend.open():
        task = asyncio.create_task(result.run())
        owner = asyncio.current_task()
        task.add_done_callback(lambda _: owner.cancel() if owner and not task.cancelled() else None)
        try:
            yield result
        except asyncio.CancelledError:
            if not task.done():
                raise
        finally:
            await cancel_and_wait(task)
        if not task.cancelled():
            task.result()


@asynccontextmanager
async def ingesting(
    backend: Backend[Any],
    nats: NatsServer,
    log: LogSettings | None = None,
    settings: PublisherSettings | None = None,
) -> AsyncIterator[asyncio.Task[Any]]:
    """Run ingest into `nats` until the block ends; an error of it is raised there."""
    task = asyncio.create_task(run_ingest(backend, log or LogSettings(url=nats.url), settings))
    try:
        yield task
    finally:
        await cancel_and_wait(task)
        if not task.cancelled():
            task.result()


def notify_options(server: PostgresServer, **options: object) -> dict[str, object]:
    """Options of `postgres-notify` for a test: polls often enough that a lost notification fails no test."""
    return {"dsn": server.dsn(), "start": "beginning", "poll_s": 0.1, **options}


def notify_backend(server: PostgresServer, **options: object) -> PostgresNotify:
    return PostgresNotify(notify_options(server, **options), CONTEXT)


async def set_up_notify(server: PostgresServer, table: str = "rounds", schema: str = "public") -> None:
    """Create what `stream-relay backend setup` creates."""
    await set_up(server, table=f"{schema}.{table}")


async def set_up(server: PostgresServer, **options: object) -> None:
    """Do what `stream-relay backend setup` does with these options."""
    await NotifyAdmin(notify_options(server, **options)).set_up(None)
