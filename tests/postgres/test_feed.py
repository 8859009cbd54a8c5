"""The feed on a real server: what its triggers copy, that they fail nobody's statement, and how it is cared for."""

import json
import re
from typing import Any

import pytest

from backends.postgres.feed.feed_table import FEED
from backends.postgres.findings import Verdict
from backends.postgres.source_admin import SourceAdmin, admin_of, run_sql
from backends.postgres.statements import statement
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service

CRASH = """
CREATE TYPE round_state AS ENUM ('betting', 'running', 'finished', 'aborted');
CREATE TABLE crash_rounds (
    id bigint GENERATED ALWAYS AS IDENTITY, state round_state NOT NULL DEFAULT 'betting', multiplier numeric(12, 2),
    ended_at timestamptz, voided boolean NOT NULL DEFAULT false, note char(6), touched int
);
"""
OPTIONS = {
    "feed": "true",
    "table": "crash_rounds",
    "round_id_column": "id",
    "game_slug": "crash",
    "finished_at_column": "ended_at",
    "extras_columns": "point=multiplier, note",
    "finished_when": "state = 'finished'",
    "voided_when": "voided",
    "deletes": "void",
}
FINISH = "UPDATE crash_rounds SET state = 'finished', multiplier = 2.50, ended_at = '2026-11-29 12:00:00.5+02'"


def admin(
    server: PostgresServer, backend: str = "postgres-notify", user: str = "postgres", **options: str
) -> SourceAdmin:
    return admin_of(backend, {"dsn": server.dsn(user=user), **OPTIONS, **options})


async def feed_of(server: PostgresServer) -> list[tuple[Any, ...]]:
    """The rows of the feed: old and new values, and the error."""
    rows = await server.fetch(f"SELECT old, new, error FROM {FEED} ORDER BY seq")  # noqa: S608
    return [tuple(json.loads(value) if value and value[0] == "{" else value for value in row) for row in rows]


async def failures(admin: SourceAdmin) -> list[str]:
    return [finding.text for finding in await admin.check() if finding.verdict is Verdict.FAILURE]


async def test_triggers_copy_what_concerns_a_round(any_postgres: PostgresServer) -> None:
    """Each way to finish a round is one row of the feed, touched rows are none, for a role without any right on it.

    Values have the text of pgoutput, with any settings of the writer's session.
    """
    server = any_postgres
    await server.execute(CRASH)
    await admin(server).set_up(None)
    await server.execute(
        "CREATE ROLE writer LOGIN; GRANT ALL ON crash_rounds TO writer; CREATE TABLE done (LIKE crash_rounds)"
    )
    await server.execute("GRANT ALL ON done TO writer")
    finished = {
        "id": "1",
        "ended_at": "2026-11-29 10:00:00.5+00",
        "multiplier": "2.50",
        "note": None,
        "state": "finished",
    }
    finished |= {"voided": "f"}

    await server.execute(
        f"""
        SET DateStyle = 'German'; SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'sql_standard';
        SET extra_float_digits = -5; SET search_path = public;
        INSERT INTO crash_rounds DEFAULT VALUES; UPDATE crash_rounds SET state = 'running'; {FINISH};
        UPDATE crash_rounds SET touched = 1; UPDATE crash_rounds SET state = 'finished';
        UPDATE crash_rounds SET note = 'late'; UPDATE crash_rounds SET voided = true;
        INSERT INTO crash_rounds DEFAULT VALUES; UPDATE crash_rounds SET state = 'aborted' WHERE id = 2;
        DELETE FROM crash_rounds WHERE id = 2;
        INSERT INTO crash_rounds (state, multiplier) VALUES ('finished', 'NaN'); DELETE FROM crash_rounds WHERE id = 3;
        """,  # noqa: S608
        user="writer",
    )

    nan = finished | {"id": "3", "multiplier": "NaN", "ended_at": None}
    late = finished | {"note": "late  "}
    assert await feed_of(server) == [
        (None, finished, None),
        (finished, late, None),
        (late, late | {"voided": "t"}, None),
        (None, nan, None),
        (nan, None, None),
    ]
    # COPY, ON CONFLICT and MERGE, in one transaction; TRUNCATE voids nothing.
    await server.execute("CREATE UNIQUE INDEX ON crash_rounds (id)")
    insert, values = "INSERT INTO crash_rounds (id) OVERRIDING SYSTEM VALUE VALUES", "VALUES (10)"
    await server.execute(
        f"""
        COPY crash_rounds (state, multiplier) FROM PROGRAM 'printf "finished\\t1.5\\n"';
        {insert} (9); {insert} (9) ON CONFLICT (id) DO UPDATE SET state = 'finished';
        {insert} (10);
        MERGE INTO crash_rounds AS c USING ({values}) AS v (id) ON c.id = v.id
        WHEN MATCHED THEN UPDATE SET state = 'finished';
        TRUNCATE crash_rounds;
        """  # noqa: S608
    )
    assert [(old, new["id"]) for old, new, _ in (await feed_of(server))[5:]] == [(None, "4"), (None, "9"), (None, "10")]


