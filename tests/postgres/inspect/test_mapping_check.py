"""`stream-relay backend check` on the mapping: what would be rejected or could not be backfilled, with what to run."""

from collections.abc import Mapping
from typing import Any, Final

import pytest

from backends.postgres.findings import Verdict
from backends.postgres.inspect.mapping_check import check_mapping
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.replication.slot import ReplicationOptions
from rounds import Catalogue
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service

_TABLES: Final = """
CREATE TABLE good (round_id bigint PRIMARY KEY, game_slug text NOT NULL, finished_at timestamptz NOT NULL, extras json);
INSERT INTO good VALUES (1, 'crash', now(), '{"point": 1}');
CREATE TABLE odd (
    round_id numeric(12, 2) PRIMARY KEY, game_slug text, finished_at date NOT NULL, extras bytea, id uuid UNIQUE,
    game_id int, more hstore_like
);
CREATE TABLE dirty (round_id bigint PRIMARY KEY, game_slug text, finished_at timestamptz, extras text);
INSERT INTO dirty VALUES (1, 'crash', now(), '{}'), (2, NULL, now(), '{}'), (3, 'limbo', now(), '{}'),
    (4, 'crash', now(), 'no JSON'), (5, 'crash', NULL, '{}'), (6, 'crash', now() + interval '3 hours', '{}'),
    (7, 'crash', now(), 'none');
CREATE TABLE games (id int PRIMARY KEY, slug text);
INSERT INTO games VALUES (1, 'crash'), (2, 'limbo-x');
CREATE TABLE keyed (id numeric PRIMARY KEY, game_id int NOT NULL, finished_at timestamptz NOT NULL, extras jsonb);
INSERT INTO keyed VALUES (1, 1, now(), '{}'), (2, 2, now(), '{}'), (3, 9, now(), '{}');
CREATE TABLE hidden (round_id int PRIMARY KEY, game_slug text NOT NULL, finished_at timestamptz NOT NULL, extras text);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
CREATE ROLE ingest LOGIN;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO ingest;
CREATE TABLE daily (day date, round_id int, game_slug text NOT NULL, finished_at timestamptz NOT NULL, extras jsonb,
    PRIMARY KEY (day, game_slug, round_id));
INSERT INTO daily VALUES ('2026-01-18', 1, 'crash', '2026-01-18', '{"point": 1}'),
    ('2026-01-18', 1, 'dice', '2026-01-18', '{}');
CREATE TABLE closed (round_id int PRIMARY KEY, game_slug text NOT NULL, finished_at timestamptz NOT NULL, extras jsonb);
"""


