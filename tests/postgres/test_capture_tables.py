"""Tables as people have them, by replication from real servers: updates, several tables, an outbox, children."""

import re
from typing import Any

import pytest

from backends.contract import Captured, SourceError
from backends.postgres.replication.slot import SlotLost, SlotState
from tests.nats import NatsServer
from tests.postgres.ingesting import ingesting
from tests.postgres.reading import CONFIRMED, make_backend, reading, wait_for_sql
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service


def shown(items: list[Any]) -> list[str]:
    """Write each item as game, round id and point, with ``+`` for a correction and ``-`` for a void."""
    words = []
    for item in items:
        assert isinstance(item, Captured), item
        mark = "-" if item.round.voided else "+" if item.is_correction else ""
        words.append(f"{item.round.game_slug} {item.round.round_id}{mark} {item.round.extras}")
    return words


FINISHED_BY_UPDATE = """
CREATE TYPE round_state AS ENUM ('betting', 'running', 'finished', 'aborted');
CREATE TABLE crash_rounds (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state round_state NOT NULL DEFAULT 'betting',
    multiplier numeric(12, 2), started_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz, proof text
);
ALTER TABLE crash_rounds ALTER COLUMN proof SET STORAGE EXTERNAL;
"""
UPDATE_OPTIONS = {
    "table": "crash_rounds",
    "game_slug": "crash",
    "round_id_column": "id",
    "finished_at_column": "ended_at",
    "finished_when": "state = 'finished'",
    "extras_columns": "point=multiplier,proof",
}


async def test_rounds_that_an_update_finishes_are_captured_once(any_postgres: PostgresServer) -> None:
    """In the order of the finishing commits, with large values that the update did not touch, over a restart."""
    server = any_postgres
    await server.execute(FINISHED_BY_UPDATE)
    async with reading(make_backend(server, **UPDATE_OPTIONS)) as reader:
        await server.execute("INSERT INTO crash_rounds (proof) SELECT repeat('x', 9000) FROM generate_series(1, 3)")
        await server.execute("UPDATE crash_rounds SET state = 'running' WHERE id = 1")
        finish = "UPDATE crash_rounds SET state = 'finished', multiplier = {}, ended_at = now() WHERE id = {}"
        await server.execute(finish.format("2.50", 3))
        await server.execute("UPDATE crash_rounds SET state = 'aborted' WHERE id = 2")
        await server.execute(finish.format("1.00", 1))
        await reader.seen(2)
        assert reader.backend.status.unfinished == 3
    await server.execute("UPDATE crash_rounds SET started_at = now(), multiplier = multiplier + 1")
    await server.execute("INSERT INTO crash_rounds (proof) VALUES ('y')")
    await server.execute(finish.format("4.00", 4))
    async with reading(make_backend(server, **UPDATE_OPTIONS)) as again:
        await again.seen(1)

    large = "x" * 9000
    assert shown(reader.items) == [
        f'crash 3 {{"point":"2.50","proof":"{large}"}}', f'crash 1 {{"point":"1.00","proof":"{large}"}}',
    ]  # fmt: skip
    assert shown(again.items) == ['crash 4 {"point":"4.00","proof":"y"}']
    (row,) = await server.fetch("SELECT pubinsert, pubupdate, pubdelete FROM pg_publication")
    assert tuple(row) == (True, True, False)
    (row,) = await server.fetch("SELECT relreplident FROM pg_class WHERE relname = 'crash_rounds'")
    assert row[0] == b"f"


