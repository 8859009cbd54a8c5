"""The servers that the Postgres tests run on."""

import asyncpg
import pytest

from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service


async def test_server_of_each_version_keeps_rows_over_stop_crash_and_freeze(any_postgres: PostgresServer) -> None:
    """The port and the committed rows survive whatever a test does to its server."""
    server = any_postgres
    await server.make_rounds_table()
    await server.insert_rounds(1, 3)
    port = server.port

    await server.restart("immediate")
    await server.insert_rounds(4, 6)
    await server.restart("fast", log_min_messages="info")
    server.freeze()
    server.thaw()

    assert server.port == port
    assert [row[0] for row in await server.fetch("SELECT round_id FROM rounds ORDER BY 1")] == [1, 2, 3, 4, 5, 6]
    assert (await server.fetch("SHOW server_version"))[0][0].startswith(str(server.version))
    assert (await server.fetch("SHOW wal_level"))[0][0] == "logical"


async def test_killed_server_breaks_its_connections_and_starts_again(postgres: PostgresServer) -> None:
    """SIGKILL ends every server process; the next start recovers."""
    await postgres.make_rounds_table()
    connection = await postgres.connect()

    await postgres.kill()

    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.execute("SELECT 1")
    await postgres.start()
    assert await postgres.fetch("SELECT 1 FROM rounds") == []
