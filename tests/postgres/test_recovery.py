"""Recovery of a lost slot: a new slot, and the missing rounds from the table, each once."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.backend_settings import BackendSettings
from backends.contract import SourceError
from backends.ingest.process import watched_ingest
from backends.postgres.backfill.table_backfill import TableBackfill
from backends.postgres.replication.slot import SlotLost
from backends.registry import make_backend
from relay.commands.backfill_command import backfill
from relay.config.settings import Settings
from roundlog.log_settings import LogSettings
from tests.backends.harness import stored
from tests.nats import NatsServer, nats_client
from tests.postgres.ingesting import CONTEXT
from tests.postgres.reading import CONFIRMED, HEAD, wait_for_sql
from tests.postgres.test_notify_into_log import log_holds, slot_is_read
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service


def settings_for(postgres: PostgresServer, nats: NatsServer, on_lost: str = "backfill", **log: Any) -> Settings:
    backend = {"name": "postgres-replication", "dsn": postgres.dsn(), "create": True, "on_lost": on_lost}
    return Settings(nats=LogSettings(url=nats.url, **log), backend=BackendSettings.model_validate(backend))


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


DROP_SLOT = "SELECT pg_drop_replication_slot('stream_relay')"
CREATE_SLOT = "SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')"
LOSSES = {
    "missing": ([DROP_SLOT], []),
    "moved": ([], [DROP_SLOT, CREATE_SLOT]),
    "advanced": ([], ["SELECT pg_replication_slot_advance('stream_relay', pg_current_wal_lsn())"]),
    "publication_missing": (["DROP PUBLICATION stream_relay"], []),
    "publication_late": (["DROP PUBLICATION stream_relay"], ["CREATE PUBLICATION stream_relay FOR TABLE rounds"]),
    "table_not_published": (["ALTER PUBLICATION stream_relay DROP TABLE rounds"], []),
    "publication_changed": (
        ["ALTER PUBLICATION stream_relay DROP TABLE rounds"],
        ["ALTER PUBLICATION stream_relay ADD TABLE rounds"],
    ),
    "everything recreated": ([DROP_SLOT, "DROP PUBLICATION stream_relay"], []),
}


async def lose(postgres: PostgresServer, loss: str) -> None:
    """Make the slot lose rounds 101 to 150, while no process reads it."""
    before, after = LOSSES[loss]
    for sql in before:
        await postgres.execute(sql)
    await postgres.insert_rounds(101, 150)
    for sql in after:
        await postgres.execute(sql)


@pytest.mark.parametrize("loss", LOSSES)
async def test_lost_rounds_are_backfilled_and_the_stream_continues(
    postgres: PostgresServer, nats: NatsServer, loss: str
) -> None:
    """With ``on_lost = "backfill"``, the loss of a slot loses no round, whichever process notices it."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats)
    await run_with_rows(settings, postgres, nats, 1, 100)
    await lose(postgres, loss)

    await run_until_held(settings, postgres, nats, 150)
    await run_with_rows(settings, postgres, nats, 151, 200)

    assert [number for _, number in await stored(nats)] == list(range(1, 201))


async def test_loss_stops_ingest_with_the_command_by_default(postgres: PostgresServer, nats: NatsServer) -> None:
    """By default an operator decides about the backfill of a large table."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats, on_lost="stop")
    await run_with_rows(settings, postgres, nats, 1, 10)
    await postgres.execute("SELECT pg_drop_replication_slot('stream_relay')")

    with pytest.raises(SlotLost, match="stream-relay backend backfill"):
        await run_until_held(settings, postgres, nats, 11)


async def run_with_rows(
    settings: Settings, postgres: PostgresServer, nats: NatsServer, first: int, last: int, *, confirmed: bool = False
) -> None:
    """Run ingest, insert rows, and stop it when the last of them is in the log, or also confirmed to the server."""
    backend = make_backend(settings.backend.name, settings.backend.options, CONTEXT)
    async with nats_client(LogSettings(url=nats.url)) as nc:
        live = await nc.subscribe("live.rounds.*")
        async with watched_ingest(settings, backend, CONTEXT):
            await slot_is_read(postgres)
            await postgres.insert_rounds(first, last)
            while msgspec.json.decode((await live.next_msg(timeout=30)).data)["round_id"] != last:
                pass
            if confirmed:
                (row,) = await postgres.fetch(HEAD)
                await wait_for_sql(postgres, CONFIRMED, lambda lsn: lsn >= row[0])
    await postgres.slots_released()


async def test_two_processes_that_find_the_slot_lost_recreate_it_once(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """Both recover, one reads and one is standby, and neither drops the slot of the other."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats)
    await run_with_rows(settings, postgres, nats, 1, 100)
    await postgres.execute("SELECT pg_drop_replication_slot('stream_relay')")
    await postgres.insert_rounds(101, 200)

    await asyncio.gather(*(run_until_held(settings, postgres, nats, 200) for _ in range(2)))

    assert sorted(number for _, number in await stored(nats)) == list(range(1, 201))