async def test_several_tables_and_an_outbox_are_read_through_one_slot(any_postgres: PostgresServer) -> None:
    """Rows keep their order across tables; rows of the outbox are deleted at once, and other events are no rejects."""
    server = any_postgres
    await server.execute(
        """
        CREATE SCHEMA gaming;
        CREATE TABLE gaming.dice (id bigserial PRIMARY KEY, roll int NOT NULL, done timestamptz NOT NULL DEFAULT now());
        CREATE TABLE gaming.plinko (id bigserial, path int[] NOT NULL, done timestamptz);
        CREATE TABLE outbox (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), aggregate text, payload jsonb NOT NULL);
        """
    )
    tables = [
        {"table": "gaming.dice", "game_slug": "dice", "round_id_column": "id", "finished_at_column": "done",
         "extras_columns": ["roll"]},
        {"table": "gaming.plinko", "game_slug": "plinko", "round_id_column": "id", "finished_at_column": "done",
         "extras_columns": ["path"]},
        {"table": "outbox", "round_id_column": "payload.round.no", "game_slug_column": "aggregate",
         "finished_at_column": "payload.at", "extras_column": "payload.round.result",
         "rows_when": "aggregate = 'crash'", "finished_by": "insert"},
    ]  # fmt: skip
    async with reading(make_backend(server, tables=tables)) as reader:
        await server.execute(
            """
            BEGIN;
            INSERT INTO gaming.plinko (path) VALUES ('{0,1,1}');
            INSERT INTO gaming.dice (roll) VALUES (42);
            UPDATE gaming.plinko SET done = now();
            INSERT INTO outbox (aggregate, payload)
            VALUES ('crash', '{"round": {"no": 501, "result": {"point": 3.14}}, "at": "2026-01-18T10:00:30Z"}'),
            ('wallet', '{"amount": 10}');
            DELETE FROM outbox;
            COMMIT;
            INSERT INTO gaming.dice (roll) VALUES (7);
            """
        )
        await reader.seen(4)
        assert reader.backend.status.others == 1
        end = reader.items[-1].offset.lsn
        await wait_for_sql(server, CONFIRMED, lambda lsn: lsn >= end)

    assert shown(reader.items) == [
        'dice 1 {"roll":"42"}', 'plinko 1 {"path":["0","1","1"]}', 'crash 501 {"point":"3.14"}', 'dice 2 {"roll":"7"}',
    ]  # fmt: skip


async def test_corrections_and_voids_are_read_once_each(any_postgres: PostgresServer) -> None:
    """Also when an update moves a row to another partition; a truncation and a dropped partition void nothing."""
    server = any_postgres
    await server.execute(
        """
        CREATE TABLE rounds (round_id bigint, game_slug text NOT NULL, finished_at timestamptz, extras jsonb,
            voided boolean NOT NULL DEFAULT false) PARTITION BY LIST (voided);
        CREATE TABLE rounds_valid PARTITION OF rounds FOR VALUES IN (false);
        CREATE TABLE rounds_void PARTITION OF rounds FOR VALUES IN (true);
        """
    )
    options: dict[str, Any] = {"corrections": True, "voided_when": "voided", "deletes": "void"}
    async with reading(make_backend(server, **options)) as reader:
        await server.execute(
            """
            INSERT INTO rounds SELECT n, 'crash', now(), '{"point": "2.00"}' FROM generate_series(1, 4) n;
            UPDATE rounds SET extras = '{"point": "2.01"}' WHERE round_id = 1;
            UPDATE rounds SET voided = true WHERE round_id = 2;
            UPDATE rounds SET voided = false WHERE round_id = 2;
            DELETE FROM rounds WHERE round_id = 3;
            """
        )
        await reader.seen(8)
        await server.execute("TRUNCATE rounds_void; DROP TABLE rounds_valid")
        await server.execute("INSERT INTO rounds VALUES (9, 'crash', now(), '{}', true)")
        await server.execute(  # at once: otherwise the publication is faulty for a moment
            "CREATE TABLE rounds_valid PARTITION OF rounds FOR VALUES IN (false);"
            "ALTER TABLE rounds_valid REPLICA IDENTITY FULL"
        )
        await server.execute("INSERT INTO rounds VALUES (10, 'crash', now(), '{}', false)")
        await reader.seen(9)

    two = '{"point": "2.00"}'
    assert shown(reader.items) == [
        *(f"crash {number} {two}" for number in (1, 2, 3, 4)),
        'crash 1+ {"point": "2.01"}', f"crash 2- {two}", f"crash 2 {two}", f"crash 3- {two}", "crash 10 {}",
    ]  # fmt: skip


INHERITED = """
CREATE TABLE rounds (round_id bigserial, game_slug text NOT NULL, finished_at timestamptz NOT NULL DEFAULT now(),
    extras jsonb NOT NULL);
CREATE SCHEMA chunks;
CREATE TABLE chunks.one (CHECK (finished_at >= '2026-11-01')) INHERITS (rounds);
"""


