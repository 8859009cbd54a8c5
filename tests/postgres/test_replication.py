"""Capture by logical replication from real servers: rounds, offsets, set-up, and every state of a slot."""

import asyncio
import re
from typing import Any

import pytest

from backends.contract import SourceError
from backends.postgres.replication import publication_watch
from backends.postgres.replication.capture import ColumnMissing
from backends.postgres.replication.protocol import replication_connection
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection
from backends.postgres.replication.slot import ReplicationOptions, SlotLost, SlotState, check_publication
from tests.network.wire import Wire
from tests.postgres.reading import CONFIRMED, HEAD, make_backend, reading, wait_for_sql
from tests.postgres_server import PostgresServer
from tests.waiting import WAIT_S

pytestmark = pytest.mark.service


async def open_once(server: PostgresServer, **options: Any) -> None:
    async with make_backend(server, **options).open():
        pass
    await server.slots_released()


# --- rounds ----------------------------------------------------------------------------------------------------------


async def test_committed_rows_become_rounds_in_commit_order(any_postgres: PostgresServer) -> None:
    """Interleaved transactions are yielded one after the other; the timestamp is the commit time."""
    server = any_postgres
    await server.make_rounds_table()
    async with reading(make_backend(server)) as reader:
        first, second = await server.connect(), await server.connect()
        begun = first.transaction(), second.transaction()
        await begun[0].start()
        await begun[1].start()
        for number, connection in enumerate([first, second, first, second], 1):
            await connection.execute(
                "INSERT INTO rounds VALUES ($1, 'double', 'color', '2026-01-18 10:00:30.5+00', '{\"n\": 7}')", number
            )
        written_ms = await second.fetchval("SELECT extract(epoch FROM clock_timestamp()) * 1000")
        await begun[1].commit()
        await begun[0].commit()
        committed_ms = await first.fetchval("SELECT extract(epoch FROM now()) * 1000")
        await first.close()
        await second.close()
        await reader.seen(4)
        end = reader.items[-1].offset.lsn
        assert await wait_for_sql(server, CONFIRMED, lambda lsn: lsn >= end)

    assert reader.ids == [2, 4, 1, 3]
    round_ = reader.rounds[0]
    assert (round_.finished_at, round_.extras) == ("2026-01-18T10:00:30.5Z", '{"n":"7"}')
    assert int(written_ms) <= round_.timestamp <= committed_ms
    assert reader.backend.status.state is SlotState.STREAMING
    await server.slots_released()


async def test_rows_of_one_copy_are_confirmed_together(postgres: PostgresServer) -> None:
    """All rows of a COPY share one offset, which is confirmed with the last of them."""
    await postgres.make_rounds_table()
    async with reading(make_backend(postgres), confirm=False) as reader:
        connection = await postgres.connect()
        records = [(n, "crash", "multiplier", None, None) for n in range(1, 501)]
        await connection.copy_records_to_table("rounds", records=records)
        await connection.execute("UPDATE rounds SET finished_at = now()")
        await connection.close()
        await reader.seen(500)
        reader.backend.confirm(reader.items[498].offset)
        half = reader.backend.status.confirmed_lsn

    assert len({item.offset for item in reader.items[:499]}) == 1
    assert reader.items[499].offset > reader.items[498].offset
    async with reading(make_backend(postgres)) as again:
        await again.seen(500)
        assert again.items[-1].offset.lsn > half
    assert [item.key for item in again.rejected] == [item.key for item in reader.rejected]


async def test_large_transaction_is_yielded_in_small_batches(postgres: PostgresServer) -> None:
    """Its rows are yielded as they arrive, and not collected."""
    await postgres.make_rounds_table()
    async with reading(make_backend(postgres)) as reader:
        await postgres.insert_rounds(1, 20_000)
        await reader.seen(20_000)

    assert reader.ids == list(range(1, 20_001))
    assert max(reader.batches) <= 1000


