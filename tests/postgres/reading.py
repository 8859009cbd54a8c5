"""Read a backend in a test: collect its items, wait for them, and confirm them or not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from backends.contract import BackendContext, Captured, Rejected
from backends.postgres.replication.postgres_replication import PostgresReplication
from roundlog.tasks import cancel_and_wait
from rounds import Catalogue, Round
from tests.postgres_server import PostgresServer
from tests.waiting import until

CONTEXT = BackendContext(Catalogue.load())


def make_backend(server: PostgresServer, dsn: str | None = None, **options: Any) -> PostgresReplication:
    """A backend on `server` that creates what it needs, and reconnects fast."""
    defaults = {"dsn": dsn or server.dsn(), "create": True, "retry_max_s": 0.2}
    return PostgresReplication({**defaults, **options}, CONTEXT)


class Reader:
    """Everything that a backend has yielded so far."""

    def __init__(self, backend: PostgresReplication, *, confirm: bool) -> None:
        self.backend = backend
        self.items: list[Captured[Any] | Rejected[Any]] = []
        self.batches: list[int] = []
        self.task: asyncio.Task[None] | None = None
        self._confirm = confirm
        self._gate = asyncio.Event()
        self._gate.set()
        self._changed = asyncio.Event()

    @property
    def rounds(self) -> list[Round]:
        return [item.round for item in self.items if isinstance(item, Captured)]

    @property
    def ids(self) -> list[int]:
        return [round_.round_id for round_ in self.rounds]

    @property
    def rejected(self) -> list[Rejected[Any]]:
        return [item for item in self.items if isinstance(item, Rejected)]

    async def seen(self, count: int) -> None:
        """Wait until `count` items were read; raise the error if reading ended before."""
        await self.until(lambda: len(self.items) >= count)

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until `holds` is true; it is evaluated after each batch."""
        assert self.task is not None
        while not holds():
            self._changed.clear()
            changed = asyncio.ensure_future(self._changed.wait())
            await asyncio.wait([changed, self.task], return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if self.task.done():
                await self.task
                raise AssertionError("reading ended")

    def confirm_all(self) -> None:
        """Confirm what was read, and from now on each batch at once."""
        self._confirm = True
        if self.items:
            self.backend.confirm(self.items[-1].offset)

    def stop_taking(self) -> None:
        """Take no further batch, as a publisher with a full pipeline."""
        self._gate.clear()

    def take_again(self) -> None:
        self._gate.set()

    async def run(self) -> None:
        async for batch in self.backend.read():
            self.items += batch
            self.batches.append(len(batch))
            if self._confirm:
                self.backend.confirm(batch[-1].offset)
            self._changed.set()
            await self._gate.wait()


@asynccontextmanager
async def reading(backend: PostgresReplication, *, confirm: bool = True) -> AsyncIterator[Reader]:
    """Open a backend and read it in the background for as long as the block lasts."""
    reader = Reader(backend, confirm=confirm)
    async with backend.open():
        reader.task = asyncio.create_task(reader.run(), name="reader")
        try:
            yield reader
        finally:
            await cancel_and_wait(reader.task)


async def wait_for_sql(server: PostgresServer, sql: str, wanted: Callable[[Any], bool] = bool) -> Any:
    """Query the server until the one value of `sql` is as wanted; return it."""
    connection = await server.connect()
    try:

        async def asked() -> tuple[Any] | None:
            value = await connection.fetchval(sql)
            return (value,) if wanted(value) else None

        [value] = await until(asked)
        return value
    finally:
        await connection.close()


CONFIRMED = "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = 'stream_relay'"
HOLDER = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'stream_relay'"
HEAD = "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"
