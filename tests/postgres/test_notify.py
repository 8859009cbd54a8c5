"""`postgres-notify` on real servers: what it yields, in what order, and where it continues."""

from contextlib import nullcontext

import pytest

from backends.contract import Captured, InvalidOptions, Rejected, SourceError
from backends.postgres.notify.postgres_notify import PostgresNotify
from tests.postgres.ingesting import CONTEXT, notify_backend, reading, set_up_notify
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service


async def test_rows_from_before_and_after_the_start_are_yielded_once_in_order(any_postgres: PostgresServer) -> None:
    """With ``start = "beginning"``, the whole table is yielded, then new rows; on every version."""
    await any_postgres.make_rounds_table()
    await any_postgres.insert_rounds(1, 4500)
    await set_up_notify(any_postgres)

    async with reading(notify_backend(any_postgres, batch_rows=1000)) as found:
        await found.reach(4500)
        await any_postgres.insert_rounds(4501, 4510)
        assert await found.reach(4510) == list(range(1, 4511))


async def test_restart_continues_at_the_confirmed_offset(any_postgres: PostgresServer) -> None:
    """A new process reads the unconfirmed rows and `lookback_ids` below them, and misses none."""
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)
    await any_postgres.insert_rounds(1, 2000)
    async with reading(notify_backend(any_postgres)) as found:
        await found.reach(2000)
    await any_postgres.insert_rounds(2001, 2005)

    async with reading(notify_backend(any_postgres, lookback_ids=10), confirms=False) as found:
        assert await found.reach(15) == list(range(1991, 2006))
    async with reading(notify_backend(any_postgres, lookback_ids=0)) as found:
        assert await found.reach(5) == list(range(2001, 2006))


async def test_first_start_now_skips_existing_rows_but_not_an_open_transaction(
    any_postgres: PostgresServer,
) -> None:
    """Rows committed after the start are yielded, also those with ids from before it."""
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)
    await any_postgres.insert_rounds(1, 50)
    early = await any_postgres.connect()
    transaction = early.transaction()
    await transaction.start()
    await early.execute("INSERT INTO rounds VALUES (51, 'dice', NULL, now(), '{}')")
    await any_postgres.insert_rounds(52, 60)

    async with reading(notify_backend(any_postgres, start="now")) as found:
        await any_postgres.insert_rounds(61, 61)
        await found.reach(1)
        await transaction.commit()
        assert await found.reach(2) == [61, 51]
    await early.close()


async def test_restart_does_not_look_back_before_a_first_start_now(postgres: PostgresServer) -> None:
    """Rows that the first start skipped are skipped later too."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    await postgres.insert_rounds(1, 50)
    backend = notify_backend(postgres, start="now")
    async with reading(backend) as found:
        await postgres.insert_rounds(51, 52)
        await found.reach(2)
        await until(lambda: backend.status.safe == 52)
    await postgres.insert_rounds(53, 53)

    async with reading(notify_backend(postgres, start="now")) as found:
        assert await found.reach(3) == [51, 52, 53]


async def test_late_commit_is_not_missed_and_does_not_delay_others(any_postgres: PostgresServer) -> None:
    """A row with the lowest id and the last commit is yielded last, also after a restart before its commit."""
    server = any_postgres
    await server.make_rounds_table()
    await set_up_notify(server)
    late = await server.connect()
    transaction = late.transaction()
    await transaction.start()
    await late.execute("INSERT INTO rounds VALUES (1, 'dice', NULL, now(), '{}')")
    await server.insert_rounds(2, 3)

    async with reading(notify_backend(server, lookback_ids=0)) as found:
        assert await found.reach(2) == [2, 3]
    async with reading(notify_backend(server, lookback_ids=0)) as found:
        await found.reach(2)
        await transaction.commit()
        assert await found.reach(3) == [2, 3, 1]
    await late.close()


async def test_hole_of_a_rollback_is_closed_and_confirmed(any_postgres: PostgresServer) -> None:
    """The kept offset advances past a closed hole without a new row."""
    await any_postgres.make_rounds_table()
    await set_up_notify(any_postgres)
    doomed = await any_postgres.connect()
    transaction = doomed.transaction()
    await transaction.start()
    await doomed.execute("INSERT INTO rounds VALUES (2, 'dice', NULL, now(), '{}')")
    await any_postgres.insert_rounds(1, 1)
    await any_postgres.insert_rounds(3, 3)
    backend = notify_backend(any_postgres)

    async with reading(backend) as found:
        await found.reach(2)
        assert backend.status.safe == 1
        await transaction.rollback()
        await until(lambda: backend.status.safe == 3)
    rows = await any_postgres.fetch("SELECT safe FROM stream_relay.positions")
    assert [row["safe"] for row in rows] == [3]
    await doomed.close()


async def test_reading_above_a_hole_is_limited_until_it_is_closed(postgres: PostgresServer) -> None:
    """The rows that a crash would repeat stay within those that the publisher recognises."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    late = await postgres.connect()
    transaction = late.transaction()
    await transaction.start()
    await late.execute("INSERT INTO rounds VALUES (1, 'dice', NULL, now(), '{}')")
    await postgres.insert_rounds(2, 500)

    async with reading(notify_backend(postgres, batch_rows=50, ahead_rows=100)) as found:
        assert await found.reach(150) == list(range(2, 152))
        await transaction.commit()
        assert sorted(await found.reach(500)) == list(range(1, 501))
    await late.close()


