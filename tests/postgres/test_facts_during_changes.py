"""What is read of a table and its publication while the table is being changed."""

import asyncio

import pytest

from backends.postgres.findings import Verdict
from backends.postgres.inspect.mapping_check import check_mapping
from backends.postgres.replication import slot
from backends.postgres.replication.protocol.replication_connection import Record, ReplicationConnection
from backends.postgres.replication.publication.publication_facts import PublicationFacts
from backends.postgres.replication.setup import ensure_slot
from backends.postgres.replication.slot import ReplicationOptions, SlotLost, SlotState
from backends.postgres.source_admin import admin_of
from rounds import Catalogue
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


async def test_table_dropped_during_a_check_is_no_fault(postgres: PostgresServer) -> None:
    """A publication of all tables names one that the server then cannot open."""
    server = postgres
    await all_tables_published(server)
    await server.execute("CREATE TABLE other (n integer PRIMARY KEY)")
    owner = await server.connect()
    await owner.execute("BEGIN; DROP TABLE other")
    checking = asyncio.create_task(ensure_slot(ReplicationOptions.read({"dsn": server.dsn()})))
    await wait_for_sql(server, BLOCKED, lambda count: count > 0)
    await owner.execute("COMMIT")
    await owner.close()
    await checking


async def test_child_dropped_during_a_check_is_no_fault(postgres: PostgresServer) -> None:
    """The query has begun with it, and then nobody has rights on it."""
    server = postgres
    await all_tables_published(server)
    await server.execute("CREATE TABLE child () INHERITS (rounds)")  # since the slot began, so its rows are looked at
    await server.execute("CREATE TABLE other (n integer PRIMARY KEY)")
    owner = await server.connect()
    await owner.execute("BEGIN; LOCK TABLE other")
    checking = asyncio.create_task(ensure_slot(ReplicationOptions.read({"dsn": server.dsn()})))
    await wait_for_sql(server, BLOCKED, lambda count: count > 0)
    await server.execute("DROP TABLE child")
    await owner.execute("COMMIT")
    await owner.close()
    await checking


async def test_slot_created_during_a_check_is_missing_and_has_a_publication(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was missing at first. It is not taken for one whose publication was dropped, which would be a loss."""
    await postgres.make_rounds_table()
    await postgres.execute("ALTER TABLE rounds ALTER finished_at SET NOT NULL")
    admin = admin_of("postgres-replication", {"dsn": postgres.dsn()})
    read_slot, facts_of = slot.read_slot, slot.facts_of

    async def slot_then_set_up(link: ReplicationConnection, options: ReplicationOptions) -> Record | None:
        found = await read_slot(link, options)
        await admin.set_up(None)
        return found

    async def facts_then_set_up(link: ReplicationConnection, options: ReplicationOptions) -> PublicationFacts:
        found = await facts_of(link, options)
        await admin.set_up(None)
        return found

    monkeypatch.setattr(slot, "read_slot", slot_then_set_up)
    monkeypatch.setattr(slot, "facts_of", facts_then_set_up)
    with pytest.raises(SlotLost) as lost:
        await ensure_slot(ReplicationOptions.read({"dsn": postgres.dsn()}))
    assert lost.value.state is SlotState.MISSING


async def all_tables_published(server: PostgresServer) -> None:
    await server.make_rounds_table()
    await server.execute("ALTER TABLE rounds ALTER finished_at SET NOT NULL")
    await server.execute("CREATE PUBLICATION stream_relay FOR ALL TABLES WITH (publish = 'insert')")
    await server.fetch("SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')")


async def test_key_added_during_a_look_is_of_a_column_that_is_known(postgres: PostgresServer) -> None:
    """The columns are read before the change, after a wait for it, and the keys after it."""
    await postgres.make_rounds_table()
    await postgres.execute("ALTER TABLE rounds ALTER extras SET DEFAULT '{}'")  # the look waits for it
    options = admin_of("postgres-notify", {"dsn": postgres.dsn()}).options
    owner = await postgres.connect()
    await owner.execute("BEGIN; ALTER TABLE rounds ADD COLUMN seq bigserial UNIQUE")
    checking = asyncio.create_task(check_mapping(options, Catalogue.load()))
    await wait_for_sql(postgres, BLOCKED, lambda count: count > 0)
    await owner.execute("COMMIT")
    await owner.close()
    findings = await checking
    assert [finding.text for finding in findings if finding.verdict is Verdict.FAILURE] == []
