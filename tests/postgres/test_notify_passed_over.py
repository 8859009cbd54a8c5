"""`postgres-notify` where a table or a database would have rows passed over: each is read, or told in one sentence."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import asyncpg
import pytest

from backends.contract import Captured, InvalidOptions, Rejected, SourceError
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.notify.postgres_notify import PostgresNotify
from backends.postgres.source_admin import Verdict, admin_of
from tests.backends.harness import captured_events
from tests.postgres.ingesting import Reading, notify_backend, notify_options, reading, set_up, set_up_notify
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service

NUMBERED = """CREATE TABLE {0} (round_id bigint, game_slug text, finished_at timestamptz NOT NULL DEFAULT now(),
    extras jsonb, seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);"""
INSERT = """INSERT INTO {0} (round_id, game_slug, extras)
    SELECT n, '{1}', '{{}}' FROM generate_series({2}, {3}) n;"""

BEGIN_AGAIN = {
    "dice": "TRUNCATE dice RESTART IDENTITY;",
    "crash": "DELETE FROM crash; SELECT setval('crash_seq_seq', 1, false);",
    "double": "DELETE FROM double; ALTER TABLE double ALTER seq RESTART;",
    "aviador": "DROP TABLE aviador;" + NUMBERED.format("aviador"),
    "motograu": "ALTER TABLE motograu RENAME TO old_motograu;" + NUMBERED.format("motograu"),
    "plinko": "DELETE FROM plinko WHERE seq <= 20; SELECT setval('plinko_seq_seq', 1, false);",  # as CYCLE does
}
HARMLESS = {
    "dice": "VACUUM FULL dice",
    "crash": "TRUNCATE crash",
    "double": "ALTER TABLE double ALTER game_slug TYPE varchar(40)",
    "aviador": "DELETE FROM aviador WHERE seq > 20",
    "motograu": "ALTER TABLE motograu ALTER seq SET CACHE 1",
    "plinko": "CREATE TABLE copy (LIKE plinko INCLUDING ALL); INSERT INTO copy OVERRIDING SYSTEM VALUE SELECT * FROM "
    "plinko; SELECT setval('copy_seq_seq', 31); ALTER TABLE plinko RENAME TO o; ALTER TABLE copy RENAME TO plinko",
}
SIX = {"order_column": "seq", "lookback_ids": 0, "tables": [{"table": name} for name in BEGIN_AGAIN]}


async def six_tables(server: PostgresServer) -> None:
    """Make tables with 30 rounds each, set up."""
    await server.execute("".join(NUMBERED.format(name) for name in BEGIN_AGAIN))
    await set_up(server, **SIX)
    await insert(server, 1, 30)


@asynccontextmanager
async def reading_six(server: PostgresServer) -> AsyncIterator[tuple[PostgresNotify, Reading]]:
    """Read the tables while the block runs; it begins when their first 30 rounds each are stored."""
    await six_tables(server)
    backend = notify_backend(server, **SIX)
    async with reading(backend) as found:
        await found.reach(180)
        await until(lambda: backend.status.safe == 180)
        yield backend, found


async def insert(server: PostgresServer, first: int, last: int) -> None:
    """Insert rounds into all tables, each in a transaction."""
    for name in BEGIN_AGAIN:
        await server.execute(INSERT.format(name, name, first, last))


def ids_by_game(found: Reading) -> dict[str, list[int]]:
    ids: dict[str, list[int]] = {}
    for item in found.items:
        assert isinstance(item, Captured)
        ids.setdefault(item.round.game_slug, []).append(item.round.round_id)
    return ids


@pytest.mark.parametrize("is_running", [True, False], ids=["while it runs", "while it is away"])
async def test_rows_whose_ids_begin_again_are_read_and_no_old_one(postgres: PostgresServer, is_running: bool) -> None:
    """Each way in which ids begin again, with fewer new rows than there were, and a restart after it."""
    wanted = {name: list(range(101, 111)) for name in BEGIN_AGAIN}
    async with reading_six(postgres) as (backend, found):
        if is_running:
            await postgres.execute("".join(BEGIN_AGAIN.values()))
            await insert(postgres, 101, 110)
            await found.reach(240)
            await until(lambda: backend.status.safe == 60)
            assert {name: ids[30:] for name, ids in ids_by_game(found).items()} == wanted
    if not is_running:
        await postgres.execute("".join(BEGIN_AGAIN.values()))
        await insert(postgres, 101, 110)
    async with reading(notify_backend(postgres, **SIX)) as found:
        if not is_running:
            await found.reach(60)
            assert ids_by_game(found) == wanted
            found.items.clear()
        await insert(postgres, 111, 112)
        await found.reach(12)
    assert ids_by_game(found) == {name: [111, 112] for name in BEGIN_AGAIN}


@pytest.mark.parametrize("name", ["dice", "double", "aviador", "motograu"])
async def test_a_look_that_waits_for_the_statement_that_begins_ids_again_repeats_no_row(
    postgres: PostgresServer, name: str
) -> None:
    """The query has the snapshot from before the statement, and the value of the sequence from after it."""
    owner = await postgres.connect()
    async with reading_six(postgres) as (_, found):
        transaction = owner.transaction()
        await transaction.start()
        await owner.execute(f"ALTER SEQUENCE {name}_seq_seq RESTART")  # only a look asks for its lock
        await until(lambda: postgres.fetch("SELECT pid FROM pg_locks WHERE NOT granted"))
        await owner.execute(BEGIN_AGAIN[name] + INSERT.format(name, name, 101, 110))
        await transaction.commit()
        await found.reach(190)
        await insert(postgres, 111, 111)  # the next look is before it is read
        await found.reach(196)
    await owner.close()
    async with reading(notify_backend(postgres, **SIX)) as again:  # looks at once
        await insert(postgres, 112, 112)
        await again.reach(6)
    assert ids_by_game(found)[name] == [*range(1, 31), *range(101, 112)]
    assert ids_by_game(again) == {name: [112] for name in BEGIN_AGAIN}


@pytest.mark.parametrize("name", BEGIN_AGAIN)
async def test_new_ids_of_transactions_that_are_open_when_ids_begin_again_are_read(
    postgres: PostgresServer, name: str
) -> None:
    """They were taken, and cannot be seen; a new row above them is committed already."""
    late = await postgres.connect()
    with captured_events() as events:
        async with reading_six(postgres) as (_, found):
            transaction = late.transaction()
            await transaction.start()
            await postgres.execute(BEGIN_AGAIN[name])
            await late.execute(INSERT.format(name, name, 101, 105))
            await postgres.execute(INSERT.format(name, name, 106, 110))
            await events.seen("ids_began_again")
            await found.reach(185)
            await transaction.commit()
            await found.reach(190)
    await late.close()
    assert ids_by_game(found)[name] == [*range(1, 31), *range(106, 111), *range(101, 106)]


@pytest.mark.parametrize("name", ["crash", "plinko"])
async def test_new_ids_are_read_while_the_old_rows_are_still_being_deleted(postgres: PostgresServer, name: str) -> None:
    """A sequence is set back at once, and its old rows are there until the transaction ends."""
    owner = await postgres.connect()
    with captured_events() as events:
        async with reading_six(postgres) as (_, found):
            transaction = owner.transaction()
            await transaction.start()
            await owner.execute(BEGIN_AGAIN[name] + INSERT.format(name, name, 101, 110))
            await events.seen("ids_began_again")
            await transaction.commit()
            await found.reach(190)
            await insert(postgres, 111, 111)
            await found.reach(196)
    await owner.close()
    assert ids_by_game(found)[name] == [*range(1, 31), *range(101, 112)]


async def test_new_ids_that_overtake_the_old_ones_between_two_looks_are_read(postgres: PostgresServer) -> None:
    """The newest id alone shows nothing then; the OIDs and files of the table and its sequence do."""
    overtaking = [name for name in BEGIN_AGAIN if name not in ("crash", "plinko")]  # setval leaves no trace
    async with reading_six(postgres) as (_, found):
        for name in overtaking:
            await postgres.execute(BEGIN_AGAIN[name] + INSERT.format(name, name, 101, 150))
        await until(lambda: all({*range(101, 151)} <= {*ids_by_game(found)[name]} for name in overtaking))


async def test_harmless_statements_repeat_no_row(postgres: PostgresServer) -> None:
    """A table that is rewritten, copied or shortened continues with its ids, while ingest runs and while it is away."""
    with captured_events() as events:
        async with reading_six(postgres) as (backend, found):
            await insert(postgres, 31, 31)
            await found.reach(186)  # since a look then: it knows a row of each table, which a copy has too
            for sql in HARMLESS.values():
                await postgres.execute(sql)
            await insert(postgres, 32, 32)
            await found.reach(192)
            await until(lambda: backend.status.safe == 192)
        for name in ("dice", "double", "motograu"):
            await postgres.execute(HARMLESS[name])
        async with reading(notify_backend(postgres, **SIX)) as found:
            await insert(postgres, 33, 33)
            await found.reach(6)
    assert ids_by_game(found) == {name: [33] for name in HARMLESS}
    assert "ids_began_again" not in [event["event"] for event in events.details]


async def test_ids_that_the_application_assigns_may_begin_again_too(postgres: PostgresServer) -> None:
    """Without a sequence the newest id shows it."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    await postgres.insert_rounds(1, 20)
    async with reading(notify_backend(postgres)) as found:
        await found.reach(20)
        await postgres.execute("DELETE FROM rounds")
        await postgres.insert_rounds(5, 8, game="dice")
        assert (await found.reach(24))[20:] == [5, 6, 7, 8]