async def test_unmappable_row_is_rejected_with_its_key_and_others_are_not_delayed(postgres: PostgresServer) -> None:
    """An unknown game, extras that are not an object: each is named, none stops the others. NULL is unfinished."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    await postgres.execute(
        """INSERT INTO rounds VALUES
        (1, 'crash', NULL, NULL, '{}'), (2, 'no-such-game', NULL, now(), '{}'), (3, 'crash', NULL, now(), '[1]'),
        (4, 'crash', NULL, 'infinity', '{}'), (5, 'crash', NULL, now(), '{"point": "NaN"}'),
        (6, 'dice', NULL, now(), NULL)
        """
    )

    backend = notify_backend(postgres)
    async with reading(backend) as found:
        assert await found.reach(5) == [5, 6]
        assert backend.status.unfinished_rows == 1
    rejected = [item for item in found.items if isinstance(item, Rejected)]
    assert [item.key for item in rejected] == [
        "public.rounds:no-such-game:2", "public.rounds:crash:3", "public.rounds:crash:4",
    ]  # fmt: skip
    assert "no-such-game" in rejected[0].reason


async def test_huge_extras_are_read_whole(postgres: PostgresServer) -> None:
    """Values that PostgreSQL stores out of line are read like others."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    await postgres.execute(
        "INSERT INTO rounds SELECT 1, 'crash', NULL, now(), jsonb_build_object('x', repeat('ab', 1000000))"
    )

    async with reading(notify_backend(postgres)) as found:
        await found.reach(1)
    assert isinstance(found.items[0], Captured)
    assert len(found.items[0].round.extras) > 2_000_000


async def test_timestamp_is_the_commit_time_if_the_server_keeps_it_else_finished_at(
    postgres: PostgresServer,
) -> None:
    """Both are the same at every reading."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    await postgres.execute("INSERT INTO rounds VALUES (1, 'dice', NULL, '2026-01-18T10:00:30.5Z', '{}')")
    await postgres.restart(track_commit_timestamp="on")
    await postgres.execute("INSERT INTO rounds VALUES (2, 'dice', NULL, '2026-01-18T10:00:30Z', '{}')")
    (kept,) = await postgres.fetch(
        "SELECT (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::bigint AS ms FROM rounds "
        "WHERE round_id = 2"
    )

    async with reading(notify_backend(postgres)) as found:
        await found.reach(2)
    timestamps = [item.round.timestamp for item in found.items if isinstance(item, Captured)]
    assert timestamps == [1768730430500, kept["ms"]]


async def test_partitioned_table_is_read_as_one_with_holes_of_its_partitions(any_postgres: PostgresServer) -> None:
    """Writers into a single partition are waited for like all others."""
    server = any_postgres
    await server.execute(
        """CREATE SEQUENCE numbers;
           CREATE TABLE rounds (round_id bigint DEFAULT nextval('numbers'), game_slug text, finished_at timestamptz,
             extras json, PRIMARY KEY (round_id, game_slug)) PARTITION BY LIST (game_slug);
           CREATE TABLE rounds_crash PARTITION OF rounds FOR VALUES IN ('crash');
           CREATE TABLE rounds_rest PARTITION OF rounds DEFAULT"""
    )
    await set_up_notify(server)
    late = await server.connect()
    transaction = late.transaction()
    await transaction.start()
    await late.execute("INSERT INTO rounds_crash VALUES (1, 'crash', now(), '{}')")
    await server.execute("INSERT INTO rounds VALUES (2, 'double', now(), '{}'), (3, 'crash', now(), '{}')")
    backend = notify_backend(server, order_column="round_id")

    async with reading(backend) as found:
        await found.reach(2)
        assert backend.status.safe == 0
        await transaction.commit()
        assert await found.reach(3) == [2, 3, 1]
    types = {item.round.game_slug: item.round.game_type for item in found.items if isinstance(item, Captured)}
    assert types == {"double": "color", "crash": "multiplier"}
    await late.close()


PER_GAME = """
    CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz, extras json,
        PRIMARY KEY (round_id, game_slug)) PARTITION BY LIST (game_slug);
    CREATE TABLE rounds_crash PARTITION OF rounds FOR VALUES IN ('crash');
    CREATE TABLE rounds_rest PARTITION OF rounds DEFAULT