@pytest.mark.parametrize("loss", ["moved", "advanced", "publication_changed", "everything recreated"])
async def test_loss_between_two_processes_stops_every_start_until_it_is_accepted(
    postgres: PostgresServer, nats: NatsServer, loss: str
) -> None:
    """A restart by a supervisor must not hide the loss; with `accept_lsn` ingest continues without the rounds."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats, on_lost="stop")
    await run_with_rows(settings, postgres, nats, 1, 100)
    await lose(postgres, loss)

    for _ in range(2):
        with pytest.raises(SlotLost, match=r"accept_lsn = [0-9A-F]+/[0-9A-F]+") as lost:
            await run_until_held(settings, postgres, nats, 101)
    assert lost.value.state in ("moved", "publication_changed")

    lsn = str(lost.value).rpartition("accept_lsn = ")[2]
    options = {**settings.backend.model_dump(), "accept_lsn": lsn}
    accepted = settings.model_copy(update={"backend": BackendSettings.model_validate(options)})
    await run_with_rows(accepted, postgres, nats, 151, 200)
    await run_with_rows(settings, postgres, nats, 201, 210)
    assert [number for _, number in await stored(nats)] == [*range(1, 101), *range(151, 211)]


async def test_loss_is_accepted_by_the_backfill_in_its_error(postgres: PostgresServer, nats: NatsServer) -> None:
    """After the backfill ingest continues; a backfill of a part does not count."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats, on_lost="stop")
    await run_with_rows(settings, postgres, nats, 1, 100)
    await lose(postgres, "moved")
    with pytest.raises(SlotLost, match=r"backend backfill --from-id"):
        await run_until_held(settings, postgres, nats, 101)

    await backfill(settings, first=100, last=120, rate=0, interactive=False)
    with pytest.raises(SlotLost, match=r"\(moved\)"):
        await run_until_held(settings, postgres, nats, 121)
    await backfill(settings, first=100, last=None, rate=0, interactive=False)
    await run_with_rows(settings, postgres, nats, 151, 160)

    assert [number for _, number in await stored(nats)] == list(range(1, 161))


async def test_truncated_log_is_noticed_and_backfilled(
    postgres: PostgresServer, nats: NatsServer, tmp_path: Path
) -> None:
    """A log restored from a copy lacks rounds that were reported to the slot as stored."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats)
    await run_with_rows(settings, postgres, nats, 1, 100)
    await nats.stop()
    shutil.copytree(nats.store / "jetstream", tmp_path / "copy")
    await nats.start()
    await run_with_rows(settings, postgres, nats, 101, 150)
    await nats.stop()
    shutil.rmtree(nats.store / "jetstream")
    shutil.copytree(tmp_path / "copy", nats.store / "jetstream")
    await nats.start()

    await run_until_held(settings, postgres, nats, 150)

    assert [number for _, number in await stored(nats)] == list(range(1, 151))


@pytest.mark.parametrize("loss", ["missing", "publication_late"])
async def test_process_killed_between_the_new_slot_and_the_backfill_is_recovered_by_the_next(
    postgres: PostgresServer, nats: NatsServer, monkeypatch: pytest.MonkeyPatch, loss: str
) -> None:
    """The new slot has no fault, and only the log shows that rounds before it are missing."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats)
    await run_with_rows(settings, postgres, nats, 1, 100)
    await lose(postgres, loss)

    def killed(_: object) -> None:
        raise KilledHere

    with monkeypatch.context() as patch:
        patch.setattr(TableBackfill, "read", killed)
        with pytest.raises(KilledHere):
            await run_until_held(settings, postgres, nats, 150)
    assert (await postgres.fetch("SELECT active FROM pg_replication_slots"))[0][0] is False
    assert len(await stored(nats)) == 100

    await run_until_held(settings, postgres, nats, 150)
    await run_with_rows(settings, postgres, nats, 151, 200)
    assert [number for _, number in await stored(nats)] == list(range(1, 201))