async def test_rows_that_would_be_rejected_fail_the_check(any_postgres: PostgresServer) -> None:
    """Types, NULL, games and values of the newest rows, each with what to run; a good table has no finding."""
    server = any_postgres
    await server.execute(f"CREATE DOMAIN hstore_like AS text; {_TABLES}")

    async def found(
        *, user: str = "postgres", backend: Any = ReplicationOptions, **options: object
    ) -> Mapping[str, str]:
        """Return the findings by text, with their verdict."""
        given = backend.read({"dsn": server.dsn(user=user), **options})
        findings = await check_mapping(given, Catalogue.load())
        return {finding.text: str(finding.verdict) for finding in findings if finding.verdict is not Verdict.OK}

    def assert_finds(found: Mapping[str, str], verdict: str, *parts: str) -> None:
        matching = [text for text, was in found.items() if was == verdict and all(part in text for part in parts)]
        assert len(matching) == 1, (parts, found)

    assert await found(table="good") == {}
    assert await found(table="good", backend=NotifyOptions) == {}
    assert await found(table="good", deletes="void", corrections="true") == {}
    assert await found(table="good", deletes="void") == {
        "deletes = void of public.good has no effect without corrections = true: no void is published": "warning"
    }

    odd = await found(table="odd")
    assert_finds(odd, "warning", '"round_id"', "numeric(12,2)", "TYPE bigint;")
    assert_finds(odd, "warning", '"game_slug"', "may be NULL", "SET NOT NULL;")
    assert_finds(odd, "failure", '"finished_at"', "date", "TYPE timestamptz;")
    assert_finds(odd, "failure", '"extras"', "bytea", "'extras_columns'")
    assert_finds(odd, "warning", "a backfill could not do its work", "not an integer", "'order_column'")
    odd = await found(table="odd", round_id_column="id", game_slug_column="game_id", on_lost="backfill")
    assert_finds(odd, "failure", '"id"', "uuid", "'round_ids' to hashed")
    assert_finds(odd, "failure", '"game_id"', "'game_slug_table'")
    assert_finds(odd, "failure", "on_lost = backfill could not do its work", "'order_column'")

    dirty = await found(table="dirty")
    assert_finds(dirty, "failure", "1 of 7 rows", "game_slug is NULL")
    assert_finds(dirty, "failure", "2 of 7 rows", "dirty:crash:7", "are not JSON")
    assert_finds(dirty, "failure", "unknown game 'limbo'", "RELAY_GAMES_FILE", "game_slug_map", "rows_when")
    assert_finds(dirty, "warning", "round 6", "in the future", "UTC")
    assert list(dirty.values()).count("failure") == 3

    keyed = {"table": "keyed", "round_id_column": "id", "game_slug_column": "game_id", "game_slug_table": "games"}
    games = await found(**keyed)
    assert_finds(games, "failure", "unknown game 'limbo-x'", "game key '9' is not in")
    assert_finds(games, "warning", '"id"', "numeric", "may hold fractions")
    assert_finds(await found(**keyed, game_slug_table_slug_column="none"), "failure", "table of games", "'none'")
    assert_finds(await found(table="good", game_slug="limbo"), "failure", "unknown game 'limbo'")

    daily = await found(table="daily")
    assert_finds(daily, "warning", '"round_id"', 'unique only together with "day"', "'round_id_column'", "'rows_when'")
    assert_finds(daily, "warning", "rounds of dice", "no 'point'", "'extras_columns'")
    assert list(daily.values()).count("failure") == 0
    await server.execute("INSERT INTO daily VALUES ('2026-01-19', 1, 'crash', '2026-01-19', '{}')")
    daily = await found(table="daily")
    assert_finds(daily, "failure", "round 1 of crash", "several rows", "2026-01-19", "2026-01-18", "'rows_when'")
    assert_finds(daily, "warning", "rounds of dice", "no 'point'")
    assert not any("rounds of crash" in text for text in daily)
    await server.execute("ALTER TABLE daily ADD UNIQUE (round_id, game_slug, finished_at), DROP CONSTRAINT daily_pkey")
    assert_finds(
        await found(table="daily", rows_when="day = '2026-01-18'"), "warning", 'only together with "finished_at"'
    )

    hidden = await found(table="hidden", user="ingest", on_lost="backfill")
    assert_finds(hidden, "failure", "row level security", 'ALTER ROLE "ingest" BYPASSRLS;')
    assert_finds(hidden, "failure", "does not own", 'GRANT "postgres" TO "ingest";')
    hidden = await found(table="hidden", user="ingest")
    assert_finds(hidden, "warning", "row level security")
    closed = await found(table="closed", user="ingest")
    assert_finds(closed, "warning", 'GRANT SELECT ON "public"."closed" TO "ingest";')


async def test_text_that_is_not_utf_8_fails_the_check_of_its_row_only(any_postgres: PostgresServer) -> None:
    """The other rows of the sample are judged; a database that does not check text has a warning."""
    await any_postgres.execute("CREATE DATABASE plain ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    await any_postgres.execute(_TABLES.partition("CREATE TABLE odd")[0], database="plain")
    await any_postgres.execute(
        "INSERT INTO good VALUES (2, E'cra\\377sh', now(), '{}'), (3, 'dice', now(), '{}')", database="plain"
    )

    findings = await check_mapping(
        ReplicationOptions.read({"dsn": any_postgres.dsn("plain"), "table": "good"}), Catalogue.load()
    )

    found = {finding.text: finding.verdict for finding in findings}
    (failure,) = [text for text, verdict in found.items() if verdict is Verdict.FAILURE]
    assert "1 of 3 rows" in failure
    assert "byte 0xff" in failure
    assert any("SQL_ASCII" in text for text, verdict in found.items() if verdict is Verdict.WARNING)
    assert any("1 rejected, 2 rounds" in text for text in found)
