"""Capture by replication through faults of the server, the network, nats-server, our process, and a second one."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from backends.contract import SourceError
from backends.ingest.run_ingest import run_ingest
from backends.postgres.replication.postgres_replication import PostgresReplication
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from roundlog.tasks import cancel_and_wait
from tests.backends.harness import DeadLetters, Source, captured_events, make_round, stored
from tests.nats import NatsServer, nats_client
from tests.network.wire import Wire
from tests.postgres.ingest_process import IngestProcess, ingesting
from tests.postgres.reading import CONFIRMED, HEAD, HOLDER, make_backend, reading, wait_for_sql
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service

_PROMPT_S: Final = 10.0
"""More than a busy machine needs, and less than `sender_timeout_s` (15 s), after which the server ends a connection
that is silent."""


@asynccontextmanager
async def ingest(backend: PostgresReplication, nats: NatsServer, **settings: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Run ingest in this process for as long as the block lasts. The slot exists when the block begins."""
    async with backend.open():
        pass
    task = asyncio.create_task(
        run_ingest(backend, LogSettings(url=nats.url), PublisherSettings(ack_timeout_s=1, **settings))
    )
    try:
        yield task
    finally:
        await cancel_and_wait(task)


async def stored_ids(nats: NatsServer, count: int) -> list[int]:
    """Wait until the log holds at least `count` rounds; return all, in log order."""
    async with nats_client(LogSettings(url=nats.url)) as nc:
        live = await nc.subscribe("live.rounds.*")
        while (missing := count - await messages(nc)) > 0:
            for _ in range(missing):
                await live.next_msg(timeout=30)
    return [number for _, number in await stored(nats)]


async def messages(nc: Client) -> int:
    """Return how many rounds the log holds."""
    try:
        count: int = (await nc.jetstream().stream_info("ROUNDS")).state.messages
    except NotFoundError:
        return 0
    return count


async def run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    assert await process.wait() == 0


# --- the server ------------------------------------------------------------------------------------------------------


async def test_fast_shutdown_does_not_wait_for_an_idle_reader(any_postgres: PostgresServer) -> None:
    """The server waits until we confirm all of its WAL, and we do so at once."""
    server = any_postgres
    await server.make_rounds_table()
    async with reading(make_backend(server)) as reader:
        await server.insert_rounds(1, 10)
        await reader.seen(10)
        async with asyncio.timeout(_PROMPT_S):
            await server.stop("fast")

        await server.start()
        await server.insert_rounds(11, 20)
        await reader.seen(20)
    assert reader.ids == list(range(1, 21))


async def test_fast_shutdown_does_not_wait_for_rounds_that_cannot_be_stored(any_postgres: PostgresServer) -> None:
    """Without nats-server no round may be confirmed. The stream ends, and the rounds are sent again."""
    server = any_postgres
    await server.make_rounds_table()
    async with reading(make_backend(server), confirm=False) as reader:
        await server.insert_rounds(1, 10)
        await reader.seen(10)
        async with asyncio.timeout(_PROMPT_S):
            await server.stop("fast")

        await server.start()
        await server.insert_rounds(11, 20)
        await reader.seen(20)
    assert reader.ids == list(range(1, 21))
    async with reading(make_backend(server)) as again:
        await again.seen(20)
    assert again.ids == list(range(1, 21))


async def test_fast_shutdown_does_not_wait_for_a_reader_that_is_full(postgres: PostgresServer) -> None:
    """During a long outage of nats-server no batch is requested: the stream is closed, and continues later."""
    await postgres.make_rounds_table()
    with captured_events() as events:
        async with reading(make_backend(postgres), confirm=False) as reader:
            reader.stop_taking()
            await postgres.insert_rounds(1, 50_000)
            await reader.seen(1)
            await events.seen("stream_left")
            async with asyncio.timeout(_PROMPT_S):
                await postgres.stop("fast")

            await postgres.start()
            reader.take_again()
            await reader.seen(50_000)
    assert reader.ids == list(range(1, 50_001))