class KilledHere(Exception):
    """Stands for a kill of the process."""


async def test_recovery_sends_no_round_that_has_expired_from_the_log(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """Live clients get the five lost rounds, and not the hundred that have expired."""
    await postgres.make_rounds_table()
    settings = settings_for(postgres, nats, max_age_s=600, duplicate_window_s=0.1)
    await run_with_rows(settings, postgres, nats, 1, 100, confirmed=True)
    await postgres.execute("UPDATE rounds SET finished_at = now() - interval '1 hour'")
    async with nats_client(LogSettings(url=nats.url)) as nc:
        await nc.jetstream().purge_stream("ROUNDS")  # as after an hour
    await run_with_rows(settings, postgres, nats, 101, 110)
    await postgres.execute(DROP_SLOT)
    await postgres.insert_rounds(111, 115)

    async with nats_client(LogSettings(url=nats.url)) as nc:
        live = await nc.subscribe("live.rounds.*")
        await nc.flush()
        await run_with_rows(settings, postgres, nats, 116, 120)
        seen = [msgspec.json.decode((await live.next_msg(timeout=30)).data)["round_id"] for _ in range(10)]
    assert seen == list(range(111, 121))


OBSTACLES = {
    # what our role lacks: the loss, what the owner did, what the error says, and what the owner then runs
    "select": ("advanced", "REVOKE SELECT ON rounds FROM ingest", "may not read", "GRANT SELECT ON rounds TO ingest"),
    "rows": (
        "moved",
        "ALTER TABLE rounds ENABLE ROW LEVEL SECURITY",
        "row level security of .* may hide rows",
        "CREATE POLICY all_rows ON rounds FOR SELECT TO ingest USING (true)",
    ),
    "slot": (
        "missing",
        "ALTER TABLE rounds ALTER round_id TYPE numeric",
        "round_id of .* is not an integer",
        "ALTER TABLE rounds ALTER round_id TYPE bigint",
    ),
    "publication": (
        "table_not_published",
        "SELECT 1",
        r"cannot be recreated: our role \"ingest\" lacks rights.* ALTER TABLE public.rounds OWNER TO",
        "GRANT ALL ON DATABASE postgres TO ingest; ALTER TABLE rounds OWNER TO ingest; DROP PUBLICATION stream_relay",
    ),
}
SLOTS = "SELECT slot_name, confirmed_flush_lsn FROM pg_replication_slots"


@pytest.mark.parametrize("obstacle", OBSTACLES)
async def test_recovery_that_cannot_do_all_of_it_changes_nothing(
    postgres: PostgresServer, nats: NatsServer, obstacle: str
) -> None:
    """It stops with what is missing, at every start, and a moved slot does not count as ours. Once mended, it works."""
    loss, prevent, reason, mend = OBSTACLES[obstacle]
    await postgres.make_rounds_table()
    await postgres.execute("CREATE ROLE ingest LOGIN REPLICATION; GRANT SELECT ON rounds TO ingest")
    await run_with_rows(settings_for(postgres, nats), postgres, nats, 1, 100)
    settings = settings_for(postgres, nats)
    dsn = postgres.dsn(user="ingest")
    backend = {"name": "postgres-replication", "dsn": dsn, "on_lost": "backfill"}
    settings = settings.model_copy(update={"backend": BackendSettings.model_validate(backend)})
    await lose(postgres, loss)
    await postgres.execute(prevent)
    before = await postgres.fetch(SLOTS)

    for _ in range(2):
        with pytest.raises(SourceError, match=reason):
            await run_until_held(settings, postgres, nats, 150)
    assert await postgres.fetch(SLOTS) == before

    await postgres.execute(mend)
    await run_until_held(settings, postgres, nats, 150)
    assert [number for _, number in await stored(nats)] == list(range(1, 151))
