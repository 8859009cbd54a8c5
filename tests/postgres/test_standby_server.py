"""A DSN with several hosts whose first one is a standby: it is named, and the primary is reached if asked for."""

from collections.abc import AsyncIterator

import pytest

from backends.contract import SourceError
from backends.postgres.database import close_connection, open_connection
from backends.postgres.replication.replication_admin import ReplicationAdmin
from backends.postgres.replication.slot import ReplicationOptions
from backends.postgres.replication.standby_server import standby_sentence
from tests.postgres.reading import make_backend, reading
from tests.postgres_server import PostgresServer

IS_STANDBY = "SELECT pg_is_in_recovery()"


def test_sentence_says_what_to_add_to_the_dsn() -> None:
    """Unless it is there already: then the hosts are wrong."""
    base = "postgresql://u@a:1,b:2/d"
    assert standby_sentence(ReplicationOptions.read({"dsn": base})).endswith(
        "a:1,b:2/d is a standby now, where replication slot 'stream_relay' cannot be read; add "
        "?target_session_attrs=read-write to the option 'dsn', with the primary among its hosts"
    )
    assert "add &target" in standby_sentence(ReplicationOptions.read({"dsn": f"{base}?sslmode=disable"}))
    given = ReplicationOptions.read({"dsn": f"{base}?target_session_attrs=any"})
    assert standby_sentence(given).endswith("has to reach the primary")


@pytest.fixture
async def standby(any_postgres: PostgresServer) -> AsyncIterator[PostgresServer]:
    """A running physical standby of the server."""
    copy = PostgresServer(any_postgres.version, {"hot_standby": "on"})
    try:
        await copy.start_from(any_postgres)
        yield copy
    finally:
        await copy.discard()


@pytest.mark.service
async def test_standby_first_in_the_dsn_is_named(any_postgres: PostgresServer, standby: PostgresServer) -> None:
    """Its missing slot is not lost: the error says how to reach the primary, and with that both drivers reach it."""
    primary = any_postgres
    await primary.make_rounds_table()
    dsn = f"postgresql://postgres@127.0.0.1:{standby.port},127.0.0.1:{primary.port}/postgres"
    options = {"dsn": dsn, "create": True}
    with pytest.raises(SourceError, match=r"is a standby now.*add \?target_session_attrs=read-write"):
        async with reading(make_backend(primary, dsn)):
            pass
    admin = ReplicationAdmin(options)
    assert "is a standby now" in (await admin.check())[0].text
    assert (await admin.status())["state"] == "standby server"
    with pytest.raises(SourceError, match="is a standby now"):
        await admin.set_up(None)

    for attribute in ("read-write", "primary"):
        reached = f"{dsn}?target_session_attrs={attribute}"
        connection = await open_connection(ReplicationOptions.read({"dsn": reached}), "reader")
        assert not await connection.fetchval(IS_STANDBY)
        await close_connection(connection, within_s=1)
        async with reading(make_backend(primary, reached)) as reader:
            first = 1 if attribute == "read-write" else 2
            await primary.insert_rounds(first, first)
            await reader.seen(1)
        await primary.slots_released()
