"""What `postgres-notify` does when things break: servers, links, poolers, other readers, its own trigger."""

import asyncio
import secrets
from contextlib import AsyncExitStack

import asyncpg
import pytest

from backends.contract import SourceError
from backends.postgres.admin import admin_of
from tests.backends.harness import Wire
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


async def test_wake_up_delivers_long_before_the_next_poll(rounds_table: PostgresServer) -> None:
    """NOTIFY is the hint that makes it fast."""
    async with reading(notify_backend(rounds_table, poll_s=60)) as found:
        await rounds_table.insert_rounds(1, 1)
        await found.reach(1)
        await rounds_table.insert_rounds(2, 2)
        await found.reach(2)


async def test_lost_wake_up_is_made_good_by_the_poll(rounds_table: PostgresServer) -> None:
    """Polling is the guarantee: without a trigger every row still comes."""
    await rounds_table.execute("DROP TRIGGER stream_relay_wake ON rounds")
    async with reading(notify_backend(rounds_table)) as found:
        for number in range(1, 4):
            await rounds_table.insert_rounds(number, number)
            await found.reach(number)


async def test_insert_succeeds_whatever_is_wrong_with_the_trigger(any_rounds_table: PostgresServer) -> None:
    """The producer comes first: a channel name that NOTIFY refuses fails no INSERT, and nobody is asked to listen."""
    too_long = "x" * 64
    await any_rounds_table.execute(
        f"""DROP TRIGGER stream_relay_wake ON rounds; CREATE TRIGGER stream_relay_wake AFTER INSERT ON rounds
            FOR EACH STATEMENT EXECUTE FUNCTION stream_relay.wake('{too_long}')"""
    )

    await any_rounds_table.insert_rounds(1, 1)

    assert len(await any_rounds_table.fetch("SELECT 1 FROM rounds")) == 1


async def test_insert_succeeds_while_the_queue_of_notifications_is_full(rounds_table: PostgresServer) -> None:
    """A listener that hangs in a transaction fills the queue for everybody; a commit with NOTIFY would fail then."""
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


async def test_many_inserts_of_one_transaction_wake_once(rounds_table: PostgresServer) -> None:
    """Equal payloads collapse, so ten thousand statements fill no queue."""
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
async def test_every_row_comes_once_through_loss_of_the_server(rounds_table: PostgresServer, end: str) -> None:
    """Shut down, crashed or merely cut off, the reader comes back and goes on."""
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


async def test_fast_shutdown_is_not_held_up_by_the_reader(rounds_table: PostgresServer) -> None:
    """A server that is to stop stops at once while we listen."""
    async with reading(notify_backend(rounds_table)) as found:
        await rounds_table.insert_rounds(1, 1)
        await found.reach(1)
        async with asyncio.timeout(1):
            await rounds_table.stop("fast")


async def test_transaction_open_over_a_crash_leaves_a_hole_that_dies(any_rounds_table: PostgresServer) -> None:
    """Who held the lock before the crash cannot hold it after; the reader does not wait for a ghost."""
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


async def test_prepared_transaction_is_waited_for_like_any_other(any_postgres: PostgresServer) -> None:
    """Two-phase commit holds its locks without a session; a row that comes so is not missed."""
    await any_postgres.restart(max_prepared_transactions="5")
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)
    # A transaction that has notified cannot be prepared, so producers of this kind go without the trigger.
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


async def test_row_with_an_id_taken_before_its_transaction_is_late_and_not_lost(rounds_table: PostgresServer) -> None:
    """Looking back finds what breaks the rule, at the latest at the next start."""
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


async def test_second_reader_stands_by_and_takes_over_when_the_first_is_gone(any_rounds_table: PostgresServer) -> None:
    """One reads at a time, and the next one goes on where the first was confirmed."""
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


async def test_reader_that_says_nothing_any_more_is_ended_by_the_next(rounds_table: PostgresServer) -> None:
    """A frozen process holds its lock for ever; whoever waits ends its session after the stated time."""
    frozen = await rounds_table.connect()
    name = "stream_relay:stream_relay:public.rounds"
    await frozen.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", name)
    await rounds_table.insert_rounds(1, 1)

    async with reading(notify_backend(rounds_table, takeover_s=4)) as found:
        await found.reach(1)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await frozen.execute("SELECT 1")


@pytest.mark.skipif(PROGRAM is None, reason="no PgBouncer on this machine")
async def test_pooler_in_transaction_mode_is_named_and_can_be_polled_through(
    rounds_table: PostgresServer, unused_tcp_port: int
) -> None:
    """LISTEN would wait for ever there; the operator is told so at once, and what to set. Then every command works."""
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
    assert len(servers) > 1  # or all of this would have proven nothing


async def test_stalled_link_is_given_up_for_a_new_one(rounds_table: PostgresServer) -> None:
    """A connection that swallows everything looks alive for ever; a deadline ends it."""
    wire = Wire(f"tcp://127.0.0.1:{rounds_table.port}")
    async with wire.listening():
        backend = notify_backend(
            rounds_table,
            dsn=f"postgresql://postgres@127.0.0.1:{wire.port}/postgres?sslmode=disable",
            answer_timeout_s=0.5,
            connect_timeout_s=0.5,
            retry_max_s=0.2,
        )
        async with reading(backend) as found:
            await rounds_table.insert_rounds(1, 10)
            await found.reach(10)
            wire.swallow_answers()
            await rounds_table.insert_rounds(11, 20)
            await until(lambda: backend.status.reconnects > 0)
            wire.cut()
            assert await found.reach(20) == list(range(1, 21))


async def test_reader_leaves_a_frozen_server_in_bounded_time(rounds_table: PostgresServer) -> None:
    """A server that is silent is not waited for."""
    async with AsyncExitStack() as stack:
        found = await stack.enter_async_context(reading(notify_backend(rounds_table)))
        await rounds_table.insert_rounds(1, 1)
        await found.reach(1)
        rounds_table.freeze()
        async with asyncio.timeout(10):
            await stack.aclose()
    rounds_table.thaw()


async def test_table_that_is_dropped_while_it_is_read_ends_the_reader_with_a_sentence(
    rounds_table: PostgresServer,
) -> None:
    """What an operator did is told to an operator, and not retried for ever."""

    async def drop_it_meanwhile() -> None:
        async with reading(notify_backend(rounds_table)) as found:
            await rounds_table.insert_rounds(1, 1)
            await found.reach(1)
            await rounds_table.execute("DROP TABLE rounds")
            await found.reach(2)

    with pytest.raises(SourceError, match="rounds"):
        await drop_it_meanwhile()


async def test_column_added_and_type_changed_while_it_is_read_change_nothing(rounds_table: PostgresServer) -> None:
    """DDL that leaves the columns in place is not noticed by clients."""
    async with reading(notify_backend(rounds_table)) as found:
        await rounds_table.insert_rounds(1, 1)
        await found.reach(1)
        await rounds_table.execute("ALTER TABLE rounds ADD COLUMN note text; ALTER TABLE rounds ALTER extras TYPE text")
        await rounds_table.insert_rounds(2, 2)
        assert await found.reach(2) == [1, 2]
