"""A lost slot made good: a new one, and what it does not hold from the table, each round once."""

import asyncio

import pytest

from backends.log_settings import LogSettings
from backends.postgres.slot import SlotLost
from backends.registry import make_backend
from relay.ingest import watched_ingest
from relay.sections import BackendSettings
from relay.settings import Settings
from tests.backends.harness import stored
from tests.nats import NatsServer
from tests.postgres.ingesting import CONTEXT
from tests.postgres.test_notify_into_log import log_holds, slot_is_read
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service


def settings_for(postgres: PostgresServer, nats: NatsServer, on_lost: str = "backfill") -> Settings:
    backend = {"name": "postgres-replication", "dsn": postgres.dsn(), "create": True, "on_lost": on_lost}
    return Settings(nats=LogSettings(url=nats.url), backend=BackendSettings.model_validate(backend))


async def run_until_held(settings: Settings, postgres: PostgresServer, nats: NatsServer, count: int) -> None:
    backend = make_backend(settings.backend.name, settings.backend.options, CONTEXT)
    async with watched_ingest(settings, backend, CONTEXT) as work:
        held = asyncio.create_task(_live_and_held(postgres, nats, count))
        await asyncio.wait([held, work], return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            held.cancel()
            await asyncio.wait([held])
        else:
            await held


async def _live_and_held(postgres: PostgresServer, nats: NatsServer, count: int) -> None:
    await slot_is_read(postgres)
    await log_holds(nats, count)


@pytest.mark.parametrize("loss", ["slot dropped", "publication dropped"])
async def test_what_was_lost_comes_from_the_table_and_the_stream_goes_on(
    postgres: PostgresServer, nats: NatsServer, loss: str
) -> None:
    """Where it is allowed, a loss of the slot costs time and no round."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats)
    await run_with_rows(settings, postgres, nats, 1, 100)
    if loss == "slot dropped":
        await postgres.execute("SELECT pg_drop_replication_slot('stream_relay')")
    else:
        await postgres.execute("DROP PUBLICATION stream_relay")
    await postgres.insert_rounds(101, 150)

    await run_until_held(settings, postgres, nats, 150)
    await run_with_rows(settings, postgres, nats, 151, 200)

    assert [number for _, number in await stored(nats)] == list(range(1, 201))


async def test_without_leave_to_recover_the_loss_stops_ingest_with_the_command(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """The default is to stop: an operator decides what fills a table of millions in."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats, on_lost="stop")
    await run_with_rows(settings, postgres, nats, 1, 10)
    await postgres.execute("SELECT pg_drop_replication_slot('stream_relay')")

    with pytest.raises(SlotLost, match="stream-relay backend backfill"):
        await run_until_held(settings, postgres, nats, 11)


async def run_with_rows(settings: Settings, postgres: PostgresServer, nats: NatsServer, first: int, last: int) -> None:
    """Let ingest capture some rows live, and stop it."""
    backend = make_backend(settings.backend.name, settings.backend.options, CONTEXT)
    async with watched_ingest(settings, backend, CONTEXT):
        await slot_is_read(postgres)
        await postgres.insert_rounds(first, last)
        await log_holds(nats, last)


async def test_two_processes_that_find_the_slot_lost_make_it_anew_once(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """Both recover, one reads and one stands by, and neither takes the other's slot away."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats)
    await run_with_rows(settings, postgres, nats, 1, 100)
    await postgres.execute("SELECT pg_drop_replication_slot('stream_relay')")
    await postgres.insert_rounds(101, 200)

    await asyncio.gather(*(run_until_held(settings, postgres, nats, 200) for _ in range(2)))

    assert sorted(number for _, number in await stored(nats)) == list(range(1, 201))
