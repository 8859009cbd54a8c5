"""WAL that the server keeps for an idle slot: measured as it is, and removed."""

import pytest

from backends.postgres.replication.replication_admin import ReplicationAdmin
from backends.postgres.replication.slot_heartbeat import KeptWal
from tests.postgres.reading import make_backend, reading, wait_for_sql
from tests.postgres_server import PostgresServer
from tests.waiting import until

SEGMENT = 16 << 20
OLDEST = "SELECT min(name) FROM pg_ls_waldir()"
WRITE = "SELECT pg_logical_emit_message(false, 'other', repeat('x', 1000000)) FROM generate_series(1, 40)"
LOOKS = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%may_list_wal%' AND pid <> pg_backend_pid()"


def test_kept_wal_is_counted_from_the_last_move_of_catalog_xmin() -> None:
    """``restart_lsn`` alone does not let the server remove WAL."""
    kept = KeptWal()

    assert kept.kept_bytes(head=100, restart=90, catalog_xmin="7") == 10
    assert kept.kept_bytes(head=500, restart=490, catalog_xmin="7") == 410
    assert kept.kept_bytes(head=600, restart=590, catalog_xmin="8") == 10
    assert kept.kept_bytes(head=50, restart=40, catalog_xmin="8") == 10  # another server


@pytest.mark.service
async def test_wal_without_transaction_ids_is_removed(any_postgres: PostgresServer) -> None:
    """WAL that no transaction wrote is kept while every lag is 0: it is measured, and a message of ours frees it."""
    server = any_postgres
    await server.restart(min_wal_size="32MB", max_wal_size="64MB", autovacuum="off")
    await server.make_rounds_table()
    admin = ReplicationAdmin({"dsn": server.dsn()})
    async with reading(make_backend(server, release_wal_bytes=0, sender_timeout_s=1)) as reader:
        await server.insert_rounds(1, 1)
        await reader.seen(1)
        await _checkpoint_until(server, "catalog_xmin::text = pg_snapshot_xmax(pg_current_snapshot())::text")
        async with admin.measuring() as measure:
            await measure()
            oldest, start = (await server.fetch(f"SELECT ({OLDEST}), pg_current_wal_lsn()::text"))[0]
            await server.execute(WRITE)
            await _checkpoint_until(server, f"restart_lsn - '{start}'::pg_lsn > {2 * SEGMENT}")
            await server.execute("CHECKPOINT")
            assert (await server.fetch(OLDEST))[0][0] == oldest
            backlog = await measure()
        status = await admin.status()
    assert (backlog.kept_bytes or 0) > 2 * SEGMENT > backlog.behind
    assert "transactions ago" in status["kept in the catalogue"]
    assert status["WAL on the server"].endswith(" bytes")

    async with reading(make_backend(server, release_wal_bytes=SEGMENT, sender_timeout_s=1)):
        await wait_for_sql(server, LOOKS)
        await server.execute("CHECKPOINT")
        oldest = (await server.fetch(OLDEST))[0][0]
        await server.execute(WRITE)
        await _checkpoint_until(server, f"({OLDEST}) > '{oldest}'")


async def _checkpoint_until(server: PostgresServer, holds: str) -> None:
    """Make checkpoints, which remove WAL and log the open transactions, until a condition on the slot is true."""

    async def held() -> bool:
        await server.execute("CHECKPOINT")
        return bool((await server.fetch(f"SELECT {holds} FROM pg_replication_slots"))[0][0])  # noqa: S608

    await until(held)