CHILDREN = """
    CREATE TABLE rounds (round_id bigserial PRIMARY KEY, game_slug text NOT NULL, finished_at timestamptz NOT NULL
        DEFAULT now(), extras jsonb NOT NULL DEFAULT '{}');
    CREATE TABLE rounds_a (PRIMARY KEY (round_id)) INHERITS (rounds);
    CREATE TABLE rounds_aa (PRIMARY KEY (round_id)) INHERITS (rounds_a);
"""


async def test_rows_of_children_are_read_and_their_late_commits_waited_for(any_postgres: PostgresServer) -> None:
    """Locks and triggers are those of the children, also of one that is made later; each is woken for."""
    server = any_postgres
    await server.execute(CHILDREN)
    await set_up_notify(server)
    late = await server.connect()
    transaction = late.transaction()
    await transaction.start()
    await late.execute("INSERT INTO rounds_aa (game_slug) VALUES ('crash')")
    backend = notify_backend(server, poll_s=60, lookback_ids=0)
    async with reading(backend) as found:
        await server.execute("INSERT INTO rounds_aa (game_slug) SELECT 'dice' FROM generate_series(2, 50)")
        await found.reach(49)
        await server.execute("INSERT INTO rounds_a (game_slug) VALUES ('dice')")
        await found.reach(50)  # the locks were looked at meanwhile
        assert backend.status.safe == 0
        await transaction.commit()
        await found.reach(51)
        await until(lambda: backend.status.safe == 51)
        await server.execute("CREATE TABLE rounds_b (PRIMARY KEY (round_id)) INHERITS (rounds)")
        await set_up_notify(server)
        await server.execute("INSERT INTO rounds_b (game_slug) VALUES ('dice')")
        assert sorted(await found.reach(52)) == list(range(1, 53))
    await late.close()

    await server.execute("CREATE TABLE rounds_c () INHERITS (rounds)")
    findings = await admin_of("postgres-notify", notify_options(server)).check()
    warned = [finding.text for finding in findings if finding.verdict is Verdict.WARNING]
    assert any("rounds_c" in text and "no trigger" in text for text in warned)
    assert any("rounds_c" in text and "CREATE INDEX" in text for text in warned)