async def test_children_are_captured_or_named_when_they_appear(any_postgres: PostgresServer) -> None:
    """A publication includes the children that exist when it is created; a later one is not included."""
    server = any_postgres
    await server.execute(INHERITED)
    insert = "INSERT INTO {} (game_slug, extras) VALUES ('pipa-brazil', '{{\"point\": 4.5}}')"
    async with reading(make_backend(server)) as reader:
        await server.execute(insert.format("chunks.one"))
        await server.execute(insert.format("rounds"))
        await reader.seen(2)
        await server.execute("CREATE TABLE chunks.two () INHERITS (rounds)")
        await server.execute(insert.format("chunks.two"))
        with pytest.raises(SlotLost, match=r'does not publish rows of "chunks"."two", a child of .* INHERITS') as lost:
            await reader.seen(3)
    assert lost.value.state is SlotState.TABLE_NOT_PUBLISHED
    assert len(reader.rounds) == 2

    for sql in re.findall(r"ALTER .*?;", str(lost.value)):
        await server.execute(sql)
    await server.execute(insert.format("chunks.two"))
    async with reading(make_backend(server)) as mended:
        await mended.seen(1)


async def test_child_that_appears_in_a_publication_of_all_tables_is_captured(any_postgres: PostgresServer) -> None:
    """Its rows come in their place, and those of other tables are not ours."""
    server = any_postgres
    await server.execute(INHERITED)
    await server.execute("CREATE PUBLICATION stream_relay FOR ALL TABLES WITH (publish = 'insert')")
    await server.execute("SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')")
    insert = "INSERT INTO {} (round_id, game_slug, extras) VALUES ({}, 'pipa-brazil', '{{\"point\": 4.5}}');"
    async with reading(make_backend(server)) as reader:
        await server.execute(insert.format("rounds", 1))
        await reader.seen(1)
        await server.execute(
            "CREATE TABLE bets (LIKE rounds INCLUDING DEFAULTS); CREATE TABLE chunks.two () INHERITS (chunks.one);"
            + insert.format("bets", 9)
            + insert.format("chunks.two", 2)
        )
        await server.execute(insert.format("bets", 9) + insert.format("rounds", 3) + insert.format("chunks.two", 4))
        await reader.seen(4)
        end = reader.items[-1].offset.lsn
        await wait_for_sql(server, CONFIRMED, lambda lsn: lsn >= end)
    assert reader.ids == [1, 2, 3, 4]


async def test_partition_that_is_attached_with_rows_is_named(any_postgres: PostgresServer) -> None:
    """Its rows were not sent; an empty one is captured like any other, and rows of the same transaction too."""
    server = any_postgres
    await server.execute(
        """
        CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz NOT NULL, extras jsonb)
        PARTITION BY RANGE (round_id);
        CREATE TABLE rounds_0 PARTITION OF rounds FOR VALUES FROM (0) TO (10);
        CREATE TABLE rounds_1 (LIKE rounds);
        CREATE TABLE rounds_2 (LIKE rounds);
        INSERT INTO rounds_2 VALUES (21, 'crash', now(), '{}');
        """
    )
    async with reading(make_backend(server)) as reader:
        await server.execute(
            "ALTER TABLE rounds ATTACH PARTITION rounds_1 FOR VALUES FROM (10) TO (20);"
            "INSERT INTO rounds VALUES (1, 'crash', now(), '{}'), (11, 'crash', now(), '{}')"
        )
        await reader.seen(2)
        await server.execute("ALTER TABLE rounds ATTACH PARTITION rounds_2 FOR VALUES FROM (20) TO (30)")
        await server.execute("INSERT INTO rounds VALUES (2, 'crash', now(), '{}')")
        with pytest.raises(SlotLost, match=r"public\.rounds_2 became part .* with rows in it.* accept_lsn = ") as lost:
            await reader.until(lambda: False)
    assert lost.value.state is SlotState.PUBLICATION_CHANGED


ALTER = "ALTER PUBLICATION stream_relay"
LESS = [
    ("SET (publish = 'update')", "SET (publish = 'insert')"),
    ("DROP TABLE rounds", "ADD TABLE rounds"),
    ("SET TABLE rounds WHERE (round_id < 5)", "SET TABLE rounds"),
    ("SET TABLE rounds (round_id)", "SET TABLE rounds"),
]


