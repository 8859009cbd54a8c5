"""`postgres-notify` into the log: each round once, through crashes of ingest and the log, and a change of backend."""

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
from backends.postgres.replication.postgres_replication import PostgresReplication
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from tests.backends.harness import captured_events, stored
from tests.nats import NatsServer, nats_client
from tests.postgres.ingesting import CONTEXT, ingesting, notify_backend, set_up_notify
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service
WAIT_S = 60.0


@asynccontextmanager
async def ingest_process(postgres: PostgresServer, nats: NatsServer) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command ``stream-relay ingest``, and kill it at the end."""
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


async def log_holds(nats: NatsServer, count: int) -> None:
    """Wait until the log holds `count` rounds; it publishes a message for each."""
    async with asyncio.timeout(WAIT_S), nats_client(LogSettings(url=nats.url)) as nc:
        stored_messages = await nc.subscribe("live.rounds.*")
        while True:
            answer = msgspec.json.decode((await nc.request("$JS.API.STREAM.INFO.ROUNDS", b"", 5)).data)
            if answer.get("state", {}).get("messages", 0) >= count:
                return
            with suppress(TimeoutError):
                await stored_messages.next_msg(timeout=0.5)


async def produce(postgres: PostgresServer, writers: int, rounds: int) -> int:
    """Insert over several connections, with late commits and rollbacks; return the number of committed rows."""
    dice = random.Random(7)
    ids = iter(range(1, writers * rounds + 1))
    committed = 0

    async def write() -> None:
        nonlocal committed
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
                committed += 1
        await connection.close()

    await asyncio.gather(*(write() for _ in range(writers)))
    return committed


async def test_ingest_killed_repeatedly_neither_loses_nor_repeats_a_round(
    any_postgres: PostgresServer, nats: NatsServer
) -> None:
    """Despite late commits and rolled-back ids, each committed row is in the log once."""
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)
    producing = asyncio.create_task(produce(any_postgres, writers=6, rounds=100))
    for least in (1, 100, 200):
        async with ingest_process(any_postgres, nats):
            await log_holds(nats, least)
    committed = await producing
    async with ingest_process(any_postgres, nats):
        await log_holds(nats, committed)

    found = [number for _, number in await stored(nats)]
    rows = await any_postgres.fetch("SELECT round_id FROM rounds")
    assert sorted(found) == sorted(row[0] for row in rows)


async def test_log_killed_during_capture_gets_each_round_once(postgres: PostgresServer, nats: NatsServer) -> None:
    """A crash of nats-server delays ingest and has no other effect."""
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


async def test_backend_is_changed_and_back_without_loss_or_repetition(
    any_postgres: PostgresServer, nats: NatsServer
) -> None:
    """The new backend starts before the old one stops; both use the same message ids."""
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)

    def replication() -> PostgresReplication:
        return PostgresReplication({"dsn": any_postgres.dsn(), "create": True}, CONTEXT)

    async with ingesting(replication(), nats):
        await slot_is_read(any_postgres)
        await any_postgres.insert_rounds(1, 500)
        async with ingesting(notify_backend(any_postgres, start="now", lookback_ids=0), nats):
            await offset_is_kept(any_postgres)
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


async def test_backend_is_changed_while_rows_are_inserted_without_a_reader(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """A first start "now" continues at the end of the log, and an old slot or offset repeats only what the log has,
    however much that is. Changed there and back twice."""
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


async def test_first_slot_on_a_log_of_another_backend_logs_a_warning(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """The slot begins when it is created; the warning contains the backfill for the rows before."""
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
    """Rounds of other tables in the log are ignored."""
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
    """Wait until a backend reads."""
    if isinstance(backend, PostgresReplication):
        await slot_is_read(postgres)
    else:
        await until(lambda: backend.status.state == "reading", within_s=WAIT_S)  # type: ignore[attr-defined]


async def slot_is_read(postgres: PostgresServer) -> None:
    await _becomes_true(postgres, "SELECT coalesce(bool_and(active), false) FROM pg_replication_slots")


async def offset_is_kept(postgres: PostgresServer) -> None:
    await _becomes_true(postgres, "SELECT count(*) > 0 FROM stream_relay.positions")


async def _becomes_true(postgres: PostgresServer, sql: str) -> None:
    async def is_true() -> bool:
        return bool((await postgres.fetch(sql))[0][0])

    await until(is_true, within_s=WAIT_S)
