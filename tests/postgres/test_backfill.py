"""Backfill on real servers: existing rows are stored once, beside live capture or alone."""

import asyncio
import os
import pty
import subprocess
from typing import Any

import pytest

from backends.backend_settings import BackendSettings
from backends.contract import Backend, InvalidOptions, Rejected, SourceError
from backends.ingest.run_ingest import run_ingest
from backends.postgres.backfill.table_backfill import Range, TableBackfill
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.postgres_options import PostgresOptions
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.stored_ids import KnownRounds
from relay.commands.backfill_command import backfill
from relay.config.settings import Settings
from roundlog.log_settings import LogSettings
from tests.backends.harness import stored
from tests.backends.publish.test_corrections import corrections
from tests.cli.command import COMMAND
from tests.cli.command import run as run_command
from tests.clients.program import clean_environment
from tests.nats import NatsServer
from tests.postgres.ingesting import CONTEXT, WAIT_S, ingesting, notify_backend, notify_options, set_up_notify
from tests.postgres.pooler import PROGRAM, pooler_before
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service


@pytest.fixture
async def table(postgres: PostgresServer) -> PostgresServer:
    """A server with the table of rounds, set up for live capture."""
    await postgres.make_rounds_table()
    await set_up_notify(postgres)
    return postgres


def backfill_of(server: PostgresServer, nats: NatsServer, **more: Any) -> TableBackfill:
    return TableBackfill(NotifyOptions.read(notify_options(server)), CONTEXT, LogSettings(url=nats.url), **more)


async def ids_in(nats: NatsServer) -> list[int]:
    return [number for _, number in await stored(nats)]


async def test_backfill_beside_live_capture_leaves_no_gap_and_repeats_nothing(
    table: PostgresServer, nats: NatsServer
) -> None:
    """Older rounds are backfilled during live capture; each is in the log once."""
    await table.insert_rounds(1, 5000)
    live = notify_backend(table, start="now")
    async with ingesting(live, nats):
        await table.insert_rounds(5001, 5100)
        await until(lambda: live.status.newest >= 5000)
        fill = asyncio.create_task(run_ingest(backfill_of(table, nats), LogSettings(url=nats.url)))
        await table.insert_rounds(5101, 5200)
        await fill
        await until(lambda: live.status.safe == 5200)
        found = await ids_in(nats)

    assert sorted(found) == list(range(1, 5201))


async def test_range_on_demand_adds_only_what_the_log_lacks(table: PostgresServer, nats: NatsServer) -> None:
    """A backfill over rounds that were captured long ago repeats none of them."""
    await table.insert_rounds(1, 100)
    await run_ingest(backfill_of(table, nats, first=20, last=40), LogSettings(url=nats.url))
    assert sorted(await ids_in(nats)) == list(range(20, 41))

    backfill = backfill_of(table, nats, first=10, last=60)
    await run_ingest(backfill, LogSettings(url=nats.url))

    assert sorted(await ids_in(nats)) == list(range(10, 61))
    assert backfill.left_out == 21


async def test_stopped_backfill_continues_when_it_is_run_again(table: PostgresServer, nats: NatsServer) -> None:
    """It stores no state of its own."""
    await table.insert_rounds(1, 9000)
    reached = asyncio.Event()

    def stop_halfway(_span: Range, done: int) -> None:
        if done >= 2000:
            reached.set()

    async with ingesting(backfill_of(table, nats, on_progress=stop_halfway), nats):
        await reached.wait()
    await run_ingest(backfill_of(table, nats), LogSettings(url=nats.url))

    assert await ids_in(nats) == list(range(1, 9001))


async def test_progress_is_reported_from_the_first_id_to_the_last(table: PostgresServer, nats: NatsServer) -> None:
    """The reports contain the range, and reach its end."""
    await table.insert_rounds(101, 300)
    seen: list[tuple[Range, int]] = []

    backfill = backfill_of(table, nats, on_progress=lambda span, done: seen.append((span, done)))
    await run_ingest(backfill, LogSettings(url=nats.url))

    assert seen[-1] == (Range(101, 300, "public.rounds"), 300)


async def test_rate_is_kept_by_small_pages(table: PostgresServer, nats: NatsServer) -> None:
    """The limit also holds within a second: no burst followed by a long pause."""
    await table.insert_rounds(1, 100)
    backfill = backfill_of(table, nats, rate=200)
    started = asyncio.get_running_loop().time()
    async with backfill.open():
        sizes = [len(batch) async for batch in backfill.read()]

    assert sizes == [50, 50]
    assert asyncio.get_running_loop().time() - started >= 0.45