async def test_a_start_that_waits_while_the_table_is_replaced_finds_no_fault(postgres: PostgresServer) -> None:
    """The query has the snapshot from before, and the default of the column is gone when it is read."""
    await postgres.execute(CHILDREN)
    await set_up_notify(postgres)
    owner = await postgres.connect()
    transaction = owner.transaction()
    await transaction.start()
    await owner.execute(f"DROP TABLE rounds CASCADE; {CHILDREN}")

    async def start() -> None:
        async with notify_backend(postgres).open():
            pass

    starting = asyncio.create_task(start())
    await until(lambda: postgres.fetch("SELECT pid FROM pg_locks WHERE NOT granted"))
    await transaction.commit()
    await starting
    await owner.close()


async def test_children_without_a_common_sequence_are_refused_by_name(postgres: PostgresServer) -> None:
    """No index of the parent makes ids unique over its children."""
    await postgres.make_rounds_table()
    await postgres.execute("CREATE TABLE rounds_old () INHERITS (rounds)")
    await set_up_notify(postgres)

    with pytest.raises(SourceError, match="rounds_old, which inherit from"):
        async with notify_backend(postgres).open():
            pass


async def test_rows_that_come_with_an_attached_table_are_told(postgres: PostgresServer) -> None:
    """They may be old, so they are not published; the warning has the backfill that publishes those the log lacks."""
    await postgres.execute(CHILDREN)
    await set_up_notify(postgres)
    await postgres.execute("INSERT INTO rounds (game_slug) SELECT 'dice' FROM generate_series(1, 20)")
    await postgres.execute("CREATE TABLE more (LIKE rounds); INSERT INTO more VALUES (5, 'crash', now(), '{}')")
    backend = notify_backend(postgres)
    with captured_events() as events:
        async with reading(backend) as found:
            await found.reach(20)
            await until(lambda: backend.status.safe == 20)
            await postgres.execute("ALTER TABLE more INHERIT rounds")
            await events.seen("rows_attached")
    told = next(event for event in events.details if event["event"] == "rows_attached")
    assert (told["child"], told["rows"], told["lowest"], told["highest"]) == ("public.more", 1, 5, 5)