async def test_partitions_and_children_fill_the_feed_once(postgres: PostgresServer) -> None:
    """Also for statements that name them, and when an UPDATE moves a finished row to another partition."""
    await postgres.execute(
        """
        CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz, extras jsonb, shard int)
        PARTITION BY LIST (shard);
        CREATE TABLE rounds_1 PARTITION OF rounds FOR VALUES IN (1);
        CREATE TABLE parent (LIKE rounds); CREATE TABLE child () INHERITS (parent);
        """
    )
    options = {"dsn": postgres.dsn(), "feed": "true", "tables": '[{"table": "rounds"}, {"table": "parent"}]'}
    await admin_of("postgres-notify", options).set_up(None)

    await postgres.execute(
        """
        CREATE TABLE rounds_2 PARTITION OF rounds FOR VALUES IN (2);
        INSERT INTO rounds_1 (round_id, game_slug, shard) VALUES (1, 'crash', 1), (2, 'crash', 1);
        UPDATE rounds SET finished_at = now();
        UPDATE rounds SET shard = 2; DELETE FROM rounds WHERE round_id = 1;
        INSERT INTO rounds VALUES (3, 'crash', now(), NULL, 1);
        INSERT INTO child VALUES (4, 'crash', now()); UPDATE parent SET extras = '{"point": "1"}';
        """
    )

    found = [(old and old["round_id"], new["round_id"]) for old, new, _ in await feed_of(postgres)]
    assert found == [(None, "1"), (None, "2"), ("1", "1"), ("2", "2"), (None, "3"), (None, "4"), ("4", "4")]
    assert await failures(admin_of("postgres-notify", options)) == []


async def test_rows_that_move_between_partitions_are_not_deleted(any_postgres: PostgresServer) -> None:
    """With deletes="void": a move or a replacement is one change. A deleted row comes at the end at the latest."""
    server = any_postgres
    await server.execute(
        """
        CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz, extras jsonb, shard int)
        PARTITION BY LIST (shard);
        CREATE TABLE rounds_1 PARTITION OF rounds FOR VALUES IN (1);
        CREATE TABLE rounds_2 PARTITION OF rounds FOR VALUES IN (2);
        """
    )
    admin = admin_of("postgres-notify", {"dsn": server.dsn(), "feed": "true", "table": "rounds", "deletes": "void"})
    await admin.set_up(None)
    await server.execute("CREATE TABLE rounds_3 PARTITION OF rounds FOR VALUES IN (3)")

    async def changes(sql: str) -> list[tuple[str | None, str | None]]:
        await server.execute(f"TRUNCATE {FEED}; {sql}")
        return [(old and old["round_id"], new and new["round_id"]) for old, new, _ in await feed_of(server)]

    insert = "INSERT INTO rounds SELECT n, 'crash', now(), NULL, 1 FROM generate_series(1, 4) n"
    assert await changes(insert) == [(None, str(n)) for n in (1, 2, 3, 4)]
    assert await changes("UPDATE rounds SET shard = 3") == [(str(n), str(n)) for n in (1, 2, 3, 4)]
    deleted = "DELETE FROM rounds_3 WHERE round_id IN (1, 2)"
    assert await changes(f"{deleted}; SELECT 1") == [("1", None), ("2", None)]
    replaced = """
        DELETE FROM rounds WHERE round_id > 2;
        INSERT INTO rounds (round_id, game_slug, shard) VALUES (3, 'crash', 2);
        INSERT INTO rounds VALUES (4, 'crash', now(), NULL, 2);
        UPDATE rounds SET finished_at = now() WHERE round_id = 3;
        DELETE FROM rounds WHERE round_id = 4
    """
    assert await changes(replaced) == [("3", None), ("4", "4"), (None, "3"), ("4", None)]
    assert await failures(admin) == []
    await admin.set_up(None)
    await run_sql(admin.options, admin.teardown_sql())
    assert await server.fetch("SELECT tgname FROM pg_trigger WHERE tgname LIKE 'stream_relay%'") == []