@pytest.mark.parametrize("mode", ["fast", "immediate", "kill"])
async def test_server_restart_within_a_transaction_loses_and_repeats_nothing(
    postgres: PostgresServer, mode: Any
) -> None:
    """The next stream continues within the transaction."""
    await postgres.make_rounds_table()
    async with reading(make_backend(postgres)) as reader:
        await postgres.insert_rounds(1, 9_000)
        await reader.seen(1000)
        reader.stop_taking()
        await (postgres.kill() if mode == "kill" else postgres.stop(mode))
        await postgres.start()
        reader.take_again()
        await postgres.insert_rounds(9_001, 9_002)
        await reader.seen(9_002)

    assert reader.ids == list(range(1, 9_003))


async def test_terminated_backend_is_replaced(any_postgres: PostgresServer) -> None:
    """An administrator ends our connection: the next one continues at the same offset."""
    server = any_postgres
    await server.make_rounds_table()
    with captured_events() as events:
        async with reading(make_backend(server)) as reader:
            for first in (1, 11, 21):
                await server.insert_rounds(first, first + 9)
                await reader.seen(first + 9)
                await server.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots")
            await server.insert_rounds(31, 31)
            await reader.seen(31)

    assert reader.ids == list(range(1, 32))
    assert "57P01" in next(e["error"] for e in events.details if e["event"] == "stream_lost")


async def test_stalled_network_is_noticed(postgres: PostgresServer) -> None:
    """No data arrives and no error: after ``sender_timeout_s`` a new connection continues."""
    await postgres.make_rounds_table()
    async with Wire("ingest>postgres", lambda: postgres.port).listening() as wire:
        dsn = postgres.dsn().replace(str(postgres.port), str(wire.port))
        with captured_events() as events:
            async with reading(make_backend(postgres, dsn, sender_timeout_s=1, connect_timeout_s=2)) as reader:
                await postgres.insert_rounds(1, 1)
                await reader.seen(1)
                wire.swallow("back")
                await postgres.insert_rounds(2, 2)
                await events.seen("stream_lost")
                assert "silent for" in events.details[-1]["error"]
                wire.cut()
                await reader.seen(2)
    assert reader.ids == [1, 2]


async def test_frozen_server_is_retried(postgres: PostgresServer) -> None:
    """Connecting to it times out; after it resumes no round is missing."""
    await postgres.make_rounds_table()
    with captured_events() as events:
        async with reading(make_backend(postgres, sender_timeout_s=1, connect_timeout_s=2)) as reader:
            await postgres.insert_rounds(1, 1)
            await reader.seen(1)
            postgres.freeze()
            await events.seen("stream_lost")
            with pytest.raises(SourceError, match=r"no answer from 127.0.0.1:.* within 0.3 s"):
                await make_backend(postgres, connect_timeout_s=0.3).open().__aenter__()
            postgres.thaw()
            await postgres.insert_rounds(2, 2)
            await reader.seen(2)
    assert reader.ids == [1, 2]


async def test_restored_backup_is_read_from_its_own_offset(postgres: PostgresServer) -> None:
    """The server's WAL ends below our offset: starting there would skip new rounds."""
    server = postgres
    await server.make_rounds_table()
    backup = server._data.with_name("backup")
    with captured_events() as events:
        async with reading(make_backend(server)) as reader:
            await server.insert_rounds(1, 10)
            await reader.seen(10)
            await server.stop()
            await run("cp", "-a", server._data, backup)
            await server.start()
            await server.insert_rounds(11, 5000)
            await reader.seen(5000)
            await server.stop()
            shutil.rmtree(server._data)
            backup.rename(server._data)
            await server.start()
            await server.insert_rounds(6001, 6003)
            await reader.until(lambda: reader.ids[-3:] == [6001, 6002, 6003])
            assert "source_changed" in events
            assert reader.items[-1].offset > reader.items[4999].offset


