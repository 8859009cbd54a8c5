"""`stream-relay backend setup|check|status|teardown` on real servers: what each creates, finds, prints and removes."""

import asyncio
import json
import re

import pytest

from backends.contract import InvalidOptions, SourceError
from backends.postgres.source_admin import Verdict, admin_of, run_sql
from tests.postgres.ingesting import notify_backend, reading
from tests.postgres.reading import make_backend, wait_for_sql
from tests.postgres.reading import reading as replication_reading
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service
BACKENDS = ["postgres-notify", "postgres-replication"]
OUR_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'stream-relay%'"


def options_of(server: PostgresServer, **more: object) -> dict[str, object]:
    return {"dsn": server.dsn(), **more}


async def failures(name: str, options: dict[str, object]) -> list[str]:
    return [finding.text for finding in await admin_of(name, options).check() if finding.verdict is Verdict.FAILURE]


@pytest.mark.parametrize("name", BACKENDS)
async def test_setup_makes_every_check_pass_and_teardown_removes_all(any_postgres: PostgresServer, name: str) -> None:
    """Setup creates all that is needed, and teardown removes all of it; on every version."""
    server = any_postgres
    await server.make_rounds_table()
    admin = admin_of(name, options_of(server))
    assert any("stream-relay backend setup" in text for text in await failures(name, options_of(server)))

    await admin.set_up(None)
    assert await failures(name, options_of(server)) == []

    await run_sql(admin.options, admin.teardown_sql())
    left = await server.fetch(
        """SELECT 1 FROM pg_namespace WHERE nspname = 'stream_relay' UNION ALL SELECT 1 FROM pg_publication
           UNION ALL SELECT 1 FROM pg_replication_slots UNION ALL SELECT 1 FROM pg_trigger WHERE NOT tgisinternal"""
    )
    assert left == []


@pytest.mark.parametrize("name", BACKENDS)
async def test_set_ups_at_the_same_time_all_succeed(any_postgres: PostgresServer, name: str) -> None:
    """Each replica of an installation may run it before it starts."""
    server = any_postgres
    await server.make_rounds_table()
    await asyncio.gather(*(admin_of(name, options_of(server)).set_up(None) for _ in range(8)))

    assert await failures(name, options_of(server)) == []


@pytest.mark.parametrize("name", BACKENDS)
async def test_missing_rights_are_named_and_setup_grants_them(postgres: PostgresServer, name: str) -> None:
    """The grants are the least that ingest needs, and do not include writing rounds."""
    await postgres.make_rounds_table()
    await postgres.execute("CREATE ROLE ingest LOGIN")
    options = options_of(postgres, dsn=postgres.dsn(user="ingest"))
    admin = admin_of(name, options)
    assert await failures(name, options) != []

    await admin.acting_as(postgres.dsn()).set_up("ingest")

    assert await failures(name, options) == []
    may = await postgres.fetch("SELECT has_table_privilege('ingest', 'rounds', 'INSERT')")
    assert may[0][0] is False


async def test_status_of_notify_shows_the_reader_and_its_lag(postgres: PostgresServer) -> None:
    """An operator sees whether a process reads, and its backlog."""
    await postgres.make_rounds_table()
    admin = admin_of("postgres-notify", options_of(postgres))
    await admin.set_up(None)
    assert await admin.status() == {"state": "never run"}
    async with reading(notify_backend(postgres)) as found:
        await postgres.insert_rounds(1, 3)
        await found.reach(3)
        running = await admin.status()
    await wait_for_sql(postgres, OUR_SESSIONS, lambda count: count == 0)
    await postgres.insert_rounds(4, 8)
    stopped = await admin.status()

    assert running["state"] == "reading"
    assert running["active"].startswith("process ")
    assert stopped["state"] == "no reader"
    assert stopped["lag"] == "5 rows"
    assert stopped["last confirmed"].startswith("id 3, ")


