"""A real PostgreSQL for one benchmark, with its own port and data, which are removed at the end."""

import asyncio
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from backends.postgres.source_admin import admin_of
from tests.postgres_server import PostgresServer

T = TypeVar("T")

_TABLE = """
CREATE TABLE rounds (
    round_id bigint PRIMARY KEY, game_slug text NOT NULL, game_type text, finished_at timestamptz, extras jsonb
);
"""
_PUBLISHED = {
    "insert": "CREATE PUBLICATION bench FOR TABLE rounds WITH (publish = 'insert')",
    "update": """
        ALTER TABLE rounds REPLICA IDENTITY FULL;
        CREATE PUBLICATION bench FOR TABLE rounds WITH (publish = 'insert, update')
    """,
}
"""By what finishes a round. A third way, ``feed``: an UPDATE finishes it, and triggers copy it into the feed."""

FILL = """
INSERT INTO rounds
SELECT n, 'crash', 'multiplier', now(), jsonb_build_object('point', (n % 1000 / 100.0)::numeric(6, 2)::text)
FROM generate_series({first}, {last}) n
"""
"""Rounds with extras of a real length, their numbers as strings as the wire wants them."""

_OPEN = "INSERT INTO rounds SELECT n, 'crash', 'multiplier' FROM generate_series(1, {count}) n"
_FINISH = """
UPDATE rounds SET
    finished_at = now(), extras = jsonb_build_object('point', (round_id % 1000 / 100.0)::numeric(6, 2)::text)
WHERE round_id BETWEEN {first} AND {last}
"""


class Postgres:
    """The server, on an event loop and a thread of its own: uvloop cannot start a program as another user."""

    def __init__(self) -> None:
        settings = {"shared_buffers": "64MB", "max_wal_size": "2GB", "track_commit_timestamp": "on"}
        self.server = PostgresServer(18, settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="postgres", daemon=True)
        self._thread.start()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine of the server on its loop."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def discard(self) -> None:
        await self.run(self.server.discard())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@asynccontextmanager
async def running(finished_by: str = "insert", *, unfinished: int = 0) -> AsyncIterator[Postgres]:
    """Run PostgreSQL 18 with the table of rounds, the publication ``bench`` and the slot ``bench``.

    Args:
        finished_by: What finishes a round: ``insert``, ``update``, or ``feed``.
        unfinished: So many unfinished rounds are in the table before the slot is made.
    """
    postgres = Postgres()
    try:
        await postgres.run(postgres.server.start())
        await postgres.run(postgres.server.execute(_TABLE))
        if unfinished:
            await postgres.run(postgres.server.execute(_OPEN.format(count=unfinished)))
            await postgres.run(postgres.server.execute("VACUUM ANALYZE rounds"))
        if finished_by == "feed":
            options = {"dsn": postgres.server.dsn(), "slot": "bench", "publication": "bench", "feed": "true"}
            await postgres.run(admin_of("postgres-replication", options).set_up(None))
        else:
            await postgres.run(postgres.server.execute(_PUBLISHED[finished_by]))
            slot = "SELECT pg_create_logical_replication_slot('bench', 'pgoutput')"
            await postgres.run(postgres.server.execute(slot))
        yield postgres
    finally:
        await postgres.discard()


async def fill(
    server: PostgresServer, count: int, per_transaction: int, first: int = 1, *, finishes: bool = False
) -> None:
    """Commit `count` rounds, `per_transaction` in each transaction, in a loop inside the server.

    `finishes`: they are in the table, and are updated.
    """
    statement = _FINISH if finishes else FILL
    if per_transaction >= count:
        await server.execute(statement.format(first=first, last=first + count - 1))
        return
    body = statement.format(
        first=f"{first} + step * {per_transaction}", last=f"{first} + (step + 1) * {per_transaction} - 1"
    )
    steps = count // per_transaction
    await server.execute(f"DO $$ BEGIN FOR step IN 0 .. {steps - 1} LOOP {body}; COMMIT; END LOOP; END $$")


async def commit_at(server: PostgresServer, rate: int, seconds: int, first: int, *, finishes: bool = False) -> None:
    """Commit one round at a time at a steady rate; `finishes`: they are in the table, and are updated."""
    connection = await server.connect()
    insert = "INSERT INTO rounds VALUES ($1, 'crash', 'multiplier', now(), '{\"point\": \"2.50\"}')"
    finish = 'UPDATE rounds SET finished_at = now(), extras = \'{"point": "2.50"}\' WHERE round_id = $1'
    commit = await connection.prepare(finish if finishes else insert)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(rate * seconds):
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        await commit.fetch(first + number)
    await connection.close()


async def commit_times_us(server: PostgresServer) -> dict[int, int]:
    """When each round was committed, Unix microseconds by the server's clock, by its id."""
    rows = await server.fetch(
        "SELECT round_id, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint AS us FROM rounds"
    )
    return {row["round_id"]: row["us"] for row in rows}