async def test_large_rows_over_tls_do_not_stall(tmp_path: Path) -> None:
    """Data buffered by the TLS library does not make the socket readable; a row larger than a record must not wait."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    await run(
        "openssl", "req", "-new", "-x509", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", certificate
    )
    try:
        server = PostgresServer(15, {"ssl": "on", "ssl_cert_file": "../certificate.pem", "ssl_key_file": "../key.pem"})
    except LookupError as error:
        pytest.skip(str(error))
    for file in (key, certificate):
        shutil.copy(file, server._folder)
        shutil.chown(server._folder / file.name, server._account or os.getuid())
        (server._folder / file.name).chmod(0o600)
    try:
        await server.start()
        await server.make_rounds_table()
        dsn = server.dsn() + "?sslmode=require"
        own = {"slot": "own", "publication": "own", "table": "public.rounds", "message_prefix": "stream_relay"}
        async with reading(make_backend(server, dsn)) as reader, reading(make_backend(server, dsn, **own)) as bounded:
            for size in range(1, 41):
                await server.execute(
                    "INSERT INTO rounds VALUES ($1, 'crash', NULL, now(), jsonb_build_object('a', repeat('x', $2)))",
                    size,
                    size * 1500,
                )
                await reader.seen(size)
                await bounded.seen(size)
            await server.execute("SELECT pg_logical_emit_message(true, 'other', repeat('x', 4 << 20))")
            await server.insert_rounds(41, 41)
            await bounded.seen(41)
            await reader.seen(41)
    finally:
        await server.discard()
    assert reader.ids == bounded.ids == list(range(1, 42))


# --- nats-server ---------------------------------------------------------------------------------------------------


async def test_nats_down_longer_than_the_sender_timeout_keeps_the_stream(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """Status messages are sent on a timer, so the server does not end the connection, and no round is lost."""
    await postgres.make_rounds_table()
    with captured_events() as events:
        async with ingest(make_backend(postgres, sender_timeout_s=3), nats):
            await postgres.insert_rounds(1, 100)
            await stored_ids(nats, 100)
            await nats.kill()
            await postgres.insert_rounds(101, 200)
            holder = await wait_for_sql(postgres, HOLDER)
            connection = await postgres.connect()
            await connection.execute("SELECT pg_sleep(5)")  # the situation: an outage of this length
            assert await connection.fetchval(HOLDER) == holder
            await connection.close()
            await nats.start()
            assert await stored_ids(nats, 200) == list(range(1, 201))
    assert "stream_lost" not in events


async def test_nats_killed_and_restarted_leaves_no_gap(postgres: PostgresServer, nats: NatsServer) -> None:
    """After two crashes during the stream, each round is stored once, in order."""
    await postgres.make_rounds_table()
    async with ingest(make_backend(postgres), nats):
        for start in range(1, 4):
            await postgres.insert_rounds(start * 3_000 - 2_999, start * 3_000)
            await stored_ids(nats, start * 3_000 - 2_900)
            if start < 3:
                await nats.kill()
                await nats.start()
        assert await stored_ids(nats, 9_000) == list(range(1, 9_001))


async def test_error_acks_neither_reorder_rounds_nor_advance_the_offset_past_them(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    """nats-server rejects a publish and accepts the next one, within a transaction and between transactions."""
    server = NatsServer(tmp_path, config="jetstream { max_buffered_msgs: 50 }")
    await server.start()
    try:
        await postgres.make_rounds_table()
        with captured_events() as events:
            async with ingest(make_backend(postgres), server):
                await postgres.insert_rounds(1, 3_000)
                await postgres.execute("DO $$ BEGIN FOR n IN 3001..3100 LOOP INSERT INTO rounds VALUES "
                                       "(n, 'crash', NULL, now(), '{}'); COMMIT; END LOOP; END $$")  # fmt: skip
                assert await stored_ids(server, 3_100) == list(range(1, 3_101))
                (row,) = await postgres.fetch(HEAD)
                await wait_for_sql(postgres, CONFIRMED, lambda lsn: lsn >= row[0])
            await events.seen("ingest_finished")
        assert events.details[-1]["resent"] > 0
    finally:
        await server.kill()


# --- our own process -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("window_s", [120.0, 0.1], ids=["within", "after"])
async def test_ingest_killed_between_ack_and_confirm_repeats_nothing(
    postgres: PostgresServer, nats: NatsServer, window_s: float
) -> None:
    """Stored rounds are recognised within the log's duplicate window and after it."""
    await postgres.make_rounds_table()
    log = {"duplicate_window_s": window_s}
    # An hour of lag: all rounds are stored and none is confirmed when the process is killed.
    async with ingesting(postgres, nats, log=log, publisher={"confirm_lag_s": 3600}) as process:
        await process.said("stream_started")
        for n in range(10):
            await postgres.insert_rounds(n * 10 + 1, n * 10 + 10)
        await stored_ids(nats, 100)
        await process.kill()
    await postgres.insert_rounds(101, 110)
    await postgres.execute("SELECT pg_sleep($1)", min(window_s, 0.3))  # the situation: the window has passed

    async with ingesting(postgres, nats, log=log) as process:
        assert await stored_ids(nats, 110) == list(range(1, 111))