async def test_status_of_replication_shows_how_much_wal_the_server_keeps(postgres: PostgresServer) -> None:
    """The number that fills the server's disk is visible before the disk is full."""
    await postgres.make_rounds_table()
    admin = admin_of("postgres-replication", options_of(postgres))
    assert (await admin.status())["state"] == "missing"
    await admin.set_up(None)
    await postgres.insert_rounds(1, 100)

    status = await admin.status()

    assert status["state"] == "no reader"
    assert status["wal_status"] == "reserved"
    assert int(status["lag"].partition(" ")[0].replace(",", "")) > 1000
    assert status["lag"].partition(" bytes, ")[2].startswith("unread for ")


async def test_status_while_reading_shows_the_process_and_the_lag_in_seconds(any_postgres: PostgresServer) -> None:
    """The lag in seconds is known only while a process reads; otherwise it is unknown, and not 0."""
    server = any_postgres
    await server.make_rounds_table()
    admin = admin_of("postgres-replication", options_of(server))
    async with replication_reading(make_backend(server)) as reader:
        await server.insert_rounds(1, 3)
        await reader.seen(3)
        running = await admin.status()
    await server.slots_released()
    stopped = await admin.status()

    assert (running["state"], running["active"].startswith("process ")) == ("streaming", True)
    assert re.fullmatch(r"[\d,]+ bytes, (\d+\.\d{3} s|seconds unknown)", running["lag"])
    assert stopped["state"] == "no reader"
    assert re.search(r"unread for \d+\.\d s$|seconds unknown without a reader$", stopped["lag"])


async def test_publication_made_after_the_slot_is_found_refused_and_renewed(any_postgres: PostgresServer) -> None:
    """A slot that is older than its publication passes every check of the catalogue, and fails each stream."""
    server = any_postgres
    await server.make_rounds_table()
    options = options_of(server)
    admin = admin_of("postgres-replication", options)
    await admin.set_up(None)
    await server.insert_rounds(1, 3)
    await server.execute("DROP PUBLICATION stream_relay")
    await server.insert_rounds(4, 5)

    assert any("setup --renew-slot" in text for text in await failures("postgres-replication", options))
    assert (await admin.status())["state"] == "publication_missing"
    with pytest.raises(SourceError, match="--renew-slot"):
        await admin.set_up(None)
    assert await server.fetch("SELECT 1 FROM pg_publication") == []

    await server.execute(admin.setup_sql(None)[0])  # by hand, in the wrong order
    assert any("was created after the offset" in text for text in await failures("postgres-replication", options))
    status = await admin.status()
    assert (status["state"], "--renew-slot" in status["run"]) == ("publication_late", True)
    with pytest.raises(SourceError, match="--renew-slot"):
        await admin.set_up(None)

    assert "--from-id" in (await admin.set_up(None, renew=True) or "")
    assert await failures("postgres-replication", options) == []
    await server.insert_rounds(6, 7)
    async with replication_reading(make_backend(server, create=False)) as reader:
        await reader.seen(2)
    assert reader.ids == [6, 7]


async def test_slot_with_much_to_read_and_an_altered_publication_has_no_fault(any_postgres: PostgresServer) -> None:
    """A publication that is older than the slot may be altered, and other tables may be busy."""
    await any_postgres.make_rounds_table()
    admin = admin_of("postgres-replication", options_of(any_postgres))
    await admin.set_up(None)
    await any_postgres.execute("CREATE TABLE other AS SELECT 1 AS n; INSERT INTO other VALUES (2)")
    await any_postgres.execute("ALTER PUBLICATION stream_relay SET (publish = 'insert')")
    await any_postgres.insert_rounds(1, 1000)

    assert await failures("postgres-replication", options_of(any_postgres)) == []


async def test_second_setup_changes_nothing_and_does_not_recreate_the_slot(postgres: PostgresServer) -> None:
    """The slot keeps its offset: dropping it would lose the rounds that it holds."""
    await postgres.make_rounds_table()
    admin = admin_of("postgres-replication", options_of(postgres))
    await admin.set_up(None)
    offset = await postgres.fetch("SELECT confirmed_flush_lsn::text FROM pg_replication_slots")
    await postgres.insert_rounds(1, 3)

    assert await admin.set_up(None) is None
    assert await postgres.fetch("SELECT confirmed_flush_lsn::text FROM pg_replication_slots") == offset