async def test_rejected_row_does_not_stop_others(any_postgres: PostgresServer) -> None:
    """NULL, NaN and infinity are rejected in order; rows with huge extras are rounds like others."""
    server = any_postgres
    await server.execute("CREATE TABLE rounds (round_id numeric, game_slug text, finished_at timestamptz, extras text)")
    async with reading(make_backend(server)) as reader:
        await server.execute(
            """
            INSERT INTO rounds VALUES (NULL, 'crash', now(), '{}'), ('NaN', 'crash', now(), '{}'),
                (3, 'crash', 'infinity', '{}'), (4, 'chess', now(), '{}'), (5, 'crash', now(), '{"point": NaN}'),
                (6, 'crash', now(), '{"a": "' || repeat('x', 3000000) || '"}'), (7, 'crash', now(), NULL)
            """
        )
        await reader.seen(7)

    assert reader.ids == [6, 7]
    assert [item.key for item in reader.rejected] == [
        f"public.rounds:{key}" for key in ("crash:None", "crash:NaN", "crash:3", "chess:4", "crash:5")
    ]
    assert len(reader.rounds[0].extras) > 3_000_000
    assert reader.rounds[1].game_type == "multiplier"


async def test_only_inserts_make_rounds(any_postgres: PostgresServer) -> None:
    """Updates (also with unchanged TOAST values), deletes and truncations are ignored, and need no key."""
    server = any_postgres
    await server.execute("CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz, extras jsonb)")
    async with reading(make_backend(server)) as reader:
        await server.execute(
            """
            INSERT INTO rounds SELECT 1, 'crash', now(), jsonb_build_object('a', string_agg(md5(n::text), ''))
            FROM generate_series(1, 3000) n;
            UPDATE rounds SET round_id = 2;
            DELETE FROM rounds;
            TRUNCATE rounds;
            INSERT INTO rounds VALUES (3, 'crash', now(), '{}');
            """
        )
        await reader.seen(2)

    assert reader.ids == [1, 3]


async def test_table_changed_while_streaming_is_read(any_postgres: PostgresServer) -> None:
    """Columns are added, dropped and changed in type; a renamed column stops capture with its name."""
    server = any_postgres
    await server.make_rounds_table(extras="text")
    async with reading(make_backend(server)) as reader:
        await server.insert_rounds(1, 2)
        await server.execute(
            """
            ALTER TABLE rounds ADD COLUMN note text DEFAULT 'x';
            ALTER TABLE rounds DROP COLUMN game_type;
            ALTER TABLE rounds ALTER COLUMN extras TYPE jsonb USING extras::jsonb;
            INSERT INTO rounds VALUES (3, 'crash', now(), '{"point": 2.50}', 'y');
            """
        )
        await reader.seen(3)
        await server.execute(
            "ALTER TABLE rounds RENAME extras TO payload; INSERT INTO rounds VALUES (4, 'crash', now(), '{}')"
        )
        with pytest.raises(ColumnMissing, match=r"has no column 'extras'; .*payload.* option 'extras_column'"):
            await reader.seen(4)

    assert reader.ids == [1, 2, 3]
    assert reader.rounds[2].extras == '{"point":"2.50"}'
    async with reading(make_backend(server, extras_column="payload")) as renamed:
        await renamed.seen(1)
    assert renamed.ids == [4]


async def test_rows_from_before_a_change_of_the_table_are_read_by_the_old_definition(
    any_postgres: PostgresServer,
) -> None:
    """The server decodes old rows by the old definition, if its session has not read the new one."""
    server = any_postgres
    await server.make_rounds_table(extras="text")
    await open_once(server)
    await server.insert_rounds(1, 2)
    await server.execute("ALTER TABLE rounds ALTER COLUMN extras TYPE jsonb USING extras::jsonb")
    await server.insert_rounds(3, 3)
    async with reading(make_backend(server, create=False)) as reader:
        await reader.seen(3)
    assert [round_.extras for round_ in reader.rounds] == ['{"point":"2.5"}'] * 3