"""


async def test_partitioned_table_with_repeated_ids_is_refused_until_it_has_an_order_column(
    any_postgres: PostgresServer,
) -> None:
    """Round 1 of a second game would be taken for the one already seen. The SQL in the error repairs it."""
    server = any_postgres
    await server.execute(PER_GAME)
    await set_up_notify(server)
    with pytest.raises(SourceError, match="can repeat") as caught:
        async with notify_backend(server).open():
            pass
    await server.execute(str(caught.value).partition("run: ")[2].partition("and set the option")[0])

    async with reading(notify_backend(server, order_column="relay_order")) as found:
        for count, (number, game) in enumerate([(1, "crash"), (1, "dice"), (2, "crash"), (2, "dice")], start=1):
            await server.execute(
                "INSERT INTO rounds (round_id, game_slug, finished_at, extras) VALUES ($1, $2, now(), '{}')",
                number,
                game,
            )
            await found.reach(count)
    rounds = [item.round for item in found.items if isinstance(item, Captured)]
    assert [(round_.round_id, round_.game_slug) for round_ in rounds] == [
        (1, "crash"),
        (1, "dice"),
        (2, "crash"),
        (2, "dice"),
    ]


@pytest.mark.parametrize(
    ("numbering", "column", "is_fit"),
    [
        ("GENERATED ALWAYS AS IDENTITY", None, True),
        ("GENERATED BY DEFAULT AS IDENTITY", None, False),
        ("GENERATED BY DEFAULT AS IDENTITY", "round_id", True),
        ("", "round_id", False),
    ],
    ids=["always from a sequence", "by default", "by default and named", "never"],
)
async def test_ids_of_partitions_count_as_unique_if_a_sequence_assigns_them(
    postgres: PostgresServer, numbering: str, column: str | None, is_fit: bool
) -> None:
    """No index can ensure it. A sequence that an INSERT may bypass counts only if the operator names the column."""
    await postgres.execute(
        f"""CREATE TABLE rounds (round_id bigint {numbering}, game_slug text, finished_at timestamptz, extras json,
              PRIMARY KEY (round_id, finished_at)) PARTITION BY RANGE (finished_at);
            CREATE TABLE rounds_all PARTITION OF rounds DEFAULT"""
    )
    await set_up_notify(postgres)
    options = {} if column is None else {"order_column": column}

    with nullcontext() if is_fit else pytest.raises(SourceError, match="can repeat"):
        async with notify_backend(postgres, **options).open():
            pass


async def test_other_names_of_table_and_columns_are_options(postgres: PostgresServer) -> None:
    """Names that need quotes, and ids that are unique only within their game, with an order column."""
    await postgres.execute(
        """CREATE SCHEMA "Bets"; CREATE TABLE "Bets"."Game Rounds" (
             seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Id" int, game text, ended timestamp, data text);
           INSERT INTO "Bets"."Game Rounds" ("Id", game, ended, data) VALUES
             (1, 'crash', '2026-01-18 10:00:30', '{"point": 2.50}'), (1, 'dice', '2026-01-18 10:00:31', '{}')"""
    )
    await set_up_notify(postgres, "Game Rounds", schema="Bets")
    backend = notify_backend(
        postgres, table="Bets.Game Rounds", order_column="seq", round_id_column="Id", game_slug_column="game",
        finished_at_column="ended", extras_column="data",
    )  # fmt: skip

    async with reading(backend) as found:
        assert await found.reach(2) == [1, 1]
    assert isinstance(found.items[0], Captured)
    assert found.items[0].round.finished_at == "2026-01-18T10:00:30Z"
    assert found.items[0].round.extras == '{"point":"2.50"}'


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"table": "no_such"}, "has no table"),
        ({"extras_column": "payload"}, "has no column 'payload'"),
        ({"order_column": "game_slug"}, "is not an integer"),
        ({"order_column": "gone"}, "set the option 'order_column'"),
        ({"dsn": "postgresql://postgres@127.0.0.1:1/postgres", "connect_timeout_s": 1}, "cannot be reached"),
    ],
)
async def test_unusable_source_is_one_sentence_with_what_to_do(
    postgres: PostgresServer, options: dict[str, object], says: str
) -> None:
    """No row is read from a source that could lose rounds, and the error says why."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)

    with pytest.raises(SourceError, match=says):
        async with notify_backend(postgres, **options).open():
            pass


async def test_missing_setup_names_the_command(postgres: PostgresServer) -> None:
    """The error of a first start says what is missing."""
    await postgres.execute(
        "CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz, extras jsonb)"
    )

    with pytest.raises(SourceError) as caught:
        async with notify_backend(postgres).open():
            pass
    lines = str(caught.value).splitlines()
    assert "CREATE UNIQUE INDEX CONCURRENTLY" in lines[0]
    assert "stream-relay backend setup" in lines[1]


def test_unknown_option_lists_the_known_ones() -> None:
    """A typo does not select the default."""
    with pytest.raises(InvalidOptions, match="unknown option 'pol_s'"):
        PostgresNotify({"dsn": "postgresql://localhost/x", "pol_s": 1}, CONTEXT)
