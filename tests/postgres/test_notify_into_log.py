"""`postgres-notify` through to the log: once each, through crashes of ingest, of the log, and a change of backend."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.contract import Backend
from backends.ingest.run import run_ingest
from backends.postgres.replication.backend import PostgresReplication
from backends.publish.settings import PublisherSettings
from roundlog.connection import connect
from roundlog.settings import LogSettings
from roundlog.tasks import ended
from tests.backends.harness import captured_events, stored
from tests.nats import NatsServer
from tests.postgres.ingesting import CONTEXT, notify_backend, set_up_notify
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service
WAIT_S = 60.0


@asynccontextmanager
async def ingest_process(postgres: PostgresServer, nats: NatsServer) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run ``stream-relay ingest`` as an operator does; killed at the end."""
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("stream-relay"), "ingest", "--backend", "postgres-notify",
        "-o", f"dsn={postgres.dsn()}", "-o", "start=beginning", "-o", "poll_s=0.1",
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "RELAY_NATS_URL": nats.url},
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def ingesting(
    backend: Backend[Any],
    nats: NatsServer,
    log: LogSettings | None = None,
    settings: PublisherSettings | None = None,
) -> AsyncIterator[None]:
    task = asyncio.create_task(run_ingest(backend, log or LogSettings(url=nats.url), settings))
    try:
        yield
    finally:
        await ended(task)
        if not task.cancelled():
            task.result()


async def log_holds(nats: NatsServer, count: int) -> None:
    """Wait until the log holds so many rounds: each is told of as it is stored."""
    async with asyncio.timeout(WAIT_S), connect(LogSettings(url=nats.url), name="test") as nc:
        told = await nc.subscribe("live.rounds.*")
        while True:
            answer = msgspec.json.decode((await nc.request("$JS.API.STREAM.INFO.ROUNDS", b"", 5)).data)
            if answer.get("state", {}).get("messages", 0) >= count:
                return
            with suppress(TimeoutError):
                await told.next_msg(timeout=0.5)


async def produce(postgres: PostgresServer, writers: int, rounds: int) -> int:
    """Insert from several connections at once, some transactions late, some rolled back; return how many rows stand."""
    dice = random.Random(7)
    ids = iter(range(1, writers * rounds + 1))
    stand = 0

    async def write() -> None:
        nonlocal stand
        connection = await postgres.connect()
        for _ in range(rounds):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("INSERT INTO rounds VALUES ($1, 'dice', NULL, now(), '{}')", next(ids))
            await connection.execute("SELECT pg_sleep($1)", dice.choice([0, 0, 0.002, 0.03]))
            if dice.random() < 0.1:
                await transaction.rollback()
            else:
                await transaction.commit()
                stand += 1
        await connection.close()

    await asyncio.gather(*(write() for _ in range(writers)))
    return stand


async def test_ingest_killed_again_and_again_neither_loses_nor_doubles_a_round(
    any_postgres: PostgresServer, nats: NatsServer
) -> None:
    """With late committers and rolled-back ids under way, each committed row is in the log once."""
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)
    producing = asyncio.create_task(produce(any_postgres, writers=6, rounds=100))
    for least in (1, 100, 200):
        async with ingest_process(any_postgres, nats):
            await log_holds(nats, least)
    stand = await producing
    async with ingest_process(any_postgres, nats):
        await log_holds(nats, stand)

    found = [number for _, number in await stored(nats)]
    rows = await any_postgres.fetch("SELECT round_id FROM rounds")
    assert sorted(found) == sorted(row[0] for row in rows)