@pytest.mark.parametrize("window_s", [120.0, 0.1], ids=["within", "after"])
async def test_ingest_killed_with_a_transaction_acked_in_part_repeats_nothing(
    postgres: PostgresServer, nats: NatsServer, window_s: float
) -> None:
    """The whole transaction is sent again, and its stored rounds are recognised."""
    await postgres.make_rounds_table()
    log = {"duplicate_window_s": window_s}
    async with ingesting(postgres, nats, log=log, publisher={"max_in_flight": 16}) as process:
        await process.said("stream_started")
        await kill_within(process, postgres, nats, rows=20_000, held=1)
    half = len(await stored(nats))
    assert 0 < half < 20_000

    async with ingesting(postgres, nats, log=log, publisher={"tail_rounds": 20_000}):
        assert await stored_ids(nats, 20_000) == list(range(1, 20_001))


async def kill_within(
    process: IngestProcess, postgres: PostgresServer, nats: NatsServer, *, rows: int, held: int
) -> None:
    """Commit rows in one transaction, and kill ingest as soon as the log holds `held` of them."""
    inserted = asyncio.create_task(postgres.insert_rounds(1, rows))
    async with nats_client(LogSettings(url=nats.url)) as nc:

        async def holds_enough() -> bool:  # to receive each round would take longer than to store it
            return await messages(nc) >= held

        await until(holds_enough)
    await process.kill()
    await inserted