async def test_rows_that_come_attached_before_the_next_look_are_told(postgres: PostgresServer) -> None:
    """Their ids were read since the look before."""
    await postgres.execute(CHILDREN)
    await set_up_notify(postgres)
    await postgres.execute("INSERT INTO rounds (game_slug) SELECT 'dice' FROM generate_series(1, 20)")
    await postgres.execute("CREATE TABLE more (LIKE rounds); INSERT INTO more VALUES (5, 'crash', now(), '{}')")
    backend = notify_backend(postgres)
    with captured_events() as events:
        async with backend.open(), aclosing(backend.read()) as batches:  # type: ignore[type-var]
            assert len(await anext(batches)) == 20  # the next look is after it
            await postgres.execute("ALTER TABLE more INHERIT rounds; INSERT INTO rounds (game_slug) VALUES ('dice')")
            await anext(batches)
    told = [event for event in events.details if event["event"] == "rows_attached"]
    assert [(one["child"], one["rows"], one["lowest"]) for one in told] == [("public.more", 1, 5)]


async def test_row_level_security_that_hides_rows_is_an_error(any_postgres: PostgresServer) -> None:
    """At check, at start, and when it is switched on while ingest runs. A policy that shows all rows is none."""
    server = any_postgres
    await server.make_rounds_table()
    await server.execute("CREATE ROLE ingest LOGIN")
    admin = admin_of("postgres-notify", notify_options(server, dsn=server.dsn(user="ingest")))
    await admin.acting_as(server.dsn()).set_up("ingest")
    await server.insert_rounds(1, 3)

    async def switch_it_on() -> None:
        async with reading(notify_backend(server, dsn=server.dsn(user="ingest"))) as found:
            assert await found.reach(3) == [1, 2, 3]
            await server.execute("ALTER TABLE rounds ENABLE ROW LEVEL SECURITY")
            await found.reach(4)

    with pytest.raises(SourceError, match=r"row level security o[fn] .* may hide rows .* BYPASSRLS"):
        await switch_it_on()
    assert [f.verdict for f in await admin.check() if "row level security" in f.text] == [Verdict.FAILURE]
    with pytest.raises(SourceError, match="row level security"):
        await admin.status()

    await server.execute("CREATE POLICY few ON rounds FOR SELECT TO ingest USING (round_id > 2)")
    with pytest.raises(SourceError, match="row level security"):
        async with notify_backend(server, dsn=server.dsn(user="ingest")).open():
            pass
    await server.execute("CREATE POLICY all_rows ON rounds FOR SELECT TO ingest USING (true)")
    async with reading(notify_backend(server, dsn=server.dsn(user="ingest"))) as found:
        await server.insert_rounds(4, 4)
        assert 4 in await found.reach(4)


