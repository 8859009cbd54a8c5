"""What is read of a publication while its table is being changed."""

import asyncio

import pytest

from backends.postgres.findings import Verdict
from backends.postgres.source_admin import admin_of
from tests.postgres.reading import wait_for_sql
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service

BLOCKED = (
    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE 'stream-relay%'"
)


async def test_column_dropped_during_a_check_is_no_fault(postgres: PostgresServer) -> None:
    """The server waits for the change, and then answers with the columns of before and the lists of after."""
    server = postgres
    await server.make_rounds_table()
    admin = admin_of("postgres-replication", {"dsn": server.dsn()})
    await admin.set_up(None)
    await server.execute("ALTER TABLE rounds ALTER finished_at SET NOT NULL")
    owner = await server.connect()
    await owner.execute("BEGIN; ALTER TABLE rounds DROP COLUMN game_type")
    checking = asyncio.create_task(admin.check())
    await wait_for_sql(server, BLOCKED, lambda count: count > 0)
    await owner.execute("COMMIT")
    await owner.close()
    findings = await checking
    assert [finding.text for finding in findings if finding.verdict is Verdict.FAILURE] == []