async def test_partitioned_table_is_read_as_one(any_postgres: PostgresServer) -> None:
    """Rows of all partitions have the name of the table, also those of a partition added later."""
    server = any_postgres
    await server.execute(
        """
        CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz, extras jsonb)
        PARTITION BY RANGE (round_id);
        CREATE TABLE rounds_0 PARTITION OF rounds FOR VALUES FROM (0) TO (10);
        """
    )
    async with reading(make_backend(server)) as reader:
        await server.execute(
            """
            CREATE TABLE rounds_1 (extras jsonb, finished_at timestamptz, game_slug text, round_id bigint);
            ALTER TABLE rounds ATTACH PARTITION rounds_1 FOR VALUES FROM (10) TO (20);
            INSERT INTO rounds VALUES (1, 'crash', now(), '{}'), (11, 'crash', now(), '{}'), (2, 'dice', now(), '{}');
            """
        )
        await reader.seen(3)

    assert reader.ids == [1, 11, 2]


async def test_other_names_of_table_and_columns_are_options(postgres: PostgresServer) -> None:
    """Schema, table and columns are options; a table with that name in another schema is not read."""
    await postgres.make_rounds_table()
    await postgres.execute(
        'CREATE SCHEMA "Play"; CREATE TABLE "Play"."rounds"'
        ' ("Id" int, kind text, game text, "at" timestamp, data json);'
    )
    names = {
        "table": "Play.rounds",
        "round_id_column": "Id",
        "game_type_column": "kind",
        "game_slug_column": "game",
        "finished_at_column": "at",
        "extras_column": "data",
    }
    async with reading(make_backend(postgres, **names)) as reader:
        await postgres.execute("ALTER PUBLICATION stream_relay ADD TABLE rounds")
        await postgres.insert_rounds(1, 3)
        await postgres.execute(
            """INSERT INTO "Play"."rounds" VALUES (4, 'own', 'dice', '2026-01-18 10:00', '{"p":"1"}')"""
        )
        await reader.seen(1)

    (round_,) = reader.rounds
    assert (round_.round_id, round_.game_type, round_.finished_at) == (4, "own", "2026-01-18T10:00:00Z")


# --- how much WAL the server may remove ------------------------------------------------------------------------------


async def test_offset_advances_while_only_other_tables_are_written(any_postgres: PostgresServer) -> None:
    """Otherwise the server would keep WAL until the slot is lost."""
    server = any_postgres
    await server.make_rounds_table()
    await server.execute("CREATE TABLE neighbour (n int)")
    async with reading(make_backend(server, sender_timeout_s=1)) as reader:
        await server.insert_rounds(1, 1)
        await reader.seen(1)
        await server.execute("INSERT INTO neighbour SELECT generate_series(1, 10000)")
        (row,) = await server.fetch(HEAD)
        await wait_for_sql(server, CONFIRMED, lambda lsn: lsn >= row[0])


async def test_offset_does_not_pass_rounds_that_are_not_stored(postgres: PostgresServer) -> None:
    """It stays below unconfirmed rows and an open transaction, also while other tables are written."""
    await postgres.make_rounds_table()
    await postgres.execute("CREATE TABLE neighbour (n int)")
    async with reading(make_backend(postgres, sender_timeout_s=1), confirm=False) as reader:
        connection = await postgres.connect()
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO rounds VALUES (1, 'crash', NULL, now(), '{}')")
        await postgres.insert_rounds(2, 2)
        await reader.seen(1)
        await postgres.execute("INSERT INTO neighbour SELECT generate_series(1, 10000)")
        (row,) = await postgres.fetch(HEAD)
        await wait_for_sql(
            postgres,
            "SELECT write_lsn - '0/0'::pg_lsn FROM pg_stat_replication",
            lambda lsn: lsn is not None and lsn >= row[0],
        )
        assert (await postgres.fetch(CONFIRMED))[0][0] < reader.items[0].offset.lsn
        await transaction.commit()
        await connection.close()
        await reader.seen(2)

    async with reading(make_backend(postgres)) as again:
        await again.seen(2)
    assert again.ids == [2, 1]


