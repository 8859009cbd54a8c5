"""`stream-relay backend …` as a command: its output, and its exit code."""

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from relay.demo.postgres_programs import command_as, find_programs, reachable_programs, server_account
from tests.backends.publish.test_rejects import kept
from tests.edits import edit
from tests.nats import NatsServer
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service

_PROGRAM = Path(sys.executable).with_name("stream-relay")


async def run(*arguments: str, **environment: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        _PROGRAM, *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **environment},
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.mark.parametrize("backend", ["postgres-notify", "postgres-replication"])
async def test_commands_from_setup_to_teardown_print_results_and_exit_codes(
    postgres: PostgresServer, nats: NatsServer, backend: str
) -> None:
    """check, setup, check, status, backfill, teardown: as in the documentation."""
    await postgres.make_rounds_table()
    await postgres.insert_rounds(1, 20)
    settings = {
        "RELAY_BACKEND_NAME": backend,
        "RELAY_BACKEND_DSN": postgres.dsn().replace("postgres@", "postgres:secret@"),
        "RELAY_NATS_URL": nats.url,
    }

    code, said = await run("backend", "check", **settings)
    assert code == 1
    assert "stream-relay backend setup" in said
    code, said = await run("backend", "status", **settings)
    state = "not set up" if backend == "postgres-notify" else "missing"
    assert (code, said.splitlines()[0].split(maxsplit=1)) == (0, ["state:", state])
    assert f"stream-relay backend setup --backend {backend}" in said.splitlines()[1]
    assert "newest in the log:  unknown: stream not found" in said
    code, said = await run("backend", "setup", **settings)
    assert (code, said.strip().endswith("public.rounds is set up")) == (0, True)
    code, _ = await run("backend", "check", **settings)
    assert code == 0
    code, said = await run("backend", "status", **settings)
    assert (code, said.startswith("state:")) == (0, True)
    code, said = await run("backend", "backfill", "--to-id", "10", RELAY_LOG_FORMAT="json", **settings)
    assert code == 0
    assert '"stored": 10' in said
    code, said = await run("backend", "status", **settings)
    assert re.search(r"^newest in the log:  crash 10, \d+\.\d s ago$", said, re.MULTILINE)
    assert re.search(r"^streams: +as needed$", said, re.MULTILINE)
    await edit(nats, {"republish": None, "max_age": 3600 * 10**9})
    code, said = await run("backend", "status", **settings)
    assert re.search(
        r"^streams: .*republish is None, wanted .*; stream 'ROUNDS': max_age_s is 3600.0", said, re.MULTILINE
    )
    code, said = await run("backend", "check", **settings)
    assert code == 1
    assert re.search(r"^failure +stream 'ROUNDS' .*republish is None.*nats stream edit ROUNDS", said, re.MULTILINE)
    assert re.search(r"^warning +stream 'ROUNDS': max_age_s is 3600.0, wanted 2592000.0", said, re.MULTILINE)
    code, _ = await run("backend", "teardown", "--yes", **settings)
    assert code == 0
    code, said = await run("backend", "check", **settings)
    assert code == 1
    assert "secret" not in said