@pytest.mark.parametrize(("encoding", "extras"), [("WIN1252", '\'{"a": "\x81"}\''), ("SQL_ASCII", '\'{"a": "\xff"}\'')])
async def test_text_that_is_no_utf8_is_rejected_and_the_rest_flows(
    postgres: PostgresServer, encoding: str, extras: str
) -> None:
    """One such value would fail the whole query. Other text of the encoding is read."""
    await postgres.execute(f"CREATE DATABASE old ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    await postgres.make_rounds_table(extras="text", database="old")
    dsn = postgres.dsn("old")
    await set_up(postgres, dsn=dsn)
    connection = await asyncpg.connect(dsn)
    raw = extras.strip("'").encode("latin-1").hex()
    await connection.execute(
        f"""INSERT INTO rounds VALUES (1, 'crash', NULL, now(), '{{"a": "1"}}');
        INSERT INTO rounds VALUES (2, 'crash', NULL, now(), convert_from('\\x{raw}', '{encoding}'));
        INSERT INTO rounds VALUES (3, 'crash', NULL, now(), convert_from('\\x7b2261223a2022e9227d', '{encoding}'))"""  # noqa: S608
    )
    await connection.close()

    async with reading(notify_backend(postgres, dsn=dsn)) as found:
        await found.reach(3)
        await postgres.insert_rounds(4, 4, database="old")
        await found.reach(4)
    assert found.ids == ([1, 3, 4] if encoding == "WIN1252" else [1, 4])
    rejected = [item for item in found.items if isinstance(item, Rejected)]
    assert rejected[0].key == "public.rounds:crash:2"
    # The same sentence as by replication.
    bad = {"WIN1252": ("WIN1252", "81")}.get(encoding, ("UTF-8", "ff"))
    assert f"the row is not {bad[0]}: byte 0x{bad[1]} in" in rejected[0].reason


async def test_text_that_is_no_utf8_does_not_stop_the_reading_of_several_tables(postgres: PostgresServer) -> None:
    """They are read in one transaction, which an error of the server ends."""
    await postgres.execute("CREATE DATABASE old ENCODING 'WIN1252' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    options = {"dsn": postgres.dsn("old"), "tables": [{"table": "rounds"}, {"table": "others"}]}
    for table in ("rounds", "others"):
        await postgres.make_rounds_table(table, extras="text", database="old")
    await set_up(postgres, **options)
    await postgres.execute(
        "INSERT INTO rounds VALUES (1, 'crash', NULL, now(), convert_from('\\x7b2261223a202281227d', 'WIN1252'))",
        database="old",
    )
    await postgres.insert_rounds(2, 2, table="others", database="old")

    async with reading(notify_backend(postgres, **options)) as found:
        assert await found.reach(2) == [2]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"corrections": "true"}, "corrections = true needs the feed"),
        ({"deletes": "void"}, "deletes = 'void' of public.rounds needs the feed"),
        ({"tables": '[{"table": "dice", "deletes": "void"}]'}, "deletes = 'void' of dice needs the feed"),
    ],
)
def test_changes_of_rows_are_refused_without_the_feed(options: dict[str, object], says: str) -> None:
    """The sentence names the feed and replication."""
    with pytest.raises(InvalidOptions, match=says):
        NotifyOptions.read({"dsn": "postgresql://localhost/x", **options})


async def test_outbox_is_refused_in_one_sentence(postgres: PostgresServer) -> None:
    """Its rows may be deleted before they are read, so replication is named."""
    await postgres.execute("CREATE TABLE outbox (id bigserial PRIMARY KEY, aggregate text, type text, payload jsonb)")
    outbox = {
        "table": "outbox", "order_column": "id", "round_id_column": "payload.round.no", "game_slug_column": "aggregate",
        "rows_when": "type = 'RoundFinished'", "extras_column": "payload.round.result",
        "finished_at_column": "payload.at",
    }  # fmt: skip
    await set_up(postgres, **outbox)
    for more in ({}, {"rows_deleted": True}):
        with pytest.raises(SourceError, match=r"deleted before they are read.*postgres-replication"):
            async with notify_backend(postgres, **outbox, **more).open():
                pass
    async with reading(notify_backend(postgres, rows_deleted=False, **outbox)) as found:
        await postgres.execute(
            """INSERT INTO outbox (aggregate, type, payload) VALUES ('wallet', 'Paid', '{}'), ('crash', 'RoundFinished',
            '{"round": {"no": 501, "result": {"point": 3.14}}, "at": "2026-01-18T10:00:30Z"}')"""
        )
        assert await found.reach(1) == [501]
