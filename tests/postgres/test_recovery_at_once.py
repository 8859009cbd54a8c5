"""Several processes find the slot lost at once: one of them renews it, the others wait, and none ends."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from backends.contract import SourceError, SourceUnavailable
from backends.postgres.findings import run_sql
from backends.postgres.replication.replication_admin import ReplicationAdmin
from tests.backends.harness import stored
from tests.cli.command import COMMAND
from tests.clients.program import clean_environment
from tests.nats import NatsServer
from tests.postgres.ingest_process import IngestProcess
from tests.postgres.test_notify_into_log import log_holds, slot_is_read
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service


@asynccontextmanager
async def ingesting(postgres: PostgresServer, nats: NatsServer) -> AsyncIterator[IngestProcess]:
    """Run ``stream-relay ingest``; killed at the end."""
    environment = {
        "RELAY_NATS_URL": nats.url,
        "RELAY_NATS_CONNECT_TIMEOUT_S": "2",
        "RELAY_BACKEND_NAME": "postgres-replication",
        "RELAY_BACKEND_DSN": postgres.dsn(),
        "RELAY_BACKEND_CREATE": "true",
        "RELAY_BACKEND_ON_LOST": "backfill",
        "RELAY_BACKEND_RETRY_MAX_S": "0.2",
        "RELAY_LOG_FORMAT": "json",
    }
    process = await asyncio.create_subprocess_exec(
        *(COMMAND, "ingest"),
        env=clean_environment() | environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    ingest = IngestProcess(process)
    try:
        yield ingest
    finally:
        await ingest.kill()


async def nothing(_postgres: PostgresServer, _nats: NatsServer, _waiting: IngestProcess) -> None:
    pass


async def postgres_dies(postgres: PostgresServer, _nats: NatsServer, waiting: IngestProcess) -> None:
    await postgres.kill()
    await waiting.said("cannot be reached")
    await postgres.start()


async def nats_dies(_postgres: PostgresServer, nats: NatsServer, waiting: IngestProcess) -> None:
    await nats.kill()
    assert "NATS" in await waiting.said("recovery_awaited")
    await nats.start()


@pytest.mark.parametrize("meanwhile", [nothing, postgres_dies, nats_dies])
async def test_slot_whose_reader_is_still_there_is_waited_for(
    postgres: PostgresServer,
    nats: NatsServer,
    meanwhile: Callable[[PostgresServer, NatsServer, IngestProcess], Awaitable[None]],
) -> None:
    """The standby finds the loss first, while the reader is frozen. Nobody ends, and each round is stored once."""
    await postgres.make_rounds_table()
    async with ingesting(postgres, nats) as reader:
        await reader.said("stream_started")
        async with ingesting(postgres, nats) as standby:
            await standby.said("slot_awaited")
            await postgres.insert_rounds(1, 100)
            await log_holds(nats, 100)
            reader.freeze()
            await postgres.execute("ALTER PUBLICATION stream_relay DROP TABLE rounds")
            await postgres.insert_rounds(101, 150)
            assert "55006" in await standby.said("recovery_awaited")
            await meanwhile(postgres, nats, standby)
            reader.thaw()

            await log_holds(nats, 150)
            await slot_is_read(postgres)
            await postgres.insert_rounds(151, 200)
            await log_holds(nats, 200)
            assert reader.is_running
            assert standby.is_running

    assert sorted(number for _, number in await stored(nats)) == list(range(1, 201))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_drop_replication_slot('stream_relay')",
        "DO $$ BEGIN RAISE unique_violation; END $$",  # two sessions that create a publication at one moment
        "DO $$ BEGIN RAISE admin_shutdown; END $$",
        "DO $$ BEGIN RAISE 'tuple concurrently deleted' USING ERRCODE = 'XX000'; END $$",
    ],
)
async def test_statement_that_met_another_process_is_repeated(postgres: PostgresServer, sql: str) -> None:
    """Its error passes by itself, so a recovery waits."""
    options = ReplicationAdmin({"dsn": postgres.dsn()}).options

    with pytest.raises(SourceUnavailable):
        await run_sql(options, [sql])


async def test_statement_that_was_rejected_is_not_repeated(postgres: PostgresServer) -> None:
    """An operator has to act: the table does not exist."""
    admin = ReplicationAdmin({"dsn": postgres.dsn()})

    with pytest.raises(SourceError, match="42P01") as caught:
        await admin.renew(always=True)
    assert not isinstance(caught.value, SourceUnavailable)