async def test_ingest_killed_in_a_transaction_larger_than_the_known_tail_repeats_nothing(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """The log is read back to the slot's offset, however many rounds that are."""
    await postgres.make_rounds_table()
    log = {"duplicate_window_s": 0.1}
    async with ingesting(postgres, nats, log=log, publisher={"max_in_flight": 64}) as process:
        await process.said("stream_started")
        await kill_within(process, postgres, nats, rows=40_000, held=4_000)
    half = len(await stored(nats))
    assert 4_000 <= half < 40_000

    async with ingesting(postgres, nats, log=log, publisher={"tail_rounds": 100}):
        assert await stored_ids(nats, 40_000) == list(range(1, 40_001))


async def test_warning_when_more_rounds_are_repeated_than_are_recalled(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """The recall has a limit; if it is too low, a warning names the setting."""
    await postgres.make_rounds_table()
    async with ingest(make_backend(postgres), nats, confirm_lag_s=3600):
        await postgres.insert_rounds(1, 3_000)
        await stored_ids(nats, 3_000)
    with captured_events() as events:
        async with ingest(make_backend(postgres), nats, tail_rounds=100, recall_rounds=2_000):
            await events.seen("tail_not_covered")
            await postgres.insert_rounds(3_001, 3_001)
            assert await stored_ids(nats, 3_001) == list(range(1, 3_002))  # recognised by the duplicate window


async def test_log_without_offsets_is_continued(postgres: PostgresServer, nats: NatsServer) -> None:
    """In a log of an older release or of a backend without offsets, the newest rounds are recognised by their ids."""
    await postgres.make_rounds_table()
    await postgres.insert_rounds(1, 50)
    settings = LogSettings(url=nats.url, duplicate_window_s=0.1)
    old = make_backend(postgres)
    async with old.open():
        pass
    await postgres.insert_rounds(51, 100)
    source = Source(100)
    source.rounds = [make_round(number, "crash") for number in range(1, 101)]
    await Publisher(settings, PublisherSettings(), confirm=source.confirm, rejects=DeadLetters()).run(source.read())

    async with ingesting(postgres, nats, log={"duplicate_window_s": 0.1}) as process:
        await process.said("stream_started")
        await postgres.insert_rounds(101, 110)
        assert await stored_ids(nats, 110) == list(range(1, 111))


async def test_rejected_rows_at_the_end_do_not_look_like_a_moved_slot(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """No round carries their offset; it is stored beside the log before it is reported to the server."""
    await postgres.make_rounds_table()
    for number in range(3):
        async with ingesting(postgres, nats) as process:
            await process.said("stream_started")
            await postgres.insert_rounds(number * 10 + 1, number * 10 + 5)
            await postgres.execute("INSERT INTO rounds VALUES ($1, 'chess', NULL, now(), '{}')", number * 10 + 9)
            await process.said("round_rejected")
            (row,) = await postgres.fetch(HEAD)
            await wait_for_sql(postgres, CONFIRMED, lambda lsn, end=row[0]: lsn >= end)  # type: ignore[misc]
            await process.kill()
    assert len(await stored_ids(nats, 15)) == 15


# --- a second process ------------------------------------------------------------------------------------------------


async def reader_first(one: IngestProcess, other: IngestProcess) -> tuple[IngestProcess, IngestProcess]:
    """Wait until one of two processes streams and the other is standby; return them in this order."""
    started = asyncio.create_task(one.said("stream_started")), asyncio.create_task(other.said("stream_started"))
    await asyncio.wait(started, return_when=asyncio.FIRST_COMPLETED)
    one_holds = started[0].done()
    waiting = started[1] if one_holds else started[0]
    waiting.cancel()
    await asyncio.wait([waiting])
    holder, standby = (one, other) if one_holds else (other, one)
    if not any("slot_awaited" in line for line in standby.lines):
        await standby.said("slot_awaited")
    return holder, standby


async def test_hot_standby_takes_over_when_the_first_is_killed(postgres: PostgresServer, nats: NatsServer) -> None:
    """The second process delivers as soon as the slot is free, without a gap or a repetition."""
    await postgres.make_rounds_table()
    async with ingesting(postgres, nats) as first, ingesting(postgres, nats) as second:
        holder, standby = await reader_first(first, second)
        await postgres.insert_rounds(1, 10)
        await stored_ids(nats, 10)
        await postgres.insert_rounds(11, 20)
        await holder.kill()
        async with asyncio.timeout(_PROMPT_S):
            await standby.said("stream_started")
        await postgres.insert_rounds(21, 30)
        assert await stored_ids(nats, 30) == list(range(1, 31))


async def test_frozen_reader_is_replaced_and_harmless_when_it_resumes(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """After ``sender_timeout_s`` the other one reads the slot. What the frozen one publishes later is a duplicate."""
    await postgres.make_rounds_table()
    async with (
        ingesting(postgres, nats, sender_timeout_s=1) as one,
        ingesting(postgres, nats, sender_timeout_s=1) as other,
    ):
        first, second = await reader_first(one, other)
        await postgres.insert_rounds(1, 10)
        await stored_ids(nats, 10)
        first.freeze()
        await postgres.insert_rounds(11, 20)
        await second.said("stream_started")
        await postgres.insert_rounds(21, 30)
        await stored_ids(nats, 30)
        first.thaw()
        await first.said("slot_awaited")
        await second.kill()
        await postgres.insert_rounds(31, 40)
        await first.said("stream_started")
        assert await stored_ids(nats, 40) == list(range(1, 41))


async def test_two_readers_in_turn_leave_one_log(postgres: PostgresServer, nats: NatsServer) -> None:
    """Two processes read the slot in turn while rows are inserted: each round is stored once, in order."""
    await postgres.make_rounds_table()
    async with ingest(make_backend(postgres), nats):
        await postgres.insert_rounds(1, 1)
        await stored_ids(nats, 1)
        async with ingest(make_backend(postgres, create=False), nats):
            for n in range(1, 6):
                await postgres.insert_rounds(n * 100, n * 100 + 99)
                await postgres.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots")
            assert await stored_ids(nats, 501) == [1, *range(100, 600)]


async def test_standby_of_a_reader_that_confirms_late_repeats_nothing(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """Rounds repeated at a takeover may be older than the duplicate window and newer than our start."""
    await postgres.make_rounds_table()
    log = {"duplicate_window_s": 0.1}
    async with ingesting(postgres, nats, log=log, publisher={"confirm_lag_s": 3600}) as first:
        await first.said("stream_started")
        async with ingesting(postgres, nats, log=log) as second:
            await second.said("slot_awaited")
            for n in range(20):
                await postgres.insert_rounds(n * 100 + 1, n * 100 + 100)
            await stored_ids(nats, 2_000)
            await first.kill()
            await second.said("stream_started")
            await postgres.insert_rounds(2_001, 2_001)
            assert await stored_ids(nats, 2_001) == list(range(1, 2_002))