async def test_ids_that_are_unique_only_within_a_game_are_all_found(postgres: PostgresServer, nats: NatsServer) -> None:
    """Pages are ordered by id and game, so a page that ends between two games of one id loses none."""
    await postgres.execute(
        """CREATE TABLE rounds (round_id bigint, game_slug text, finished_at timestamptz, extras text,
             PRIMARY KEY (round_id, game_slug));
           INSERT INTO rounds SELECT n, g, now(), '{}' FROM generate_series(1, 30) n,
             unnest(ARRAY['crash', 'dice', 'double']) g"""
    )
    await run_ingest(backfill_of(postgres, nats, rate=80), LogSettings(url=nats.url))

    found = await stored(nats)
    assert len(found) == len(set(found)) == 90


async def test_tables_with_mappings_of_their_own_are_read_one_after_another(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """Unfinished rows, voided rows and rows of others are no rounds; ids of any type are read in the order given."""
    await postgres.execute(
        """CREATE DOMAIN number AS bigint;
           CREATE TABLE games (id int PRIMARY KEY, code text);
           INSERT INTO games VALUES (1, 'CRASH'), (2, 'WALL_STREET');
           CREATE TABLE results (no numeric(20,0) PRIMARY KEY, game_id int, done_at timestamptz, cents int, gone bool);
           INSERT INTO results VALUES (1, 1, now(), 250, false), (2, 1, NULL, NULL, false), (3, 2, now(), 5, false),
             (4, 1, now(), 100, true), (5, 9, now(), 100, false);
           CREATE TABLE outbox (id uuid PRIMARY KEY, seq number UNIQUE, type text, payload text);
           INSERT INTO outbox VALUES
             ('0b8d9df0-6c34-4a9b-8f1e-2f6f2a4c7d10', 1, 'Finished', '{"at": "2026-01-18T10:00:30Z", "r": {"n": 1}}'),
             ('1b8d9df0-6c34-4a9b-8f1e-2f6f2a4c7d10', 2, 'Paid', 'no json'),
             ('2b8d9df0-6c34-4a9b-8f1e-2f6f2a4c7d10', 3, 'Finished', 'no json')"""
    )
    results = {
        "table": "results", "round_id_column": "no", "finished_at_column": "done_at", "voided_when": "gone",
        "extras_columns": ["point=cents/100"], "game_slug_column": "game_id", "game_slug_table": "games",
        "game_slug_table_slug_column": "code", "game_slug_spelling": "dashed",
    }  # fmt: skip
    outbox = {
        "table": "outbox", "round_id_column": "id", "round_ids": "hashed", "order_column": "seq", "game_slug": "dice",
        "rows_when": "type = 'Finished'", "finished_at_column": "payload.at", "extras_column": "payload.r",
    }  # fmt: skip
    options = NotifyOptions.read({"dsn": postgres.dsn(), "tables": [results, outbox]})
    for _ in range(2):
        await run_ingest(TableBackfill(options, CONTEXT, LogSettings(url=nats.url)), LogSettings(url=nats.url))
    one = TableBackfill(options, CONTEXT, LogSettings(url=nats.url), table="public.outbox", first=1, last=3)
    async with one.open():
        items = [item async for batch in one.read() for item in batch]

    assert await stored(nats) == [
        ("rounds.crash", 1),
        ("rounds.wall-street", 3),
        ("rounds.dice", 7277068681513134711),
    ]
    assert [item.reason for item in items if isinstance(item, Rejected)] == [
        "payload 'no json' are not JSON: JSON is malformed: invalid character (byte 4)"
    ]
    with pytest.raises(
        InvalidOptions, match=r"ids of one table; name it with --table: public\.results, public\.outbox"
    ):
        TableBackfill(options, CONTEXT, LogSettings(url=nats.url), first=1)
    with pytest.raises(InvalidOptions, match=r"'x' is not a table of the options; there are: public\.results"):
        TableBackfill(options, CONTEXT, LogSettings(url=nats.url), table="x")


async def test_backfill_of_an_empty_table_ends_at_once(table: PostgresServer, nats: NatsServer) -> None:
    """It is not an error."""
    stats = await run_ingest(backfill_of(table, nats), LogSettings(url=nats.url))
    assert stats.read == 0


async def test_backfill_reconnects_after_a_restart_of_the_server(table: PostgresServer, nats: NatsServer) -> None:
    """A restart of the database loses no rounds."""
    await table.insert_rounds(1, 6000)
    reached = asyncio.Event()
    async with ingesting(backfill_of(table, nats, on_progress=lambda *_: reached.set()), nats) as work:
        await reached.wait()
        await table.restart("immediate")
        await work
    assert await ids_in(nats) == list(range(1, 6001))


async def test_missing_table_is_one_sentence(postgres: PostgresServer, nats: NatsServer) -> None:
    """A wrong name is an error before any round is sent."""
    with pytest.raises(SourceError, match="has no table"):
        await run_ingest(backfill_of(postgres, nats), LogSettings(url=nats.url))


@pytest.mark.skipif(PROGRAM is None, reason="no PgBouncer on this machine")
async def test_backfill_works_through_a_pooler_in_transaction_mode(
    table: PostgresServer, nats: NatsServer, unused_tcp_port: int
) -> None:
    """With `notify` off live capture works through a pooler, and so does the backfill."""
    await table.insert_rounds(1, 3000)
    async with pooler_before(table, unused_tcp_port) as dsn:
        options = NotifyOptions.read({"dsn": dsn, "notify": False})
        await run_ingest(TableBackfill(options, CONTEXT, LogSettings(url=nats.url)), LogSettings(url=nats.url))
    assert await ids_in(nats) == list(range(1, 3001))


async def test_command_publishes_as_the_settings_say_and_holds_no_progress_back(
    table: PostgresServer, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limits of the section `publish` apply; confirmations are not held back, since that would stop the bar."""
    seen: list[PublisherSettings] = []

    async def record(backend: Backend[Any], log: LogSettings, settings: PublisherSettings, **more: Any) -> Any:
        seen.append(settings)
        return await run_ingest(backend, log, settings, **more)

    monkeypatch.setattr("backends.ingest.backfill.run_ingest", record)
    settings = Settings(
        nats=LogSettings(url=nats.url),
        publish=PublisherSettings(max_in_flight=7, confirm_lag_s=600),
        backend=BackendSettings.model_validate({"name": "postgres-notify", "dsn": table.dsn()}),
    )
    await table.insert_rounds(1, 20)

    await backfill(settings, first=None, last=None, rate=0, interactive=False)

    assert (seen[0].max_in_flight, seen[0].confirm_lag_s) == (7, 0)
    assert await ids_in(nats) == list(range(1, 21))


async def test_terminal_shows_a_progress_bar_and_a_file_none(table: PostgresServer, nats: NatsServer) -> None:
    """On a terminal the bar reaches the last id; a log file gets only lines."""
    await table.insert_rounds(101, 400)
    settings = {
        "RELAY_BACKEND_NAME": "postgres-notify",
        "RELAY_BACKEND_DSN": table.dsn(),
        "RELAY_NATS_URL": nats.url,
    }

    shown = await asyncio.to_thread(said_on_a_terminal, [COMMAND, "backend", "backfill"], settings)
    plain = await asyncio.to_thread(run_command, "backend", "backfill", **settings)

    assert "300/300" in shown
    assert "300/300" not in plain.out + plain.err


def said_on_a_terminal(command: list[str], environment: dict[str, str]) -> str:
    """Run a command with a terminal as its stderr; return the output there."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command,
        env={**clean_environment(), "TERM": "xterm", "COLUMNS": "120", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 1 << 16):
                said += data
        except OSError:  # Linux raises this when the other end is closed
            pass
        os.close(ours)
        assert process.wait(WAIT_S) == 0, said
    return said.decode()


async def test_backfill_with_corrections_adds_what_changed_since(postgres: PostgresServer, nats: NatsServer) -> None:
    """Other content, a void, and a round that is unfinished again; what was deleted is not seen, and nothing twice."""
    await postgres.execute(
        "CREATE TABLE public.rounds (round_id bigint, game_slug text, finished_at timestamptz,"
        " extras jsonb, voided boolean NOT NULL DEFAULT false, PRIMARY KEY (game_slug, round_id))"
    )
    await postgres.execute(
        "INSERT INTO public.rounds SELECT n, 'crash', '2026-01-18T10:00:30Z', '{\"point\":\"2.50\"}', n = 9"
        " FROM generate_series(1, 9) AS n"
    )
    options = {"dsn": postgres.dsn(), "corrections": True, "voided_when": "voided"}
    settings = LogSettings(url=nats.url)

    async def run(**more: Any) -> TableBackfill:
        fill = TableBackfill(PostgresOptions.read(options | more), CONTEXT, settings)
        await run_ingest(fill, settings)
        return fill

    await run()
    assert await corrections(settings, "rounds.crash") == [f"crash:{number} 2.50" for number in range(1, 9)]
    for sql in (
        'UPDATE rounds SET extras = \'{"point":"7.00"}\' WHERE round_id = 2',
        "UPDATE rounds SET voided = true WHERE round_id = 3",
        "UPDATE rounds SET finished_at = NULL WHERE round_id = 4",
        "UPDATE rounds SET extras = extras WHERE round_id = 5",
        "DELETE FROM rounds WHERE round_id = 6",
    ):
        await postgres.execute(sql)

    # Without the option the log gets none of it.
    assert (await run(corrections=False)).left_out == 8
    assert (await run()).left_out == 5
    changed = ["crash:2:2 7.00", "crash:3:2 V", "crash:4:2 V"]
    assert await corrections(settings) == changed
    assert (await run()).left_out == 8

    await postgres.execute('UPDATE rounds SET extras = \'{"point":"2.50"}\', voided = false')
    await postgres.execute("UPDATE rounds SET finished_at = '2026-01-18T10:00:30Z'")
    assert (await run()).left_out == 4  # 1, 5, 7 and 8; 9 is a round for the first time
    assert (await corrections(settings))[3:] == ["crash:2:3 2.50", "crash:3:3 2.50", "crash:4:3 2.50"]
    assert (await corrections(settings, "rounds.crash"))[8:] == ["crash:9 2.50"]


async def test_change_that_live_capture_stores_meanwhile_stays_the_newest(
    table: PostgresServer, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the log is read for the first time, and between a page and the look at the log after it."""
    settings = LogSettings(url=nats.url, duplicate_window_s=0.1)  # corrections are read before each is numbered
    options = PostgresOptions.read({"dsn": table.dsn(), "corrections": True})
    points = iter(("3.00", "4.00"))
    refresh = KnownRounds.refresh

    async def run() -> None:
        await run_ingest(TableBackfill(options, CONTEXT, settings), settings)

    async def change_before(known: KnownRounds, *, above: int) -> None:
        if (point := next(points, None)) is not None:
            await table.execute(f'UPDATE rounds SET extras = \'{{"point":"{point}"}}\' WHERE round_id = 1')  # noqa: S608
            with monkeypatch.context() as live:
                live.setattr(KnownRounds, "refresh", refresh)
                await run()
        await refresh(known, above=above)

    await table.insert_rounds(1, 2)
    await run()
    monkeypatch.setattr(KnownRounds, "refresh", change_before)
    await run()

    assert await corrections(settings) == ["crash:1:2 3.00", "crash:1:3 4.00"]


async def test_rows_beside_the_finished_one_take_nothing_back(postgres: PostgresServer, nats: NatsServer) -> None:
    """In a table of events a round has several rows, and none alone says what the round is."""
    await postgres.execute(
        "CREATE TABLE public.events (id bigint PRIMARY KEY, kind text, round_id bigint, finished_at timestamptz,"
        " extras jsonb)"
    )
    await postgres.execute(
        "INSERT INTO public.events SELECT n, (ARRAY['finished', 'bet', 'settled'])[1 + n % 3], n / 3,"
        " '2026-01-18T10:00:30Z', '{\"point\":\"2.50\"}' FROM generate_series(3, 8) AS n"
    )
    options = {
        "dsn": postgres.dsn(),
        "table": "public.events",
        "order_column": "id",
        "game_slug": "crash",
        "finished_when": "kind in ('finished', 'voided')",
        "voided_when": "kind = 'voided'",
        "corrections": True,
    }
    settings = LogSettings(url=nats.url)
    for _ in range(2):
        await run_ingest(TableBackfill(PostgresOptions.read(options), CONTEXT, settings), settings)
    assert await corrections(settings, "rounds.*") == ["crash:1 2.50", "crash:2 2.50"]

    await postgres.execute("INSERT INTO public.events VALUES (9, 'voided', 1, now(), '{}')")
    await run_ingest(TableBackfill(PostgresOptions.read(options), CONTEXT, settings), settings)
    assert await corrections(settings) == []
