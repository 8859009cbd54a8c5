"""Generated columns: live capture and the backfill make the same rounds of a table, or both refuse it."""

import msgspec
import pytest

from backends.contract import BackendError, Captured
from backends.postgres.backfill.table_backfill import TableBackfill
from backends.postgres.replication.slot import ReplicationOptions
from roundlog.log_settings import LogSettings
from rounds import Round
from tests.nats import NatsServer
from tests.postgres.reading import CONTEXT, make_backend, reading
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service

TABLES = {
    # a table by its columns: those of a round, of which one is generated
    "typed": "game_slug text, game_type text GENERATED ALWAYS AS ('own-' || game_slug) STORED, extras jsonb",
    "slugged": "game text, game_slug text GENERATED ALWAYS AS (lower(game)) STORED, extras jsonb",
    "valued": "game_slug text, cents int, extras text GENERATED ALWAYS AS ('{\"c\": ' || cents || '}') STORED",
}
VIRTUAL = "game_slug text, game_type text GENERATED ALWAYS AS ('own-' || game_slug) VIRTUAL, extras jsonb"
ROWS = {
    "typed": "(game_slug) VALUES ('crash')",
    "slugged": "(game) VALUES ('CRASH')",
    "valued": "(game_slug, cents) VALUES ('crash', 250)",
    "virtual": "(game_slug) VALUES ('crash')",
}


@pytest.mark.parametrize("first", ["created by ingest", "without generated columns"])
async def test_live_and_backfill_agree_about_generated_columns(
    any_postgres: PostgresServer, nats: NatsServer, first: str
) -> None:
    """Also about the game's type, which live capture takes from the catalogue when the column is not sent."""
    server = any_postgres
    tables = {**TABLES, **({"virtual": VIRTUAL} if server.version >= 18 else {})}
    for name, columns in tables.items():
        await server.execute(
            f"CREATE TABLE {name} (round_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "
            f"finished_at timestamptz NOT NULL DEFAULT '2026-01-18 10:00:30+00', {columns})"
        )
        if first != "created by ingest":
            await server.execute(f"CREATE PUBLICATION {name} FOR TABLE {name} WITH (publish = 'insert')")
            await server.execute(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
        live = await _live(server, name)
        is_sent = server.version >= 18 and first == "created by ingest" and name != "virtual"
        assert (live is not None) is is_sent, name
        if live is not None:
            assert await _backfilled(server, nats, name) == live


async def _live(server: PostgresServer, name: str) -> list[Round] | None:
    try:
        async with reading(make_backend(server, table=name, slot=name, publication=name)) as reader:
            await server.execute(f"INSERT INTO {name} {ROWS[name]}")
            await reader.seen(1)
    except BackendError:
        return None
    return [msgspec.structs.replace(round_, timestamp=0) for round_ in reader.rounds]


async def _backfilled(server: PostgresServer, nats: NatsServer, name: str) -> list[Round]:
    options = ReplicationOptions.read({"dsn": server.dsn(), "table": name, "slot": name, "publication": name})
    backfill = TableBackfill(options, CONTEXT, LogSettings(url=nats.url))
    async with backfill.open():
        items = [item async for batch in backfill.read() for item in batch]
    return [msgspec.structs.replace(item.round, timestamp=0) for item in items if isinstance(item, Captured)]
