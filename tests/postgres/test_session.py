"""Sessions have our settings, whatever the server, the database, the role, the DSN and the environment set."""

from collections.abc import Mapping
from typing import Any

import pytest

from backends.contract import Captured
from backends.postgres.backfill.table_backfill import TableBackfill
from backends.postgres.database import close_connection, open_connection, query_text
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.replication.protocol.bounded_connection import BoundedConnection
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection
from backends.postgres.replication.slot import ReplicationOptions
from backends.postgres.session_settings import as_options, for_transaction, session_settings
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.postgres.pooler import PROGRAM, pooler_before
from tests.postgres.reading import CONTEXT, make_backend, reading
from tests.postgres_server import PostgresServer

HOSTILE = {
    "DateStyle": "German",
    "TimeZone": "Asia/Kathmandu",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "search_path": "nowhere",
    "client_min_messages": "error",
    "jit": "on",
    "row_security": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "statement_timeout": "123456",
    "lock_timeout": "123456",
    "idle_in_transaction_session_timeout": "123456",
    "idle_session_timeout": "123456",
}
VALUES = """
SELECT '2026-01-02 03:04:05.6+05'::timestamptz::text AS moment, '2026-02-01'::date::text AS day,
    '1 mon 2 days 03:00'::interval::text AS span, (0.1::float8 + 0.2::float8)::text AS number,
    '\\x01ff'::bytea::text AS bytes, 'public.rounds'::regclass::text AS name, 'a\\b' AS plain
"""
WRITTEN = {
    "moment": "2026-01-01 22:04:05.6+00",
    "day": "2026-02-01",
    "span": "1 mon 2 days 03:00:00",
    "number": "0.30000000000000004",
    "bytes": "\\x01ff",
    "name": "public.rounds",
    "plain": "a\\b",
}
CURRENT = "SELECT current_setting($1)"


def test_options_of_libpq_are_escaped() -> None:
    """A space separates two options there, so one in a value is escaped."""
    assert as_options({"DateStyle": "ISO, YMD", "a": "\\"}) == "-c DateStyle=ISO,\\ YMD -c a=\\\\"
    assert for_transaction().startswith("SET LOCAL DateStyle TO 'ISO, YMD'; SET LOCAL")
    assert " jit TO 'off';" in for_transaction()
    assert "lock_timeout" not in session_settings(reads=False)  # an owner's limit holds for what we change


@pytest.mark.service
async def test_settings_of_others_change_nothing(any_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values are written as ever, and no timeout ends our sessions, in every way that we connect."""
    server = any_postgres
    await server.make_rounds_table()
    timeout = {"transaction_timeout": "123456"} if server.version >= 17 else {}
    owners = ("DATABASE postgres", "ROLE postgres")
    hostile = {**HOSTILE, **timeout}.items()
    settings = [f"ALTER {owner} SET {name} = '{value}'" for name, value in hostile for owner in owners]
    await server.execute("; ".join(settings))
    monkeypatch.setenv("PGOPTIONS", "-c DateStyle=German")
    for suffix in ("", "?options=-c%20TimeZone%3DAsia/Tokyo"):
        options = ReplicationOptions.read({"dsn": server.dsn() + suffix})
        for link in (
            await ReplicationConnection.connect(options),
            await ReplicationConnection.connect(options, replication=False),
            await BoundedConnection.connect(options, prefix="stream_relay", limit_bytes=100),
        ):
            try:
                assert [dict(row) for row in await link.query(VALUES, 10)] == [WRITTEN]
                for name, value in {**session_settings(), **dict.fromkeys(timeout, "0")}.items():
                    (row,) = await link.query(f"SELECT current_setting('{name}') AS value", 10)
                    assert row["value"] == value, name
            finally:
                await link.close()
        connection = await open_connection(options, "reader")
        try:
            assert [dict(row) for row in await query_text(options, connection, VALUES, timeout_s=10)] == [WRITTEN]
            for name, value in {**session_settings(), **dict.fromkeys(timeout, "0")}.items():
                assert await connection.fetchval(CURRENT, name) == value, name
        finally:
            await close_connection(connection, within_s=1)

    async with reading(make_backend(server)) as reader:
        await server.execute(
            "BEGIN READ WRITE; INSERT INTO public.rounds VALUES"
            " (1, 'crash', NULL, '2026-01-02 03:04:05+00', '{}'); COMMIT"
        )
        await reader.seen(1)
    assert reader.rounds[0].finished_at == "2026-01-02T03:04:05Z"


@pytest.mark.service
@pytest.mark.skipif(PROGRAM is None, reason="no pgbouncer on this machine")
async def test_settings_hold_behind_a_pooler(postgres: PostgresServer, nats: NatsServer, unused_tcp_port: int) -> None:
    """A pooler in transaction mode refuses settings at the start, and its sessions are those of all its clients."""
    await postgres.make_rounds_table()
    await postgres.execute(
        "INSERT INTO rounds VALUES (1, 'crash', NULL, '2026-02-01 03:04:05+00', '{}');"
        "ALTER DATABASE postgres SET DateStyle = 'German'; ALTER DATABASE postgres SET IntervalStyle = 'iso_8601'"
    )
    async with pooler_before(postgres, unused_tcp_port) as dsn:
        options = NotifyOptions.read({"dsn": dsn, "notify": False})
        connection = await open_connection(options, "reader")
        try:
            rows: list[Mapping[str, Any]] = await query_text(options, connection, VALUES, timeout_s=10)
            assert dict(rows[0]) == WRITTEN
            assert (await connection.fetchval("SHOW DateStyle")).startswith("German")
        finally:
            await close_connection(connection, within_s=1)
        backfill = TableBackfill(options, CONTEXT, LogSettings(url=nats.url))
        async with backfill.open():
            items = [item async for batch in backfill.read() for item in batch]
    assert [item.round.finished_at for item in items if isinstance(item, Captured)] == ["2026-02-01T03:04:05Z"]