async def test_triggers_fail_no_statement(postgres: PostgresServer) -> None:
    """A renamed column, a huge row, a sequence that was set back, a feed that is gone: the owner's writes succeed."""
    await postgres.execute(CRASH.replace("touched int", "touched int, story text"))
    await admin(postgres, extras_columns="note, story").set_up(None)
    insert = "INSERT INTO crash_rounds (state, story) VALUES ('finished', {})"

    await postgres.execute(insert.format("repeat('x', 9000000)"))
    await postgres.execute(f"ALTER SEQUENCE {FEED}_seq_seq RESTART; {insert.format(1)}; {insert.format(2)}")
    await postgres.execute(f"ALTER TABLE crash_rounds RENAME COLUMN note TO remark; {insert.format(3)}")

    rows = await feed_of(postgres)
    assert [new and (new["id"], len(new["story"])) for _, new, _ in rows] == [("1", 1000), ("2", 1), ("3", 1), None]
    assert "the row has 90000" in rows[0][2]
    assert 'record "new" has no field "note"' in rows[3][2]
    await postgres.execute(f"DROP TABLE {FEED}; {insert.format(4)}")
    assert any("was not captured" in line for line in postgres.log)
    assert any("is missing" in text for text in await failures(admin(postgres, extras_columns="story")))


async def test_check_names_what_does_not_fill_the_feed(postgres: PostgresServer) -> None:
    """A disabled or outdated trigger, a new child, missing rights; setup mends each, and touches nothing else."""
    await postgres.execute(CRASH)
    await postgres.execute("CREATE TABLE old_rounds () INHERITS (crash_rounds); CREATE ROLE ingest LOGIN")
    ours = admin(postgres)
    assert any("stream-relay backend setup --feed" in text for text in await failures(ours))
    await ours.set_up("ingest")
    assert await failures(ours) == []
    assert await failures(admin(postgres, user="ingest")) == []
    made = await postgres.fetch("SELECT xmin::text FROM pg_trigger WHERE tgname LIKE 'stream_relay_feed%' ORDER BY oid")

    await ours.set_up("ingest")

    now = await postgres.fetch("SELECT xmin::text FROM pg_trigger WHERE tgname LIKE 'stream_relay_feed%' ORDER BY oid")
    assert now == made, "a second setup touches no trigger"
    assert len(made) == 8
    broken = {
        "ALTER TABLE crash_rounds DISABLE TRIGGER stream_relay_feed_finish": "public.crash_rounds that .* is disabled",
        "CREATE TABLE new_rounds () INHERITS (crash_rounds)": "public.new_rounds that .* is missing",
        "DROP TRIGGER stream_relay_feed_delete ON old_rounds": "public.old_rounds that .* is missing",
        f"REVOKE DELETE ON {FEED} FROM ingest": "may not delete stored rows",
    }
    for sql, said in broken.items():
        await postgres.execute(sql)
        [text] = await failures(admin(postgres, user="ingest"))
        assert re.search(said, text)
        await ours.set_up("ingest")
        assert await failures(admin(postgres, user="ingest")) == []
    other = admin(postgres, finished_when="state in ('finished', 'aborted')")
    assert len(await failures(other)) == 3
    await other.set_up(None)
    assert await failures(other) == []
    await run_sql(other.options, other.teardown_sql())
    left = "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'stream_relay%'"
    schema = "SELECT nspname FROM pg_namespace WHERE nspname = 'stream_relay'"
    assert await postgres.fetch(f"{left} UNION ALL {schema}") == []