async def test_heartbeat_advances_the_offset(postgres: PostgresServer) -> None:
    """Our message advances the slot in an idle database."""
    await postgres.make_rounds_table()
    async with reading(make_backend(postgres, heartbeat_s=0.05)):
        (row,) = await postgres.fetch(HEAD)
        await wait_for_sql(postgres, CONFIRMED, lambda lsn: lsn > row[0] + 1000)


async def test_closing_reports_the_last_offset(any_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds confirmed just before the end are not sent again, if the server answers within the limits of closing."""
    monkeypatch.setattr(publication_watch, "_LAST_S", WAIT_S)
    monkeypatch.setattr(replication_connection, "_CLOSE_S", WAIT_S)
    await any_postgres.make_rounds_table()
    async with reading(make_backend(any_postgres), confirm=False) as reader:
        await any_postgres.insert_rounds(1, 5)
        await reader.seen(5)
        reader.confirm_all()
    assert (await any_postgres.fetch(CONFIRMED))[0][0] >= reader.items[-1].offset.lsn


# --- set-up ----------------------------------------------------------------------------------------------------------


async def test_error_for_a_missing_slot_contains_the_sql_to_run(any_postgres: PostgresServer) -> None:
    """The SQL in the error works."""
    server = any_postgres
    await server.make_rounds_table()
    with pytest.raises(
        SlotLost, match=r"replication slot 'stream_relay' does not exist on .* \(missing\); run: "
    ) as lost:
        await open_once(server, create=False)

    for sql in re.findall(r"(?:CREATE|SELECT).*?;", str(lost.value)):
        await server.execute(sql)
    async with reading(make_backend(server, create=False)) as reader:
        await server.insert_rounds(1, 1)
        await reader.seen(1)


async def test_dropped_slot_is_not_recreated(postgres: PostgresServer) -> None:
    """A new slot would begin after the rounds of the old one, and the loss would go unnoticed."""
    await postgres.make_rounds_table()
    await open_once(postgres)
    await postgres.execute("SELECT pg_drop_replication_slot('stream_relay')")

    with pytest.raises(SlotLost) as lost:
        await open_once(postgres)

    assert lost.value.state is SlotState.MISSING


async def test_slot_creation_that_waits_for_a_transaction_names_its_session(any_postgres: PostgresServer) -> None:
    """The server waits for all open transactions; the error names the session, and the publication is dropped."""
    server = any_postgres
    await server.make_rounds_table()
    await server.execute("CREATE TABLE other (n int)")
    connection = await server.connect()
    await connection.execute("SET application_name = 'forgotten'; BEGIN; INSERT INTO other VALUES (1)")
    pid = connection.get_server_pid()
    for _ in range(2):
        with pytest.raises(
            SourceError,
            match=rf"cannot be created: no answer .* waits for the transaction of process {pid} "
            rf"\(postgres, forgotten\), open for \d+ s, .* pg_terminate_backend\({pid}\)",
        ):
            await open_once(server, connect_timeout_s=1.5)
    assert await server.fetch("SELECT FROM pg_replication_slots") == []
    assert await server.fetch("SELECT FROM pg_publication") == []
    await connection.close()
    await open_once(server)


@pytest.mark.parametrize("also_slot", [False, True], ids=["publication", "publication-and-slot"])
async def test_what_another_program_creates_at_the_same_time_is_used(postgres: PostgresServer, also_slot: bool) -> None:
    """Such a program does not take our lock: we find nothing first, and our CREATE then finds what it has created."""
    await postgres.make_rounds_table()
    other = await postgres.connect()
    await other.execute("BEGIN; CREATE PUBLICATION stream_relay FOR TABLE rounds WITH (publish = 'insert')")
    opening = asyncio.create_task(open_once(postgres))
    await wait_for_sql(postgres, "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'")
    creating = asyncio.create_task(postgres.execute(CREATE if also_slot else "SELECT"))
    await wait_for_sql(postgres, "SELECT count(*) FROM pg_replication_slots", lambda count: count == also_slot)
    await other.execute("COMMIT")
    await other.close()
    await asyncio.gather(opening, creating)

    async with reading(make_backend(postgres, create=False)) as reader:
        await postgres.insert_rounds(1, 1)
        await reader.seen(1)


async def test_publication_of_inserts_does_not_fail_updates(postgres: PostgresServer) -> None:
    """If updates were published, an UPDATE on a table without a key would fail."""
    await postgres.execute(
        "CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz NOT NULL, extras text)"
    )
    await open_once(postgres)

    await postgres.execute("UPDATE rounds SET round_id = 1; DELETE FROM rounds")

    row = (await postgres.fetch("SELECT * FROM pg_publication"))[0]
    assert [row[name] for name in ("pubinsert", "pubupdate", "pubdelete", "pubtruncate", "puballtables")] == [
        True, False, False, False, False,
    ]  # fmt: skip


async def test_failover_slot_is_created_if_the_server_supports_it(any_postgres: PostgresServer) -> None:
    """PostgreSQL 17 and later create it; older versions give one sentence."""
    await any_postgres.make_rounds_table()
    if any_postgres.version < 17:
        with pytest.raises(SourceError, match=r"option failover: needs PostgreSQL 17, and .* is 1[56]"):
            await open_once(any_postgres, failover=True)
    else:
        await open_once(any_postgres, failover=True)
        assert (await any_postgres.fetch("SELECT failover FROM pg_replication_slots"))[0][0] is True


async def test_unusable_source_says_what_to_do(any_postgres: PostgresServer) -> None:
    """Errors for the table, its columns and kind, rights, the database, and an unreachable server."""
    server = any_postgres
    await server.execute(
        "CREATE ROLE clerk LOGIN; CREATE UNLOGGED TABLE fleeting (round_id int); CREATE TABLE odd (round_id int)"
    )
    with pytest.raises(SourceError, match=r'has no table "public"."rounds"; set the option \'table\''):
        await open_once(server)
    with pytest.raises(SourceError, match=r'unlogged .* run: ALTER TABLE "public"."fleeting" SET LOGGED;'):
        await open_once(server, table="fleeting")
    with pytest.raises(ColumnMissing, match=r"has no column 'game_slug'; it has round_id; set the option"):
        await open_once(server, table="odd")
    with pytest.raises(SourceError, match='run: ALTER ROLE "clerk" REPLICATION;'):
        await open_once(server, dsn=server.dsn(user="clerk"))
    with pytest.raises(SourceError, match=r'cannot connect to 127.0.0.1:.*: .*database "nowhere" does not exist'):
        await open_once(server, dsn=server.dsn("nowhere"))
    await server.restart(wal_level="replica")
    with pytest.raises(SourceError, match=r"has wal_level 'replica', .* ALTER SYSTEM SET wal_level = 'logical'"):
        await open_once(server)
    await server.stop()
    with pytest.raises(SourceError, match=r"cannot connect to 127.0.0.1:.*: .*refused"):
        await open_once(server)


# --- a lost slot is a state ------------------------------------------------------------------------------------------


async def test_slot_of_another_kind_is_named(postgres: PostgresServer) -> None:
    """A physical slot, a slot of another plugin, or of another database."""
    await postgres.make_rounds_table()
    await postgres.execute("CREATE DATABASE other")
    await postgres.execute("CREATE PUBLICATION stream_relay FOR TABLE rounds")
    for database, sql in [
        ("postgres", "SELECT pg_create_physical_replication_slot('stream_relay')"),
        ("postgres", "SELECT pg_create_logical_replication_slot('stream_relay', 'test_decoding')"),
        ("other", "SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')"),
    ]:
        if "test_decoding" in sql and not await _has_test_decoding(postgres):
            continue
        await postgres.execute(sql, database=database)
        with pytest.raises(SlotLost, match="set the option 'slot' to another name") as lost:
            await open_once(postgres)
        assert lost.value.state is SlotState.FOREIGN
        await postgres.execute("SELECT pg_drop_replication_slot('stream_relay')", database=database)


async def _has_test_decoding(server: PostgresServer) -> bool:
    sql = "SELECT pg_create_logical_replication_slot('probe', 'test_decoding', true)"
    try:
        await server.execute(sql)
    except Exception:  # noqa: BLE001 - any error means that it is missing
        return False
    return True


async def test_slot_whose_wal_was_removed_is_invalidated(any_postgres: PostgresServer) -> None:
    """The server removed the WAL to save its disk, while no process read the slot."""
    server = any_postgres
    await server.restart(max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB")
    await server.make_rounds_table()
    await open_once(server)
    for number in range(4):
        await server.insert_rounds(number, number)
        await server.execute("SELECT pg_switch_wal()")
    await server.execute("CHECKPOINT")

    with pytest.raises(SlotLost, match=r"was invalidated: .* \(invalidated\); run: SELECT .*drop") as lost:
        await open_once(server)

    assert lost.value.state is SlotState.INVALIDATED


ADVANCE = "SELECT pg_replication_slot_advance('stream_relay', pg_current_wal_lsn())"
DROP = "SELECT pg_drop_replication_slot('stream_relay')"
CREATE = "SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')"


@pytest.mark.parametrize(
    ("tampering", "state"),
    [([ADVANCE], SlotState.MOVED), ([DROP, CREATE], SlotState.MOVED), ([DROP], SlotState.MISSING)],
    ids=["advanced", "recreated", "dropped"],
)
async def test_slot_moved_by_another_program_is_lost(
    any_postgres: PostgresServer, tampering: list[str], state: SlotState
) -> None:
    """The server would start at the new offset without an error, and the rounds in between would be missing."""
    server = any_postgres
    await server.make_rounds_table()
    async with Wire("ingest>postgres", lambda: server.port).listening() as wire:
        dsn = server.dsn().replace(str(server.port), str(wire.port))
        async with reading(make_backend(server, dsn, connect_timeout_s=1)) as reader:
            await server.insert_rounds(1, 1)
            await reader.seen(1)
            wire.swallow("back")
            await server.execute("SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots")
            await server.insert_rounds(2, 2)
            for sql in tampering:
                await server.execute(sql)
            wire.cut()
            with pytest.raises(SlotLost) as lost:
                await reader.seen(2)

    assert lost.value.state is reader.backend.status.state is state


async def test_publication_dropped_while_reading_is_missing(any_postgres: PostgresServer) -> None:
    """PostgreSQL 18 skips rows with a warning, older versions fail; neither loses rows unnoticed."""
    server = any_postgres
    await server.make_rounds_table()
    async with reading(make_backend(server)) as reader:
        await server.insert_rounds(1, 1)
        await reader.seen(1)
        await server.execute("DROP PUBLICATION stream_relay")
        await server.insert_rounds(2, 2)
        with pytest.raises(SlotLost, match=r"\(publication_missing\); run: CREATE PUBLICATION"):
            await reader.seen(2)
        confirmed = reader.backend.status.confirmed_lsn
        await server.execute("CREATE PUBLICATION stream_relay FOR TABLE rounds")
    assert confirmed < (await server.fetch(HEAD))[0][0]

    async with reading(make_backend(server)) as late:
        with pytest.raises(SlotLost, match="was created after the offset of replication slot 'stream_relay'") as lost:
            await late.seen(2)  # the first may be read again: it was there before
    assert lost.value.state is SlotState.PUBLICATION_LATE


async def test_unpublished_table_is_an_error(any_postgres: PostgresServer) -> None:
    """A publication of another table, of updates, or of partitions; the SQL in the error repairs each."""
    server = any_postgres
    await server.execute(
        """
        CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz, extras jsonb)
        PARTITION BY RANGE (round_id);
        CREATE TABLE rounds_0 PARTITION OF rounds FOR VALUES FROM (0) TO (10);
        """
    )
    for publication in (
        "FOR TABLE rounds WITH (publish = 'update', publish_via_partition_root)",
        "FOR TABLE rounds",
        "",
    ):
        await server.execute(f"CREATE PUBLICATION stream_relay {publication}")
        await server.execute("SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')")
        with pytest.raises(SlotLost, match=r"\(table_not_published\)") as lost:
            await open_once(server)
        for sql in re.findall(r"ALTER .*?;", str(lost.value)):
            await server.execute(sql)
        await open_once(server)
        await server.execute("SELECT pg_drop_replication_slot('stream_relay'); DROP PUBLICATION stream_relay")


NOT_ANY_MORE = "ALTER PUBLICATION stream_relay DROP TABLE rounds"
AGAIN = "ALTER PUBLICATION stream_relay ADD TABLE rounds"
SWAPPED = "ALTER TABLE rounds RENAME TO rounds_old; CREATE TABLE rounds (LIKE rounds_old INCLUDING ALL)"


@pytest.mark.parametrize(
    ("undone", "done_again", "state"),
    [
        (NOT_ANY_MORE, "", SlotState.TABLE_NOT_PUBLISHED),
        (NOT_ANY_MORE, AGAIN, SlotState.PUBLICATION_CHANGED),
        (SWAPPED, "", SlotState.TABLE_NOT_PUBLISHED),
        (SWAPPED, AGAIN, SlotState.PUBLICATION_CHANGED),
        ("DROP PUBLICATION stream_relay", "", SlotState.PUBLICATION_MISSING),
    ],
    ids=["taken out", "out and in", "swapped", "swapped and in", "dropped"],
)
async def test_table_removed_from_the_publication_while_reading_is_an_error(
    any_postgres: PostgresServer,
    monkeypatch: pytest.MonkeyPatch,
    undone: str,
    done_again: str,
    state: SlotState,
) -> None:
    """The server reports nothing; the offset does not pass the missing rows, and the state names the cause."""
    server, changing = any_postgres, asyncio.Lock()

    async def check_before_or_after(link: ReplicationConnection, options: ReplicationOptions) -> str | None:
        async with changing:
            return await check_publication(link, options)

    monkeypatch.setattr(publication_watch, "check_publication", check_before_or_after)
    await server.make_rounds_table()
    async with reading(make_backend(server, sender_timeout_s=1)) as reader:
        await server.insert_rounds(1, 1)
        await reader.seen(1)
        async with changing:
            await server.execute(undone)
            (row,) = await server.fetch(HEAD)
            await server.insert_rounds(2, 2)
            if done_again:
                await server.execute(done_again)
        with pytest.raises(SlotLost) as lost:
            await reader.seen(2)

    assert lost.value.state is reader.backend.status.state is state
    assert (await server.fetch(CONFIRMED))[0][0] <= row[0]


async def test_table_renamed_in_a_publication_of_all_tables_is_an_error(postgres: PostgresServer) -> None:
    """Rows of the renamed table are published under the new name: they are not skipped."""
    await postgres.make_rounds_table()
    await postgres.execute("CREATE PUBLICATION stream_relay FOR ALL TABLES")
    await postgres.execute("SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')")
    async with reading(make_backend(postgres)) as reader:
        await postgres.insert_rounds(1, 1)
        await reader.seen(1)
        await postgres.execute(SWAPPED)
        await postgres.insert_rounds(2, 2, table="rounds_old")
        with pytest.raises(SlotLost) as lost:
            await reader.seen(2)
    assert lost.value.state is SlotState.PUBLICATION_CHANGED


async def test_slot_invalidated_while_reading_is_an_error(any_postgres: PostgresServer) -> None:
    """If the reader takes nothing for too long, the server invalidates the slot; the state names the cause."""
    server = any_postgres
    await server.restart(max_slot_wal_keep_size="1MB", min_wal_size="32MB", max_wal_size="32MB")
    await server.make_rounds_table()
    async with reading(make_backend(server), confirm=False) as reader:
        await server.insert_rounds(1, 1)
        await reader.seen(1)
        reader.stop_taking()
        for number in range(2, 6):
            await server.insert_rounds(number, number)
            await server.execute("SELECT pg_switch_wal()")
        await server.execute("CHECKPOINT")
        reader.take_again()
        with pytest.raises(SlotLost) as lost:
            await reader.until(lambda: False)
    assert lost.value.state is SlotState.INVALIDATED