async def test_publication_that_sends_less_for_a_while_is_noticed(any_postgres: PostgresServer) -> None:
    """Changed and changed back within one transaction; the slot does not pass what was not sent."""
    server = any_postgres
    table = "(round_id bigint, game_slug text, finished_at timestamptz NOT NULL DEFAULT now(), extras jsonb)"
    await server.execute(f"CREATE TABLE rounds {table}; CREATE TABLE other {table}")
    insert = "INSERT INTO rounds (round_id, game_slug) VALUES (1, 'crash')"
    for less, back in LESS:
        async with reading(make_backend(server)) as reader:
            await server.execute(insert)
            await reader.seen(1)
            # Further tables are no reason to stop.
            await server.execute("ALTER PUBLICATION stream_relay ADD TABLE other")
            await server.execute("ALTER PUBLICATION stream_relay DROP TABLE other")
            await server.execute(f"BEGIN; {ALTER} {less}; {insert}; {ALTER} {back}; COMMIT")
            (row,) = await server.fetch("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn")
            with pytest.raises(SlotLost, match="accept_lsn") as lost:
                await reader.until(lambda: False)
        assert lost.value.state is SlotState.PUBLICATION_CHANGED, less
        assert (await server.fetch(CONFIRMED))[0][0] <= row[0], less

    await server.execute("SELECT pg_drop_replication_slot('stream_relay'); DROP PUBLICATION stream_relay")
    away = f"CREATE SCHEMA away; ALTER TABLE rounds SET SCHEMA away; {insert.replace('rounds', 'away.rounds', 1)}"
    wide = {"publication": "wide", "slot": "wide"}
    await server.execute("CREATE PUBLICATION wide FOR TABLES IN SCHEMA public WITH (publish = 'insert')")
    await server.execute("SELECT pg_create_logical_replication_slot('wide', 'pgoutput')")
    async with reading(make_backend(server, create=False, **wide)) as reader:
        await server.execute(insert)
        await reader.seen(1)
        await server.execute(f"BEGIN; {away}; ALTER TABLE away.rounds SET SCHEMA public; COMMIT")
        with pytest.raises(SlotLost, match="removed from the publication") as lost:
            await reader.until(lambda: False)
    assert lost.value.state is SlotState.PUBLICATION_CHANGED

    async with reading(make_backend(server, create=False, **wide)) as reader:
        await server.execute(insert)
        await reader.seen(1)
        await server.execute("ALTER TABLE rounds SET UNLOGGED")
        with pytest.raises(SlotLost, match=r"is unlogged.* run: ALTER TABLE \"public\".\"rounds\" SET LOGGED; then"):
            await reader.until(lambda: False)


async def test_publication_that_sends_less_at_the_start_is_named_with_the_remedy(any_postgres: PostgresServer) -> None:
    """Row filters, lists of columns, and generated columns by version; each remedy works."""
    server = any_postgres
    await server.execute(
        """
        CREATE TABLE rounds (round_id bigint PRIMARY KEY, game_slug text, finished_at timestamptz NOT NULL,
            cents int, extras text GENERATED ALWAYS AS ('{"point": "' || cents || '"}') STORED)
        """
    )
    make = "CREATE PUBLICATION stream_relay FOR TABLE rounds {} WITH (publish = 'insert'); "
    slot = "SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')"
    cases = [
        ("WHERE (round_id > 5)", "", r"publishes only rows of .* WHERE .*round_id > 5"),
        ("(round_id, game_slug)", "", "does not send column 'finished_at'"),
        ("", "", "'extras' of .* is generated, and publication 'stream_relay' does not send it"),
    ]
    for definition, _, sentence in cases:
        await server.execute(make.format(definition))
        await server.execute(slot)
        with pytest.raises(SlotLost, match=sentence) as lost:
            async with make_backend(server).open():
                pass
        assert lost.value.state is SlotState.TABLE_NOT_PUBLISHED
        repair = re.findall(r"ALTER .*?;", str(lost.value))
        if "generated" in sentence:
            assert ("publish_generated_columns" in repair[0]) is (server.version >= 18)
        for sql in repair:
            await server.execute(sql)
        if "generated" in sentence:
            async with make_backend(server).open():
                pass
            await server.slots_released()
        await server.execute("SELECT pg_drop_replication_slot('stream_relay'); DROP PUBLICATION stream_relay")