async def test_notify_has_no_slot_to_renew(postgres: PostgresServer) -> None:
    """The flag of the other backend is refused, not ignored."""
    with pytest.raises(InvalidOptions, match="postgres-notify has no slot"):
        await admin_of("postgres-notify", options_of(postgres)).set_up(None, renew=True)


async def test_server_that_cannot_replicate_says_which_setting_to_change(postgres: PostgresServer) -> None:
    """Errors about wal_level, slots and senders contain the command."""
    await postgres.make_rounds_table()
    await postgres.restart(wal_level="replica", max_replication_slots="0", max_wal_senders="0")

    said = "\n".join(await failures("postgres-replication", options_of(postgres)))

    assert "ALTER SYSTEM SET wal_level = 'logical'" in said
    assert "ALTER SYSTEM SET max_replication_slots" in said
    assert "ALTER SYSTEM SET max_wal_senders" in said


async def test_sequence_that_caches_ids_is_a_warning_with_its_remedy(postgres: PostgresServer) -> None:
    """Cached ids arrive late; the check says so, with the command."""
    await postgres.execute(
        """CREATE TABLE rounds (round_id bigint GENERATED ALWAYS AS IDENTITY (CACHE 20) PRIMARY KEY,
           game_slug text, finished_at timestamptz, extras jsonb)"""
    )
    admin = admin_of("postgres-notify", options_of(postgres))
    await admin.set_up(None)

    warnings = [finding.text for finding in await admin.check() if finding.verdict is Verdict.WARNING]

    assert any("caches 20 ids" in text and "SET CACHE 1" in text for text in warnings)


async def test_setup_without_rights_names_the_statement(postgres: PostgresServer) -> None:
    """The error contains the statement that the role may not run."""
    await postgres.make_rounds_table()
    await postgres.execute("CREATE ROLE nobody_special LOGIN")
    admin = admin_of("postgres-notify", options_of(postgres, dsn=postgres.dsn(user="nobody_special")))

    with pytest.raises(SourceError, match="CREATE SCHEMA IF NOT EXISTS stream_relay"):
        await admin.set_up(None)


def test_backend_without_set_up_names_those_with_one() -> None:
    """A backend without set-up gives an error, not a crash."""
    with pytest.raises(InvalidOptions, match="postgres-notify, postgres-replication"):
        admin_of("file", {})


async def test_setup_makes_no_trigger_that_is_not_needed(postgres: PostgresServer) -> None:
    """Without notifications none, so that two-phase commit works; with the feed one for them, on the feed alone."""
    await postgres.make_rounds_table()
    await postgres.execute("ALTER TABLE rounds ALTER finished_at DROP NOT NULL")
    woken = "SELECT tgrelid::regclass::text, tgname FROM pg_trigger WHERE tgname LIKE 'stream_relay_wake%'"
    all_of_ours = f"SELECT 1 FROM pg_namespace WHERE nspname = 'stream_relay' UNION ALL SELECT 1 FROM ({woken}) AS w"  # noqa: S608 - our own names
    expected: dict[str, list[tuple[str, str]]] = {
        '{"notify": false}': [],
        '{"notify": false, "feed": true}': [],
        '{"feed": true}': [("stream_relay.feed", "stream_relay_wake")],
        "{}": [("rounds", "stream_relay_wake"), ("rounds", "stream_relay_wake_update")],
    }
    for given, triggers in expected.items():
        admin = admin_of("postgres-notify", options_of(postgres, **json.loads(given)))
        await admin.set_up(None)

        assert sorted(tuple(row) for row in await postgres.fetch(woken)) == triggers, given
        found = {finding.verdict: finding.text for finding in await admin.check()}
        assert Verdict.FAILURE not in found, given
        assert "trigger" not in found.get(Verdict.WARNING, ""), given
        await run_sql(admin.options, admin.teardown_sql())
        assert await postgres.fetch(all_of_ours) == [], given
