"""`postgres-notify` on tables as people have them: finished by UPDATE, several, with children, with repeated ids."""

from contextlib import AsyncExitStack

import pytest

from backends.contract import Captured
from backends.postgres.source_admin import admin_of
from tests.backends.harness import captured_events
from tests.postgres.ingesting import Reading, notify_backend, notify_options, reading, set_up
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service

CRASH_ROUNDS = """
    CREATE TYPE round_state AS ENUM ('betting', 'running', 'finished', 'aborted');
    CREATE TABLE crash_rounds (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state round_state NOT NULL DEFAULT 'betting',
        multiplier numeric(12, 2), started_at timestamptz NOT NULL DEFAULT now(), ended_at timestamptz)
"""
CRASH = {
    "table": "crash_rounds", "round_id_column": "id", "game_slug": "crash", "finished_when": "state = 'finished'",
    "finished_at_column": "ended_at", "extras_columns": ["point=multiplier"],
}  # fmt: skip


def finish(number: int, point: float = 2.5) -> str:
    return f"UPDATE crash_rounds SET state = 'finished', multiplier = {point}, ended_at = now() WHERE id = {number};"  # noqa: S608


def rounds(found: Reading) -> list[tuple[str, int]]:
    return [(item.round.game_slug, item.round.round_id) for item in found.items if isinstance(item, Captured)]


async def test_rounds_finish_by_update_once_in_order_and_through_restarts(any_postgres: PostgresServer) -> None:
    """Unfinished rows are remembered, also below the kept offset; a finished row that is touched is nothing new."""
    server = any_postgres
    await server.execute(CRASH_ROUNDS)
    await set_up(server, **CRASH)
    await server.execute("INSERT INTO crash_rounds SELECT FROM generate_series(1, 6)")

    backend = notify_backend(server, poll_s=60, **CRASH)
    async with reading(backend) as found:
        await until(lambda: backend.status.unfinished_rows == 6)
        await server.execute(finish(3))
        await found.reach(1)
        await server.execute(finish(1, 1.0))
        await server.execute("UPDATE crash_rounds SET state = 'aborted' WHERE id = 2")
        await found.reach(2)
        await server.execute("UPDATE crash_rounds SET started_at = started_at, multiplier = 9 WHERE id = 3")
        await server.execute("INSERT INTO crash_rounds (state, multiplier, ended_at) VALUES ('finished', 7, now())")
        assert await found.reach(3) == [3, 1, 7]
        await until(lambda: backend.status.safe == 7)
    assert [row["id"] for row in await server.fetch("SELECT id FROM stream_relay.unfinished ORDER BY id")] == [
        2,
        4,
        5,
        6,
    ]
    status = await admin_of("postgres-notify", notify_options(server, **CRASH)).status()
    assert (status["lag"], status["unfinished"]) == ("0 rows", "4 rows")

    await server.execute(finish(5))
    await server.execute("DELETE FROM crash_rounds WHERE id = 6")
    backend = notify_backend(server, lookback_ids=0, **CRASH)
    async with reading(backend) as found:
        await found.reach(1)
        await server.execute(finish(4))
        assert await found.reach(2) == [5, 4]
        await until(lambda: backend.status.unfinished_rows == 1)
    assert [row["id"] for row in await server.fetch("SELECT id FROM stream_relay.unfinished")] == [2]


async def test_first_start_now_skips_finished_rows_and_waits_for_the_others(postgres: PostgresServer) -> None:
    """Rounds that run at the start become rounds later, however long ago they began."""
    await postgres.execute(CRASH_ROUNDS)
    await set_up(postgres, **CRASH)
    await postgres.execute("INSERT INTO crash_rounds SELECT FROM generate_series(1, 30)")
    await postgres.execute("UPDATE crash_rounds SET state = 'finished', multiplier = 1, ended_at = now() WHERE id <> 2")

    async with reading(notify_backend(postgres, start="now", lookback_ids=5, **CRASH)) as found:
        await postgres.execute("INSERT INTO crash_rounds (state, multiplier, ended_at) VALUES ('finished', 7, now())")
        await found.reach(1)
        await postgres.execute(finish(2))
        assert await found.reach(2) == [31, 2]


async def test_rows_that_never_finish_neither_stop_the_flow_nor_hold_the_offset(postgres: PostgresServer) -> None:
    """Of more than `unfinished_rows` the oldest are given up, with one line of the log and a number in the status."""
    await postgres.execute(CRASH_ROUNDS)
    await set_up(postgres, **CRASH)
    await postgres.execute("INSERT INTO crash_rounds SELECT FROM generate_series(1, 9000)")
    backend = notify_backend(postgres, unfinished_rows=3000, batch_rows=1000, ahead_rows=10, **CRASH)

    with captured_events() as events:
        async with reading(backend) as found:
            await until(lambda: backend.status.safe == 9000)
            assert (backend.status.unfinished_rows, backend.status.given_up_rows) == (3000, 6000)
            await postgres.execute(finish(6001) + finish(8999))  # the oldest that is remembered, and a new one
            await found.reach(2)
            assert sorted(found.ids) == [6001, 8999]
    assert [e["reason"] for e in events.details if e["event"] == "rows_given_up"] == [
        "more than unfinished_rows = 3000 rows are not finished"
    ]
    kept = await postgres.fetch("SELECT count(*), min(id) FROM stream_relay.unfinished")
    assert tuple(kept[0]) == (2998, 6002)