async def test_setup_does_not_make_the_owners_updates_fail(postgres: PostgresServer) -> None:
    """A table without a key gets an identity; a virtual generated column cannot, and is refused."""
    await postgres.execute(
        """
        CREATE TABLE a (round_id bigint, game_slug text, game_type text, finished_at timestamptz, extras jsonb,
            twice bigint GENERATED ALWAYS AS (round_id * 2) STORED);
        CREATE TABLE b (LIKE a); ALTER TABLE b ALTER finished_at SET NOT NULL, DROP COLUMN twice;
        CREATE TABLE c (round_id bigint, game_slug text, game_type text, finished_at timestamptz, extras jsonb,
            twice bigint GENERATED ALWAYS AS (round_id * 2) VIRTUAL);
        """
    )
    async with reading(make_backend(postgres, tables=[{"table": "a"}, {"table": "b"}])) as reader:
        await postgres.insert_rounds(1, 1, table="a (round_id, game_slug, game_type, finished_at, extras)")
        await postgres.insert_rounds(1, 1, table="b")
        await postgres.execute("UPDATE a SET round_id = 2; UPDATE b SET round_id = 2; DELETE FROM b")
        await reader.seen(2)
    with pytest.raises(SourceError, match="virtual generated column 'twice'"):
        async with make_backend(postgres, table="c", slot="other", publication="other").open():
            pass
    assert await postgres.fetch("SELECT FROM pg_publication WHERE pubname = 'other'") == []
    await postgres.execute("INSERT INTO c VALUES (1); UPDATE c SET round_id = 2")


async def test_rounds_come_as_logical_messages(any_postgres: PostgresServer) -> None:
    """Only with our prefix, of bounded size and transactional; no table is needed."""
    server = any_postgres
    emit = "SELECT pg_logical_emit_message({}, '{}', '{}')"
    content = '{"round_id": %d, "game_slug": "crash", "finished_at": "2026-01-18T10:00:30Z", "extras": {"point": 2.50}}'
    async with reading(make_backend(server, message_prefix="stream_relay")) as reader:
        await server.execute(emit.format("true", "stream_relay", content % 1))
        await server.execute(emit.format("true", "other", content % 2))
        await server.execute("BEGIN;" + emit.format("true", "stream_relay", content % 3) + "; ROLLBACK")
        await server.execute(emit.format("true", "stream_relay", "[]"))
        await server.execute("SELECT pg_logical_emit_message(true, 'stream_relay', repeat('x', 2000000))")
        await server.execute(emit.format("false", "stream_relay", content % 4))
        await server.execute(emit.format("true", "stream_relay", content % 5))
        await reader.seen(5)
        end = max(item.offset.lsn for item in reader.items)
        await wait_for_sql(server, CONFIRMED, lambda lsn: lsn >= end)

    assert reader.ids == [1, 5]
    assert reader.rounds[0].extras == '{"point":"2.50"}'
    reasons = [item.reason for item in reader.rejected]
    assert [reason[:30] for reason in reasons] == [
        "the message '[]' is not a JSON", "the message has 2000000 bytes;", "the message is not transaction",
    ]  # fmt: skip


async def test_publication_that_sent_less_while_ingest_was_away_is_noticed(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """The log has the versions of its catalogue rows; what sends more is no reason to stop."""
    await postgres.execute(
        "CREATE TABLE rounds (round_id bigint, game_slug text, game_type text, finished_at timestamptz NOT NULL, "
        "extras jsonb)"
    )
    steps = f"CREATE TABLE more (n int); {ALTER} ADD TABLE more; ALTER TABLE rounds RENAME TO a"
    for between, sentence in (
        (f"{steps}; ALTER TABLE a RENAME TO rounds", None),
        (f"BEGIN; {ALTER} SET (publish = 'update'); {ALTER} SET (publish = 'insert'); COMMIT", "perhaps altered back"),
    ):
        await ingest_once(postgres, nats)
        await postgres.execute(between)
        if sentence is None:
            await ingest_once(postgres, nats)
        else:
            with pytest.raises(SlotLost, match=sentence):
                await ingest_once(postgres, nats)


async def ingest_once(postgres: PostgresServer, nats: NatsServer) -> None:
    """Run ingest until it streams; raise what ends it before."""
    backend = make_backend(postgres)
    async with ingesting(backend, nats) as task:
        await until(lambda: backend.status.state is SlotState.STREAMING or task.done())
    await postgres.slots_released()