async def test_log_killed_while_rounds_are_captured_gets_each_once(postgres: PostgresServer, nats: NatsServer) -> None:
    """A broker that crashes holds ingest up and nothing else."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    async with ingesting(notify_backend(postgres), nats):
        await postgres.insert_rounds(1, 3000)
        await log_holds(nats, 100)
        await nats.kill()
        await postgres.insert_rounds(3001, 4000)
        await nats.start()
        await log_holds(nats, 4000)
    assert sorted(number for _, number in await stored(nats)) == list(range(1, 4001))


async def test_backend_is_changed_on_a_running_database_and_back_without_loss_or_double(
    any_postgres: PostgresServer, nats: NatsServer
) -> None:
    """The new one is started before the old one is stopped; ids see to the rest."""
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)

    def replication() -> PostgresReplication:
        return PostgresReplication({"dsn": any_postgres.dsn(), "create": True}, CONTEXT)

    async with ingesting(replication(), nats):
        await slot_is_read(any_postgres)
        await any_postgres.insert_rounds(1, 500)
        async with ingesting(notify_backend(any_postgres, start="now", lookback_ids=0), nats):
            await place_is_kept(any_postgres)
            await any_postgres.insert_rounds(501, 1000)
            await log_holds(nats, 1000)
        await any_postgres.insert_rounds(1001, 1500)
        await log_holds(nats, 1500)
    await any_postgres.insert_rounds(1501, 1600)
    async with ingesting(notify_backend(any_postgres), nats):
        await log_holds(nats, 1600)
        async with ingesting(replication(), nats):
            await slot_is_read(any_postgres)
            await any_postgres.insert_rounds(1601, 1700)
            await log_holds(nats, 1700)

    assert sorted(number for _, number in await stored(nats)) == list(range(1, 1701))


async def test_backend_is_changed_by_one_setting_with_rows_while_nobody_runs(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """Stopped, changed, started, there and back twice: a first start "now" goes on where the log ends, and an old slot
    or place sends again only what the log has, however much that is."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    log = LogSettings(url=nats.url, duplicate_window_s=0.1)
    few = PublisherSettings(tail_rounds=200)
    last = 0

    async def bring(backend: Backend[Any], count: int, *, meanwhile: int) -> None:
        nonlocal last
        await postgres.insert_rounds(last + 1, last + meanwhile)
        last += meanwhile
        async with ingesting(backend, nats, log, few):
            await read_by(postgres, backend)
            await postgres.insert_rounds(last + 1, last + count)
            last += count
            await log_holds(nats, last)

    def replication() -> Backend[Any]:
        return PostgresReplication({"dsn": postgres.dsn(), "create": True}, CONTEXT)

    def notify() -> Backend[Any]:
        return notify_backend(postgres, start="now", lookback_ids=100)

    async with replication().open():
        pass
    for make in (replication, notify, replication, notify):
        await bring(make(), 3000, meanwhile=50)

    assert sorted(number for _, number in await stored(nats)) == list(range(1, last + 1))


async def test_first_slot_on_a_log_of_another_backend_is_warned_of(postgres: PostgresServer, nats: NatsServer) -> None:
    """It begins when it is made: rows that came between are for a backfill, and the warning names it."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    async with ingesting(notify_backend(postgres), nats):
        await postgres.insert_rounds(1, 10)
        await log_holds(nats, 10)
    await postgres.insert_rounds(11, 20)
    with captured_events() as events:
        async with ingesting(PostgresReplication({"dsn": postgres.dsn(), "create": True}, CONTEXT), nats):
            await events.seen("slot_begins_late")
    assert "backend backfill --from-id" in next(e["run"] for e in events.details if e["event"] == "slot_begins_late")


async def test_first_start_now_on_a_log_of_other_tables_begins_now(postgres: PostgresServer, nats: NatsServer) -> None:
    """Rounds in the log that are none of this table say nothing about it."""
    await postgres.make_rounds_table()
    await postgres.make_rounds_table("others")
    await set_up_notify(postgres)
    await set_up_notify(postgres, "others")
    await postgres.insert_rounds(1, 50)
    await postgres.insert_rounds(901, 920, table="others", game="dice")
    async with ingesting(notify_backend(postgres, table="public.others"), nats):
        await log_holds(nats, 20)
    backend = notify_backend(postgres, start="now")
    async with ingesting(backend, nats):
        await read_by(postgres, backend)
        await postgres.insert_rounds(51, 60)
        await log_holds(nats, 30)

    assert sorted(number for _, number in await stored(nats)) == [*range(51, 61), *range(901, 921)]


async def read_by(postgres: PostgresServer, backend: Backend[Any]) -> None:
    """Wait until a backend has begun to read."""
    if isinstance(backend, PostgresReplication):
        await slot_is_read(postgres)
    else:
        await until(lambda: backend.status.state == "reading", within_s=WAIT_S)  # type: ignore[attr-defined]


async def slot_is_read(postgres: PostgresServer) -> None:
    await _becomes_true(postgres, "SELECT coalesce(bool_and(active), false) FROM pg_replication_slots")


async def place_is_kept(postgres: PostgresServer) -> None:
    await _becomes_true(postgres, "SELECT count(*) > 0 FROM stream_relay.positions")


async def _becomes_true(postgres: PostgresServer, sql: str) -> None:
    async def is_true() -> bool:
        return bool((await postgres.fetch(sql))[0][0])

    await until(is_true, within_s=WAIT_S)