async def test_rejects_of_a_backfill_are_stored_like_those_of_live_capture(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """An old row that cannot become a round is stored in the same stream."""
    await postgres.make_rounds_table()
    await postgres.execute("INSERT INTO rounds VALUES (1, 'nope', NULL, now(), '{}'), (2, 'crash', NULL, now(), '{}')")
    settings = {
        "RELAY_BACKEND_NAME": "postgres-replication",
        "RELAY_BACKEND_DSN": postgres.dsn(),
        "RELAY_NATS_URL": nats.url,
        "RELAY_LOG_FORMAT": "json",
    }

    code, said = await run("backend", "backfill", **settings)

    assert (code, '"rejected": 1' in said) == (0, True)
    assert [item["key"] for item in await kept(nats, "rejects.postgres-replication")] == ["public.rounds:nope:1"]


@pytest.mark.parametrize(
    ("backend", "parts"),
    [
        ("foo", ["unknown backend 'foo'", "known backends: ", "postgres-notify"]),
        ("postgres-notify", ["'dsn'", "RELAY_BACKEND_DSN", "-o dsn="]),
        ("postgres-replication", ["'dsn'", "RELAY_BACKEND_DSN", "-o dsn="]),
    ],
)
async def test_command_for_a_backend_without_an_admin(backend: str, parts: list[str]) -> None:
    """An unknown backend lists the known ones; one without a DSN says how to set it."""
    code, said = await run("backend", "check", "--backend", backend)

    assert code == 1
    assert len(said.splitlines()) == 1
    assert all(part in said for part in parts)


async def test_status_is_shown_while_the_log_is_unreachable(postgres: PostgresServer, unused_tcp_port: int) -> None:
    """An unreachable log does not hide the state of the source."""
    await postgres.make_rounds_table()
    code, said = await run(
        "backend", "status", "--backend", "postgres-replication", "-o", f"dsn={postgres.dsn()}",
        RELAY_NATS_URL=f"nats://127.0.0.1:{unused_tcp_port}",
    )  # fmt: skip
    assert (code, "state:              missing" in said) == (0, True)
    assert "newest in the log:  unknown: NATS" in said


async def test_ingest_without_a_dsn_says_how_to_set_it() -> None:
    """A first start often lacks it."""
    code, said = await run("ingest", "--backend", "postgres-replication")
    assert (code, len(said.splitlines())) == (1, 1)
    assert "RELAY_BACKEND_DSN" in said


async def test_ingest_that_finds_the_slot_lost_ends_with_the_state_in_its_last_event(
    postgres: PostgresServer, nats: NatsServer
) -> None:
    """Its port closes with it, so monitoring relies on the exit code and the log."""
    await postgres.make_rounds_table()
    settings = {
        "RELAY_BACKEND_NAME": "postgres-replication",
        "RELAY_BACKEND_DSN": postgres.dsn(),
        "RELAY_NATS_URL": nats.url,
        "RELAY_LOG_FORMAT": "json",
    }
    await run("backend", "setup", **settings)
    await postgres.execute("SELECT pg_drop_replication_slot('stream_relay')")

    code, said = await run("ingest", **settings)

    *events, sentence = said.splitlines()
    last = json.loads(events[-1])
    assert (code, last["event"], last["state"]) == (1, "ingest_failed", "missing")
    assert "stream-relay backend backfill --from-id" in sentence


async def test_printed_sql_runs_in_psql(postgres: PostgresServer) -> None:
    """A DBA runs it, and the check passes."""
    await postgres.make_rounds_table()
    await postgres.execute("CREATE ROLE ingest LOGIN")
    code, sql = await run(
        "backend",
        "setup",
        "--backend",
        "postgres-notify",
        "-o",
        f"dsn={postgres.dsn()}",
        "--print",
        "--grant-to",
        "ingest",
    )
    assert code == 0
    await postgres.execute(sql)
    code, _ = await run("backend", "check", "--backend", "postgres-notify", "-o", f"dsn={postgres.dsn(user='ingest')}")
    assert code == 0


async def test_printed_sql_fits_the_table(postgres: PostgresServer) -> None:
    """Only the table shows that rounds finish by UPDATE; without the server, the options say what is printed."""
    await postgres.make_rounds_table()
    options = ("--backend", "postgres-replication", "-o", f"dsn={postgres.dsn()}")
    code, sql = await run("backend", "setup", *options, "--print")
    assert code == 0
    for one in sql.split(";\n\n"):
        await postgres.execute(one)
    checked, findings = await run("backend", "check", *options)
    assert (checked, "REPLICA IDENTITY FULL" in sql) == (0, True), findings

    await postgres.stop()
    code, sql = await run("backend", "setup", *options, "--print")
    assert (code, "CREATE PUBLICATION" in sql) == (0, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's programs can be out of reach of the server's account")
async def test_programs_in_an_unreadable_folder_are_copied_for_the_server(tmp_path: Path) -> None:
    """The demo also runs from a checkout in root's home."""
    programs = find_programs(18)
    if programs is None:
        pytest.skip("no PostgreSQL 18 on this machine")
    package = programs.parent.parent
    closed = tmp_path / "closed"
    shutil.copytree(package, closed / package.name, ignore=shutil.ignore_patterns("pginstall"))
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    closed.chmod(0o700)
    open_folder = Path(tempfile.mkdtemp(prefix="stream-relay-test-"))
    try:
        reachable = reachable_programs(closed / package.name / "pginstall18" / "bin", open_folder)
        process = await asyncio.create_subprocess_exec(
            *command_as(server_account()), reachable / "psql", "--version", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
    finally:
        shutil.rmtree(open_folder)
    assert said.startswith(b"psql (PostgreSQL) 18")
