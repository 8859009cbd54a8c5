"""What is said where the option ``table`` names no table."""

import pytest

from backends.contract import SourceError
from backends.postgres.findings import connected
from backends.postgres.inspect.preview import preview_table
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.source_admin import admin_of
from rounds import Catalogue
from tests.postgres.ingesting import notify_backend
from tests.postgres.reading import make_backend
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service

THINGS = """
    CREATE SCHEMA gaming;
    CREATE TABLE gaming.rounds (round_id bigint PRIMARY KEY, game_slug text, finished_at timestamptz, extras jsonb);
    CREATE VIEW shown AS SELECT * FROM gaming.rounds;
    CREATE MATERIALIZED VIEW kept AS SELECT * FROM gaming.rounds;
    CREATE SEQUENCE numbers;
    CREATE FOREIGN DATA WRAPPER empty;
    CREATE SERVER other FOREIGN DATA WRAPPER empty;
    CREATE FOREIGN TABLE far (round_id bigint, game_slug text, finished_at timestamptz, extras jsonb) SERVER other;
"""
SAYS = {
    "shown": r'"public"."shown" on .* is a view, .* set the option \'table\' to a table: it reads gaming.rounds$',
    "kept": r'"public"."kept" on .* is a materialized view, .* it reads gaming.rounds$',
    "numbers": r'"public"."numbers" on .* is a sequence, ',
    "far": r'"public"."far" on .* is a foreign table, which has no rows of its own to capture; set the option ',
    "Rounds": r'has no table "public"."Rounds"; set the option \'table\' to gaming.rounds$',
    "nothing": r'has no table "public"."nothing"; set the option \'table\'$',
}


async def test_what_is_no_table_is_named(postgres: PostgresServer) -> None:
    """By both backends: at start, by setup, by check and by preview, with what is there instead."""
    await postgres.execute(THINGS)
    for table, says in SAYS.items():
        options = {"dsn": postgres.dsn(), "table": table}
        for backend in (make_backend(postgres, table=table), notify_backend(postgres, table=table)):
            with pytest.raises(SourceError, match=says):
                async with backend.open():
                    pass
        for name in ("postgres-replication", "postgres-notify"):
            with pytest.raises(SourceError, match=says):
                await admin_of(name, options).set_up(None)
        with pytest.raises(SourceError, match=says):
            await admin_of("postgres-notify", options).check()
        findings = await admin_of("postgres-replication", options).check()
        with pytest.raises(SourceError, match=says):
            raise SourceError(findings[0].text)
        read = NotifyOptions.read(options)
        async with connected(read) as connection:
            with pytest.raises(SourceError, match=says):
                await preview_table(connection, read, read, Catalogue.load())
    (made,) = await postgres.fetch("SELECT count(*) AS publications FROM pg_publication")
    assert made["publications"] == 0