async def test_rows_are_deleted_when_every_reader_has_stored_them(postgres: PostgresServer) -> None:
    """Never a row above the lowest offset, nor while the sequence is behind the offsets, and in bounded steps."""
    await postgres.execute(CRASH)
    await admin(postgres).set_up(None)
    await postgres.execute("INSERT INTO crash_rounds (state) SELECT 'finished' FROM generate_series(1, 20)")
    trim = statement("trim_feed")

    async def gone(limit: int = 1000) -> int:
        return int((await postgres.fetch(trim, 0.0, limit))[0][0])

    assert await gone() == 0, "no reader has begun"
    await postgres.execute("INSERT INTO stream_relay.positions SELECT 'a', $1, 0, 15 UNION SELECT 'b', $1, 0, 8", FEED)
    assert (await postgres.fetch(trim, 60.0, 1000))[0][0] == 0, "all are younger"
    assert [await gone(5), await gone(5), await gone(5)] == [5, 3, 0]
    await postgres.execute("UPDATE stream_relay.positions SET safe = 15")
    await postgres.execute(f"ALTER SEQUENCE {FEED}_seq_seq RESTART WITH 3")
    assert await gone() == 0
    assert any("behind offset 15" in text for text in await failures(admin(postgres)))
    await admin(postgres).set_up(None)
    assert await failures(admin(postgres)) == []
    assert await gone() == 7


async def test_triggers_fire_for_a_subscription(postgres: PostgresServer) -> None:
    """A table that a subscription fills fills the feed; check says so where the subscription came later."""
    table = "CREATE TABLE rounds (round_id bigint PRIMARY KEY, game_slug text, finished_at timestamptz, extras text)"
    await postgres.execute("CREATE DATABASE copy")
    await postgres.execute(f"{table}; CREATE PUBLICATION copied FOR TABLE rounds")
    await postgres.execute("SELECT pg_create_logical_replication_slot('copied', 'pgoutput')")
    await postgres.execute(table, database="copy")
    ours = admin_of("postgres-notify", {"dsn": postgres.dsn("copy"), "feed": "true"})
    await ours.set_up(None)
    assert await failures(ours) == []
    await postgres.execute(
        f"CREATE SUBSCRIPTION copied CONNECTION '{postgres.dsn()}' PUBLICATION copied WITH (create_slot = false)",
        database="copy",
    )
    [text] = await failures(ours)
    assert "is not fired by the subscription; run as the owner" in text

    await ours.set_up(None)

    assert await failures(ours) == []
    await postgres.execute(
        "INSERT INTO rounds VALUES (1, 'crash'), (2, 'crash'); UPDATE rounds SET finished_at = now() WHERE round_id = 2"
    )
    copied = f"SELECT new FROM {FEED}"  # noqa: S608
    await until(lambda: _has_rows(postgres, copied))
    assert [json.loads(row["new"])["round_id"] for row in await postgres.fetch(copied, database="copy")] == ["2"]
    await postgres.execute(
        "ALTER SUBSCRIPTION copied DISABLE; ALTER SUBSCRIPTION copied SET (slot_name = NONE); DROP SUBSCRIPTION copied",
        database="copy",
    )


async def _has_rows(server: PostgresServer, sql: str) -> bool:
    return bool(await server.fetch(sql, database="copy"))
