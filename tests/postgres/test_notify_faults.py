"""`postgres-notify` through faults of servers, connections, poolers, other readers, and its trigger."""

import asyncio
import secrets
from contextlib import AsyncExitStack

import asyncpg
import pytest

from backends.contract import SourceError
from backends.postgres.database import ConnectionLost, ask, open_connection, query_text, terminate
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.source_admin import admin_of
from tests.network.wire import Wire
from tests.postgres.ingesting import notify_backend, reading, set_up_notify
from tests.postgres.pooler import PROGRAM, pooler_before
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service


@pytest.fixture
async def rounds_table(postgres: PostgresServer) -> PostgresServer:
    """A server with the table of rounds, set up."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    return postgres


@pytest.fixture
async def any_rounds_table(any_postgres: PostgresServer) -> PostgresServer:
    """The same on each version."""
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)
    return any_postgres


async def test_notification_delivers_before_the_next_poll(rounds_table: PostgresServer) -> None:
    """A round arrives without waiting for the poll."""
    async with reading(notify_backend(rounds_table, poll_s=60)) as found:
        await rounds_table.insert_rounds(1, 1)
        await found.reach(1)
        await rounds_table.insert_rounds(2, 2)
        await found.reach(2)


async def test_poll_finds_rows_whose_notification_was_lost(rounds_table: PostgresServer) -> None:
    """Without a trigger every row is still read."""
    await rounds_table.execute("DROP TRIGGER stream_relay_wake ON rounds")
    async with reading(notify_backend(rounds_table)) as found:
        for number in range(1, 4):
            await rounds_table.insert_rounds(number, number)
            await found.reach(number)


async def test_column_that_is_renamed_while_rows_are_read_is_named_with_its_option(
    rounds_table: PostgresServer,
) -> None:
    """As at the start, and not in the words of the server."""

    async def read_over_the_change() -> None:
        async with reading(notify_backend(rounds_table)) as found:
            await rounds_table.insert_rounds(1, 1)
            await found.reach(1)
            await rounds_table.execute("ALTER TABLE rounds RENAME COLUMN extras TO result")
            await rounds_table.insert_rounds(2, 2)
            await found.reach(2)

    with pytest.raises(SourceError, match=r"has no column 'extras'.*'extras_column'"):
        await read_over_the_change()


async def test_insert_succeeds_when_the_trigger_fails(any_rounds_table: PostgresServer) -> None:
    """A channel name that NOTIFY refuses fails no INSERT."""
    too_long = "x" * 64
    await any_rounds_table.execute(
        f"""DROP TRIGGER stream_relay_wake ON rounds; CREATE TRIGGER stream_relay_wake AFTER INSERT ON rounds
            FOR EACH STATEMENT EXECUTE FUNCTION stream_relay.wake('{too_long}')"""
    )

    await any_rounds_table.insert_rounds(1, 1)

    assert len(await any_rounds_table.fetch("SELECT 1 FROM rounds")) == 1


async def test_insert_succeeds_while_the_queue_of_notifications_is_full(rounds_table: PostgresServer) -> None:
    """A listener that hangs in a transaction fills the queue; a commit with NOTIFY would then fail."""
    await rounds_table.restart(max_notify_queue_pages="64")
    hanging = await rounds_table.connect()
    await hanging.execute("LISTEN stream_relay")
    await hanging.execute("BEGIN")
    filling = await rounds_table.connect()

    async def fill() -> None:
        for _ in range(1000):
            await filling.execute("SELECT pg_notify('stream_relay', $1)", secrets.token_hex(3900))

    with pytest.raises(asyncpg.PostgresError, match="too many notifications"):
        await fill()

    await rounds_table.insert_rounds(1, 1)

    assert len(await rounds_table.fetch("SELECT 1 FROM rounds")) == 1
    await filling.close()
    hanging.terminate()


async def test_many_inserts_of_one_transaction_notify_once(rounds_table: PostgresServer) -> None:
    """Equal notifications of a transaction are sent once, so 10,000 statements do not fill the queue."""
    heard: list[object] = []
    listener = await rounds_table.connect()
    await listener.add_listener("stream_relay", lambda *event: heard.append(event))
    producer = await rounds_table.connect()
    async with producer.transaction():
        for number in range(1, 101):
            await producer.execute("INSERT INTO rounds VALUES ($1, 'dice', NULL, now(), '{}')", number)
    await listener.execute("SELECT 1")
    assert len(heard) == 1
    await producer.close()
    await listener.close()


@pytest.mark.parametrize("end", ["fast", "immediate", "kill", "terminate"])
async def test_every_row_is_read_once_through_loss_of_the_server(rounds_table: PostgresServer, end: str) -> None:
    """After a shutdown, a crash or a broken connection the reader reconnects and continues."""
    server = rounds_table
    backend = notify_backend(server, retry_max_s=0.2)
    async with reading(backend) as found:
        await server.insert_rounds(1, 100)
        await found.reach(100)
        if end == "terminate":
            await server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'stream-relay%'"
            )
        elif end == "kill":
            await server.kill()
            await server.start()
        else:
            await server.restart("fast" if end == "fast" else "immediate")
        await server.insert_rounds(101, 200)
        assert await found.reach(200) == list(range(1, 201))
    assert backend.status.reconnects >= 1


async def test_fast_shutdown_does_not_wait_for_the_reader(rounds_table: PostgresServer) -> None:
    """The server stops at once while the reader listens."""
    async with reading(notify_backend(rounds_table)) as found:
        await rounds_table.insert_rounds(1, 1)
        await found.reach(1)
        async with asyncio.timeout(20):
            await rounds_table.stop("fast")


async def test_hole_of_a_transaction_ended_by_a_crash_is_closed(any_rounds_table: PostgresServer) -> None:
    """A writer from before the crash holds no lock after it; the reader does not wait for it."""
    server = any_rounds_table
    ghost = await server.connect()
    await ghost.transaction().start()
    await ghost.execute("INSERT INTO rounds VALUES (1, 'dice', NULL, now(), '{}')")
    await server.insert_rounds(2, 2)
    backend = notify_backend(server, retry_max_s=0.2)

    async with reading(backend) as found:
        await found.reach(1)
        await server.kill()
        await server.start()
        await server.insert_rounds(3, 3)
        assert await found.reach(2) == [2, 3]
        await until(lambda: backend.status.safe == 3)
    ghost.terminate()


async def test_prepared_transaction_is_waited_for(any_postgres: PostgresServer) -> None:
    """A prepared transaction holds its locks without a session; its row is not missed."""
    await any_postgres.restart(max_prepared_transactions="5")
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)
    # A transaction that has notified cannot be prepared, so such producers need a table without the trigger.
    await any_postgres.execute("DROP TRIGGER stream_relay_wake ON rounds")
    producer = await any_postgres.connect()
    await producer.execute("BEGIN; INSERT INTO rounds VALUES (1, 'dice', NULL, now(), '{}'); PREPARE TRANSACTION 'x'")
    await producer.close()
    await any_postgres.insert_rounds(2, 2)
    backend = notify_backend(any_postgres)

    async with reading(backend) as found:
        await found.reach(1)
        await any_postgres.insert_rounds(3, 3)
        await found.reach(2)
        assert backend.status.safe == 0
        await any_postgres.execute("COMMIT PREPARED 'x'")
        assert await found.reach(3) == [2, 3, 1]


async def test_row_with_an_id_taken_before_its_transaction_is_late_but_not_lost(rounds_table: PostgresServer) -> None:
    """Looking back finds it, at the latest at the next start."""
    backend = notify_backend(rounds_table)
    await rounds_table.insert_rounds(1, 1)
    await rounds_table.insert_rounds(3, 3)
    async with reading(backend) as found:
        await found.reach(2)
        await until(lambda: backend.status.safe == 3)
        await rounds_table.insert_rounds(2, 2)
        await rounds_table.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'stream-relay%'"
        )
        assert await found.reach(3) == [1, 3, 2]


async def test_second_reader_waits_and_takes_over_when_the_first_ends(any_rounds_table: PostgresServer) -> None:
    """One process reads at a time, and the next one continues at the confirmed offset."""
    second = notify_backend(any_rounds_table, lookback_ids=0)
    async with reading(second) as takes_over:
        await any_rounds_table.insert_rounds(1, 1)
        await takes_over.reach(1)
        async with reading(notify_backend(any_rounds_table, lookback_ids=0)) as stands_by:
            await any_rounds_table.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'stream-relay keeper'"
            )
            await any_rounds_table.insert_rounds(2, 50)
            await until(lambda: {*takes_over.ids, *stands_by.ids} == set(range(1, 51)))


async def test_standby_ends_the_session_of_a_silent_reader(rounds_table: PostgresServer) -> None:
    """A frozen process would hold its lock without limit; the standby ends its session after `takeover_s`."""
    frozen = await rounds_table.connect()
    name = "stream_relay:stream_relay:public.rounds"
    await frozen.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
    await rounds_table.insert_rounds(1, 1)

    async with reading(notify_backend(rounds_table, takeover_s=4)) as found:
        await found.reach(1)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await frozen.execute("SELECT 1")


@pytest.mark.skipif(PROGRAM is None, reason="no PgBouncer on this machine")
async def test_pooler_in_transaction_mode_is_recognised_and_can_be_used_for_polling(
    rounds_table: PostgresServer, unused_tcp_port: int
) -> None:
    """LISTEN does not work there; the error says what to set, and every command works with that."""
    await rounds_table.insert_rounds(1, 3)
    async with pooler_before(rounds_table, unused_tcp_port) as dsn:
        with pytest.raises(SourceError, match=r"looks like a pooler in transaction mode .* notify=false to poll"):
            async with notify_backend(rounds_table, dsn=dsn).open():
                pass
        async with reading(notify_backend(rounds_table, dsn=dsn, notify=False)) as found:
            assert await found.reach(3) == [1, 2, 3]
            for number in range(4, 24):
                await rounds_table.insert_rounds(number, number)
                await found.reach(number)
        assert found.ids == list(range(1, 24))
        admin = admin_of("postgres-notify", {"dsn": dsn, "notify": False})
        assert [finding.text for finding in await admin.check() if finding.verdict == "failure"] == []
        assert (await admin.status())["lag"] == "0 rows"
        connection = await asyncpg.connect(dsn, statement_cache_size=0)
        servers = {await connection.fetchval("SELECT pg_backend_pid() + $1::int", 0) for _ in range(8)}
        await connection.close()
    assert len(servers) > 1  # otherwise the test proves nothing


@pytest.mark.parametrize("notify", [True, False], ids=["listening", "polling"])
async def test_stalled_connection_is_replaced(rounds_table: PostgresServer, notify: bool) -> None:
    """A stalled connection gives no error; a timeout ends it."""
    async with Wire("ingest>postgres", lambda: rounds_table.port).listening() as wire:
        backend = notify_backend(
            rounds_table,
            dsn=f"postgresql://postgres@127.0.0.1:{wire.port}/postgres?sslmode=disable",
            answer_timeout_s=3,
            connect_timeout_s=3,
            notify=notify,
            retry_max_s=0.2,
        )
        async with reading(backend) as found:
            await rounds_table.insert_rounds(1, 10)
            await found.reach(10)
            wire.swallow("back")
            await rounds_table.insert_rounds(11, 20)
            await until(lambda: backend.status.reconnects > 0)
            wire.cut()
            assert await found.reach(20) == list(range(1, 21))


async def test_query_over_a_pooler_ends_in_time_when_its_connection_stalls(postgres: PostgresServer) -> None:
    """It has a transaction of its own, which is not waited for."""
    async with Wire("ingest>postgres", lambda: postgres.port).listening() as wire:
        dsn = f"postgresql://postgres@127.0.0.1:{wire.port}/postgres?sslmode=disable"
        options = NotifyOptions.read({"dsn": dsn, "notify": False})
        connection = await open_connection(options, "reader")
        query = query_text(options, connection, "SELECT pg_sleep(60)", timeout_s=5)
        asking = asyncio.create_task(ask(options, query))
        await until(lambda: postgres.fetch("SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
        wire.swallow("back")
        with pytest.raises(ConnectionLost):
            async with asyncio.timeout(30):
                await asking
        wire.cut()
        terminate(connection)


async def test_reader_closes_in_bounded_time_while_the_server_is_frozen(rounds_table: PostgresServer) -> None:
    """Closing does not wait for a silent server."""
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(reading(notify_backend(rounds_table)))
        await rounds_table.insert_rounds(1, 1)
        await found.reach(1)
        rounds_table.freeze()
        async with asyncio.timeout(10):
            await stack.aclose()
    rounds_table.thaw()


async def test_dropped_table_ends_the_reader_with_one_sentence(
    rounds_table: PostgresServer,
) -> None:
    """The error is not retried, since an operator has to act."""

    async def drop_it_meanwhile() -> None:
        async with reading(notify_backend(rounds_table)) as found:
            await rounds_table.insert_rounds(1, 1)
            await found.reach(1)
            await rounds_table.execute("DROP TABLE rounds")
            await found.reach(2)

    with pytest.raises(SourceError, match="rounds"):
        await drop_it_meanwhile()


async def test_added_column_and_changed_type_do_not_disturb_reading(rounds_table: PostgresServer) -> None:
    """DDL that keeps the columns has no visible effect."""
    async with reading(notify_backend(rounds_table)) as found:
        await rounds_table.insert_rounds(1, 1)
        await found.reach(1)
        await rounds_table.execute("ALTER TABLE rounds ADD COLUMN note text; ALTER TABLE rounds ALTER extras TYPE text")
        await rounds_table.insert_rounds(2, 2)
        assert await found.reach(2) == [1, 2]
