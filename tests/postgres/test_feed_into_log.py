"""The feed into a real log, read by both backends."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.errors import NoRespondersError

from backends.contract import Backend, SourceError
from backends.postgres.feed.feed_table import FEED
from backends.postgres.findings import Verdict
from backends.postgres.notify.postgres_notify import PostgresNotify
from backends.postgres.replication.postgres_replication import PostgresReplication
from backends.postgres.source_admin import admin_of
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from rounds import Round
from tests.backends.harness import captured_events
from tests.nats import NatsServer, nats_client
from tests.postgres.ingesting import CONTEXT, ingesting
from tests.postgres.reading import wait_for_sql
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service

BACKENDS: dict[str, Callable[..., Backend[Any]]] = {
    "postgres-notify": PostgresNotify,
    "postgres-replication": PostgresReplication,
}
TABLES = """
CREATE TABLE rounds (
    round_id bigint PRIMARY KEY, game_slug text NOT NULL, finished_at timestamptz, extras jsonb,
    voided boolean NOT NULL DEFAULT false
);
CREATE TABLE dice (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, roll int, done_at timestamptz);
"""
OPTIONS = {
    "feed": "true",
    "feed_keep_s": "0",
    "corrections": "true",
    "tables": (
        '[{"table": "rounds", "voided_when": "voided", "deletes": "void"},'
        ' {"table": "dice", "round_id_column": "id", "game_slug": "dice", "finished_at_column": "done_at",'
        '  "extras_columns": "point=roll"}]'
    ),
}


async def log_of(nats: NatsServer, count: int) -> list[str]:
    """Wait until the log holds `count` entries; return all of them, in the order of the log."""
    found: list[str] = []

    async def holds() -> bool:
        with suppress(NoRespondersError):  # the stream is not made yet
            while True:
                request = msgspec.json.encode({"seq": len(found) + 1})
                answer = await nc.request("$JS.API.DIRECT.GET.ROUNDS", request, 5)
                if "Status" in (answer.headers or {}):
                    break
                found.append(_shown(msgspec.json.decode(answer.data, type=Round)))
        return len(found) >= count

    async with nats_client(LogSettings(url=nats.url)) as nc:
        await until(holds)
    return found


def _shown(round_: Round) -> str:
    revision = "" if round_.revision == 1 else f" revision {round_.revision}"
    return f"{round_.game_slug} {round_.round_id}{revision} {'voided' if round_.voided else round_.extras}"


async def feed_is_empty(server: PostgresServer) -> None:
    """Wait until all rows of the feed were deleted."""
    await wait_for_sql(server, f"SELECT NOT EXISTS (SELECT FROM {FEED})")  # noqa: S608


@pytest.mark.parametrize("name", BACKENDS)
async def test_rounds_corrections_and_voids_come_through_the_feed(
    postgres: PostgresServer, nats: NatsServer, name: str
) -> None:
    """Of several tables, in the order of their commits, once each, through a restart; stored rows are deleted."""
    await postgres.execute(TABLES)
    options = {"dsn": postgres.dsn(), **OPTIONS}
    await admin_of(name, options).set_up(None)

    async with ingesting(BACKENDS[name](options, CONTEXT), nats):
        await postgres.execute(
            """
            INSERT INTO rounds VALUES (1, 'crash'), (2, 'crash'), (3, 'crash');
            INSERT INTO rounds VALUES (4, 'nope', now());
            INSERT INTO dice (roll) VALUES (6), (3);
            UPDATE rounds SET finished_at = now(), extras = '{"point": "1.00"}' WHERE round_id = 1;
            """
        )
        await postgres.execute("UPDATE dice SET done_at = now() WHERE id = 2")
        await postgres.execute(
            'UPDATE rounds SET finished_at = now(), extras = \'{"point": "3.00"}\' WHERE round_id < 4'
        )
        first = await log_of(nats, 5)
        await feed_is_empty(postgres)
    await postgres.execute("UPDATE rounds SET voided = true WHERE round_id = 2")
    await postgres.execute("UPDATE rounds SET voided = false WHERE round_id = 2; DELETE FROM rounds WHERE round_id = 3")
    async with ingesting(BACKENDS[name](options, CONTEXT), nats):
        entries = await log_of(nats, 8)
        await feed_is_empty(postgres)

    assert [entry for entry in first if "revision" not in entry] == [
        'crash 1 {"point": "1.00"}',
        'dice 2 {"point":"3"}',
        'crash 2 {"point": "3.00"}',
        'crash 3 {"point": "3.00"}',
    ]
    assert 'crash 1 revision 2 {"point": "3.00"}' in first
    assert entries[5:] == [
        "crash 2 revision 2 voided",
        'crash 2 revision 3 {"point": "3.00"}',
        "crash 3 revision 2 voided",
    ]


@pytest.mark.parametrize("name", BACKENDS)
async def test_late_commits_are_neither_lost_nor_deleted_before_they_are_stored(
    postgres: PostgresServer, nats: NatsServer, name: str
) -> None:
    """Writers commit in any order and roll back, ingest is stopped and started, and rows are deleted meanwhile."""
    await postgres.execute(TABLES)
    options = {"dsn": postgres.dsn(), **OPTIONS}
    await admin_of(name, options).set_up(None)
    await postgres.execute("INSERT INTO rounds SELECT n, 'crash' FROM generate_series(1, 400) n")
    finished: set[int] = set()

    async def write(first: int) -> None:
        connection = await postgres.connect()
        for number in range(first, first + 100):
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute("UPDATE rounds SET finished_at = now() WHERE round_id = $1", number)
            await connection.execute("SELECT pg_sleep($1)", 0.05 if number % 7 == 0 else 0.002)
            if number % 10 == 0:
                await transaction.rollback()
            else:
                await transaction.commit()
                finished.add(number)
        await connection.close()

    writers = asyncio.gather(*(write(first) for first in (1, 101, 201, 301)))
    for least in (1, 100):
        async with ingesting(BACKENDS[name](options, CONTEXT), nats):
            await log_of(nats, least)
    await writers
    async with ingesting(BACKENDS[name](options, CONTEXT), nats):
        entries = await log_of(nats, len(finished))
        await feed_is_empty(postgres)

    assert sorted(entries) == sorted(f"crash {number} {{}}" for number in finished)


@asynccontextmanager
async def killed_at_the_end(name: str, options: dict[str, str], nats: NatsServer) -> AsyncIterator[None]:
    """Run ``stream-relay ingest``, which confirms nothing to the source, and kill it."""
    given = [part for option, value in options.items() for part in ("-o", f"{option}={value}")]
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("stream-relay"), "ingest", "--backend", name, *given,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        env={**os.environ, "RELAY_NATS_URL": nats.url, "RELAY_PUBLISH_CONFIRM_LAG_S": "60"},
    )  # fmt: skip
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("name", BACKENDS)
async def test_kill_between_two_corrections_makes_no_further_revision(
    postgres: PostgresServer, nats: NatsServer, name: str
) -> None:
    """Changes that come again are known by the same text, although a lower row of the feed was committed since."""
    await postgres.execute(TABLES)
    options = {"dsn": postgres.dsn(), **OPTIONS}
    await admin_of(name, options).set_up(None)
    await postgres.execute(
        "INSERT INTO rounds VALUES (1, 'crash', now(), '{\"point\": \"1\"}'), (2, 'crash', NULL, NULL)"
    )
    change = "UPDATE rounds SET extras = '{{\"point\": \"{}\"}}', finished_at = '2026-11-29 12:00Z' WHERE round_id {}"
    late = await postgres.connect()
    transaction = late.transaction()
    await transaction.start()
    await late.execute("INSERT INTO dice (done_at) VALUES (now())")

    async with killed_at_the_end(name, options, nats):
        await postgres.execute(change.format(2, "<= 2"))
        await log_of(nats, 3)
    async with killed_at_the_end(name, options, nats):
        for point in (3, 2, 4):
            await postgres.execute(change.format(point, "= 1"))
        expected = await log_of(nats, 6)
    await transaction.commit()
    await late.close()
    async with ingesting(BACKENDS[name](options, CONTEXT), nats):
        await log_of(nats, 7)
        await postgres.execute("UPDATE rounds SET voided = true WHERE round_id = 2")
        entries = await log_of(nats, 8)

    assert entries == [*expected, "dice 1 {}", "crash 2 revision 2 voided"]
    assert [entry for entry in entries if "crash 1" in entry] == [
        'crash 1 {"point": "1"}',
        *(f'crash 1 revision {n} {{"point": "{point}"}}' for n, point in ((2, 2), (3, 3), (4, 2), (5, 4))),
    ]


@pytest.mark.parametrize("name", BACKENDS)
async def test_rounds_that_another_backend_has_stored_do_not_come_again(
    postgres: PostgresServer, nats: NatsServer, name: str
) -> None:
    """The feed fills while the other backend still reads the tables; nothing is stored twice."""
    await postgres.execute(TABLES)
    before = {option: value for option, value in OPTIONS.items() if not option.startswith("feed")}
    before |= {"dsn": postgres.dsn(), "slot": "before", "publication": "before"}
    options = {"dsn": postgres.dsn(), **OPTIONS}
    await admin_of("postgres-replication", before).set_up(None)
    await admin_of(name, options).set_up(None)
    # The server recognises no id, and the rounds of the feed are older than what is read of the log in any case.
    log, settings = LogSettings(url=nats.url, duplicate_window_s=0.1), PublisherSettings(tail_rounds=5)
    change = 'UPDATE rounds SET extras = \'{{"point": "{}"}}\' WHERE round_id = {}'

    async with ingesting(PostgresReplication(before, CONTEXT), nats, log):
        await postgres.execute("INSERT INTO rounds SELECT n, 'crash', now() FROM generate_series(1, 30) n")
        for point in (1, 2, 1):
            await postgres.execute(change.format(point, 1))
        await postgres.execute("INSERT INTO dice (done_at) SELECT now() FROM generate_series(1, 1200)")
        expected = await log_of(nats, 1233)
    for point in (3, 4):
        for number in (1, 2):
            await postgres.execute(change.format(point, number))
            expected.append(f'crash {number} revision {point + 5 - 3 * number} {{"point": "{point}"}}')
        async with ingesting(BACKENDS[name](options, CONTEXT), nats, log, settings):
            assert await log_of(nats, len(expected)) == expected


@pytest.mark.parametrize(("name", "admin_user"), [("postgres-notify", "owner"), ("postgres-replication", "postgres")])
async def test_role_without_rights_on_the_rounds_reads_the_feed(
    postgres: PostgresServer, nats: NatsServer, name: str, admin_user: str
) -> None:
    """With the grants of setup alone, although row level security hides the rounds from it, and their games are in a
    table; in a database without an encoding, where text that is no UTF-8 costs its row."""
    await postgres.execute("CREATE ROLE owner LOGIN; CREATE ROLE writer LOGIN; CREATE ROLE ingest LOGIN")
    await postgres.execute("CREATE DATABASE ascii OWNER owner ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    await postgres.execute(
        """
        CREATE SCHEMA live;
        CREATE TABLE live.games (id int PRIMARY KEY, code text NOT NULL);
        CREATE TABLE live.rounds (
            round_id bigint PRIMARY KEY, game_id int REFERENCES live.games, finished_at timestamptz, extras text
        );
        ALTER TABLE live.rounds ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
        CREATE POLICY writes ON live.rounds TO writer USING (true);
        GRANT USAGE ON SCHEMA live TO writer; GRANT ALL ON ALL TABLES IN SCHEMA live TO writer;
        INSERT INTO live.games VALUES (1, 'CRASH')
        """,
        database="ascii",
        user="owner",
    )
    options: dict[str, object] = {
        "dsn": postgres.dsn("ascii", "ingest"),
        "feed": True,
        "corrections": True,
        "table": "live.rounds",
        "game_slug_column": "game_id",
        "game_slug_table": "live.games",
        "game_slug_table_slug_column": "code",
        "game_slug_spelling": "dashed",
    }
    ours = admin_of(name, options)
    await ours.acting_as(postgres.dsn("ascii", admin_user)).set_up("ingest")
    failed = [finding.text for finding in await ours.check() if finding.verdict is Verdict.FAILURE]
    assert failed == []

    async with ingesting(BACKENDS[name](options, CONTEXT), nats):
        await postgres.execute(
            """
            INSERT INTO live.rounds (round_id, game_id) SELECT n, 1 FROM generate_series(1, 3) n;
            UPDATE live.rounds SET finished_at = now(), extras = '{"point": "€ 1"}' WHERE round_id = 1;
            UPDATE live.rounds SET
                finished_at = now(), extras = '{"point": "' || convert_from('\\xff', 'SQL_ASCII') || '"}'
            WHERE round_id = 2;
            INSERT INTO live.games VALUES (2, 'DICE'); INSERT INTO live.rounds VALUES (4, 2, now(), '{}');
            UPDATE live.rounds SET extras = '{"point": "2"}' WHERE round_id = 1
            """,
            database="ascii",
            user="writer",
        )
        entries = await log_of(nats, 3)
        await postgres.execute("UPDATE live.rounds SET finished_at = now()", database="ascii", user="writer")
        rest = await log_of(nats, 6)

    assert entries == ['crash 1 {"point": "€ 1"}', "dice 4 {}", 'crash 1 revision 2 {"point": "2"}']
    assert sorted(rest[3:]) == ['crash 1 revision 3 {"point": "2"}', "crash 3 {}", "dice 4 revision 2 {}"]


async def test_a_table_that_stops_filling_the_feed_is_noticed_while_ingest_runs(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """A new child without triggers, and a start without the feed, are said with what to run."""
    await postgres.execute(TABLES)
    options = {"dsn": postgres.dsn(), **OPTIONS}
    backend = PostgresNotify(options, CONTEXT)
    with pytest.raises(SourceError, match=r"stream_relay.feed is missing .* setup --feed"):
        async with backend.open():
            pass
    await admin_of("postgres-notify", options).set_up(None)
    with captured_events() as events:
        async with ingesting(PostgresNotify(options, CONTEXT), nats):
            await events.seen("reading_started")
            await postgres.execute("CREATE TABLE dice_2 () INHERITS (dice)")
            await events.seen("feed_incomplete")
    [reason] = [event["reason"] for event in events.details if event["event"] == "feed_incomplete"]
    assert "public.dice_2 that fills stream_relay.feed is missing" in reason