GAMING = """
    CREATE SCHEMA gaming;
    CREATE TABLE gaming.dice (id bigserial PRIMARY KEY, roll int NOT NULL, done_at timestamptz NOT NULL DEFAULT now());
    CREATE TABLE gaming.plinko (id bigserial PRIMARY KEY, payout numeric NOT NULL, path int[] NOT NULL,
        done_at timestamptz NOT NULL DEFAULT now())
"""
TABLES = {
    "round_id_column": "id",
    "finished_at_column": "done_at",
    "tables": [
        {"table": "gaming.plinko", "game_slug": "plinko", "extras_columns": ["payout", "path"]},
        {"table": "gaming.dice", "game_slug": "dice", "extras_columns": ["roll"]},
    ],
}


@pytest.mark.parametrize("commit_times", ["on", "off"])
async def test_several_tables_in_the_order_of_their_commits(postgres: PostgresServer, commit_times: str) -> None:
    """Ids repeat across tables; each table has an offset of its own, and all continue after a restart."""
    await postgres.restart(track_commit_timestamp=commit_times)
    await postgres.execute(GAMING)
    await set_up(postgres, **TABLES)
    for number in range(1, 4):
        await postgres.execute(f"INSERT INTO gaming.dice (roll) VALUES ({number})")  # noqa: S608
        await postgres.execute("INSERT INTO gaming.plinko (payout, path) VALUES (5.6, '{0,1,1,0}')")

    backend = notify_backend(postgres, poll_s=60, **TABLES)
    async with reading(backend) as found:
        await found.reach(6)
        await postgres.execute("INSERT INTO gaming.plinko (payout, path) VALUES (1, '{1}')")
        await found.reach(7)
        await postgres.execute("INSERT INTO gaming.dice (roll) VALUES (4)")
        await found.reach(8)
        await until(lambda: backend.status.safe == 8)
    both = [(game, number) for number in range(1, 4) for game in ("dice", "plinko")]
    assert rounds(found) == [*both, ("plinko", 4), ("dice", 4)]
    kept = await postgres.fetch("SELECT source, safe FROM stream_relay.positions ORDER BY source")
    assert [tuple(row) for row in kept] == [("gaming.dice", 4), ("gaming.plinko", 4)]
    admin = admin_of("postgres-notify", notify_options(postgres, **TABLES))
    assert (await admin.status())["last confirmed"].startswith("gaming.plinko id 4, ")
    async with admin.measuring() as measure:
        assert (await measure())[:4] == ("rows", 8, 8, 0)

    await postgres.execute("INSERT INTO gaming.dice (roll) VALUES (5)")
    async with reading(notify_backend(postgres, lookback_ids=0, **TABLES)) as found:
        await found.reach(1)
    assert rounds(found) == [("dice", 5)]


async def test_a_table_that_is_rewritten_while_a_turn_reads_the_others_keeps_its_unfinished_rows(
    postgres: PostgresServer,
) -> None:
    """Rows that ALTER TABLE has rewritten cannot be seen in a snapshot from before; they are not gone."""
    await postgres.execute(CRASH_ROUNDS)
    await postgres.execute("CREATE TABLE older_rounds (LIKE crash_rounds INCLUDING ALL)")
    both = {"tables": [CRASH, {**CRASH, "table": "older_rounds", "game_slug": "double"}]}
    await set_up(postgres, **both)
    await postgres.execute("INSERT INTO older_rounds SELECT FROM generate_series(1, 6)")
    backend = notify_backend(postgres, **both)
    owner = await postgres.connect()

    async def waiting_query() -> str:
        rows = await postgres.fetch("SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return str(rows[0]["query"]) if rows else ""

    async with reading(backend) as found:
        await until(lambda: backend.status.unfinished_rows == 6)
        is_read = False
        while not is_read:
            transaction = owner.transaction()
            await transaction.start()
            await owner.execute("ALTER TABLE older_rounds ADD COLUMN note float DEFAULT random()")
            is_read = "AS newest" not in await until(waiting_query)  # that is a look, which is before the snapshot
            await (transaction.commit() if is_read else transaction.rollback())
        await postgres.execute(finish(3).replace("crash_rounds", "older_rounds"))
        await found.reach(1)
        assert backend.status.unfinished_rows == 5
    await owner.close()


async def test_backlog_of_one_table_does_not_delay_the_others(postgres: PostgresServer) -> None:
    """Each turn reads the same number of rows of each table."""
    await postgres.execute(GAMING)
    await set_up(postgres, **TABLES)
    await postgres.execute("INSERT INTO gaming.plinko (payout, path) SELECT n, '{0}' FROM generate_series(1, 5000) n")
    await postgres.execute("INSERT INTO gaming.dice (roll) SELECT n FROM generate_series(1, 50) n")

    async with reading(notify_backend(postgres, batch_rows=200, **TABLES)) as found:
        await found.reach(5050)
    assert [game for game, _ in rounds(found)[:150]].count("dice") == 50


async def test_one_process_reads_all_tables_and_the_next_one_takes_over(postgres: PostgresServer) -> None:
    """A process that has one table in common with another waits for it."""
    await postgres.execute(GAMING)
    await set_up(postgres, **TABLES)
    dice = {**TABLES, "tables": [TABLES["tables"][1]]}
    first, second = notify_backend(postgres, **TABLES), notify_backend(postgres, **dice)
    async with AsyncExitStack() as stack:
        leader = await stack.enter_async_context(reading(second))
        await until(lambda: second.status.state == "reading")
        async with reading(first) as waiting:
            await until(lambda: first.status.state == "standby")
            await postgres.execute("INSERT INTO gaming.dice (roll) VALUES (1)")
            await leader.reach(1)
            assert (waiting.items, first.leads) == ([], False)
            await stack.aclose()
            await until(lambda: first.leads)
            await postgres.execute("INSERT INTO gaming.plinko (payout, path) VALUES (1, '{1}')")
            await waiting.reach(2)
    assert rounds(waiting) == [("dice", 1), ("plinko", 1)]
