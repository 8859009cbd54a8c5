"""`stream-relay backend init`: what is proposed for tables as people have them, and the command itself."""

import asyncio
import json
import os
import pty
import re
import select
import shlex
import signal
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from backends.contract import SourceError
from backends.postgres.database import close_connection, open_connection
from backends.postgres.inspect.choose import Choice, choose_tables
from backends.postgres.inspect.facts import Rows
from backends.postgres.inspect.preview import preview_table
from backends.postgres.postgres_options import PostgresOptions
from rounds import Catalogue
from tests.cli.command import COMMAND, assert_one_line
from tests.cli.command import run as run_to_end
from tests.clients.program import clean_environment
from tests.nats import NatsServer
from tests.postgres.inspect.schemas import SCHEMAS
from tests.postgres.test_setup_commands import run
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service


async def test_tables_as_people_have_them_are_recognised(any_postgres: PostgresServer) -> None:
    """The proposal for each schema is complete, and no row of it is rejected."""
    catalogue, options = Catalogue.load(), PostgresOptions.read({"dsn": any_postgres.dsn()})
    connection = await open_connection(options, "test")
    for name, schema in SCHEMAS.items():
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute(f"SET LOCAL search_path = public; {schema.sql}; SET LOCAL search_path = pg_catalog")
        choice = await choose_tables(connection, options, catalogue, [], {})
        proposed = [dict(proposal.options) for proposal in choice.chosen]
        assert (name, proposed) == (name, [dict(table) for table in schema.tables])
        assert [question for proposal in choice.chosen for question in proposal.questions] == [], name
        assert not choice.is_ambiguous, name
        for table in proposed:
            given = PostgresOptions.read({"dsn": any_postgres.dsn(), **table})
            preview = await preview_table(connection, given, given, catalogue)
            assert preview.rejects == [], name
            assert preview.counts["rounds"] or not preview.rows, name
        await transaction.rollback()
    await close_connection(connection, within_s=5)


async def test_settings_that_init_writes_are_accepted_by_the_other_commands(
    postgres: PostgresServer, nats: NatsServer, tmp_path: Path
) -> None:
    """Ten minutes of an owner: init, setup, check. No password is printed, and only the file has it."""
    await postgres.execute(SCHEMAS["finished by update, state is an enum"].sql)
    dsn = postgres.dsn().replace("postgres@", "postgres:open-sesame@")
    out = tmp_path / "stream-relay.toml"

    code, said = await run("backend", "init", "--out", str(out), RELAY_BACKEND_DSN=dsn)

    assert code == 0, said
    assert "open-sesame" not in said
    assert '"round_id":3,"game_slug":"crash"' in said
    assert 'extras":"{\\"point\\":\\"2.50\\"}"' in said
    assert "2 rounds, 1 voided" in said
    assert "ADMIN_DSN" not in said
    assert out.stat().st_mode & 0o777 == 0o600
    written = tomllib.loads(out.read_text("utf-8"))["backend"]
    assert written["dsn"] == dsn
    assert written["finished_when"] == "state = 'finished'"
    with_file = ("--config", str(out))
    code, said = await run(*with_file, "config", RELAY_NATS_URL=nats.url)
    assert (code, "open-sesame" in said) == (0, False)
    code, said = await run(*with_file, "backend", "setup")
    assert code == 0, said
    code, said = await run(*with_file, "backend", "check", RELAY_NATS_URL=nats.url)
    assert code == 0, said
    code, said = await run(*with_file, "backend", "preview", "--json")
    (shown,) = json.loads(said)
    assert [round_["round_id"] for round_ in shown["rounds"]] == [3, 1]
    assert (shown["voided"], shown["unfinished"], shown["rejected"]) == (1, 0, 0)


async def test_variables_that_init_writes_mean_the_same_as_the_file(postgres: PostgresServer, tmp_path: Path) -> None:
    """Several tables become one variable with JSON; existing files are not replaced."""
    await postgres.execute(SCHEMAS["a table for each game"].sql)
    out = tmp_path / "relay.env"
    dsn = {"RELAY_BACKEND_DSN": postgres.dsn()}

    code, said = await run("backend", "init", "--out", str(out), "--backend", "postgres-replication", **dsn)
    assert code == 0, said
    variables = {
        name: shlex.split(value)[0] if value else ""
        for name, _, value in (line.partition("=") for line in out.read_text("utf-8").splitlines())
    }
    code, said = await run("backend", "preview", "--json", **variables)
    assert code == 0, said
    assert [(table["table"], table["finished"]) for table in json.loads(said)] == [
        ("gaming.dice", 2),
        ("gaming.plinko", 1),
    ]

    code, said = await run("backend", "init", "--out", str(out), **dsn)
    assert (code, len(said.splitlines())) == (1, 1)
    assert f"{out} exists" in said
    code, said = await run("backend", "init", "--json", **dsn)
    found = json.loads(said)
    assert found["settings"]["tables"] == [dict(table) for table in SCHEMAS["a table for each game"].tables]
    assert "CREATE PUBLICATION" in found["setup_sql"][0]


async def test_tables_that_cannot_be_captured_are_refused_with_what_to_name(postgres: PostgresServer) -> None:
    """A view is refused with the table that it reads; what rows do not show is a question."""
    for sql in _UNCLEAR:
        await postgres.execute(sql)
    catalogue, options = Catalogue.load(), PostgresOptions.read({"dsn": postgres.dsn()})
    connection = await open_connection(options, "test")

    async def choose(*tables: str, examples: Rows = ()) -> Choice:
        return await choose_tables(connection, options, catalogue, tables, {}, examples)

    refusals = {
        "live_rounds": "public.live_rounds is a view, .*; name the table that it reads: public.base",
        "fast": r'table public.fast is unlogged; run: ALTER TABLE "public"."fast" SET LOGGED;',
        "nowhere": "there is no table nowhere; there are public.base",
    }
    for table, sentence in refusals.items():
        with pytest.raises(SourceError, match=sentence):
            await choose(table)
    (proposal,) = (await choose("states")).chosen
    (question,) = proposal.questions
    assert (question.option, question.choices) == ("finished_when", ("status = 0", "status = 3"))
    (proposal,) = (await choose("events")).chosen
    assert "--example" in proposal.questions[0].text
    payload = '{"round": {"no": 7, "result": {"point": 2}}, "game": "crash", "finished_at": "2026-01-18T10:00:30Z"}'
    (proposal,) = (await choose("events", examples=[{"payload": payload}])).chosen
    found = [proposal.options[name] for name in ("round_id_column", "game_slug_column", "extras_column")]
    assert found == ["payload.round.no", "payload.game", "payload.round.result"]
    assert (await choose()).is_ambiguous
    await close_connection(connection, within_s=5)

    code, said = await run("backend", "init", RELAY_BACKEND_DSN=postgres.dsn())
    assert (code, len(said.splitlines())) == (1, 1)
    assert re.search("several tables may hold the same rounds: .*public.base, .*; name the table with --table", said)
    code, said = await run("backend", "init", "--table", "states", RELAY_BACKEND_DSN=postgres.dsn())
    assert (code, len(said.splitlines())) == (1, 1)
    assert '(0, 3) do not say which; set it with -o finished_when=…, such as -o "finished_when=status = 3"' in said


def test_init_without_a_database_names_the_setting() -> None:
    """Nobody is asked without a terminal."""
    assert_one_line(run_to_end("backend", "init"), "set RELAY_BACKEND_DSN, or give --dsn postgresql://")
    assert_one_line(run_to_end("backend", "init", "--backend", "file"), "backend 'file' reads no database")


async def test_init_asks_on_a_terminal(postgres: PostgresServer, tmp_path: Path) -> None:
    """It asks for the database without an echo, for what rows do not show, and for the file."""
    for sql in _UNCLEAR[:2]:
        await postgres.execute(sql)
    out, dsn = tmp_path / "asked.toml", postgres.dsn().replace("postgres@", "postgres:open-sesame@")

    dialogue = [("5432/database:", dsn), ("finished_when:", "2"), ("[stream-relay.toml]:", str(out))]
    said = await asyncio.to_thread(typed, ["backend", "init"], dialogue)

    assert "The database" in said
    assert "open-sesame" not in said
    assert "1  status = 0" in said
    assert f"next: stream-relay --config {out} backend setup" in said
    assert tomllib.loads(out.read_text("utf-8"))["backend"]["finished_when"] == "status = 3"


def typed(arguments: Sequence[str], dialogue: Sequence[tuple[str, str]]) -> str:
    """Run a command on a terminal of its own: wait for each question, and answer it. Return what it printed there."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(COMMAND, [COMMAND, *arguments], clean_environment())  # noqa: S606
    printed, at = b"", 0
    try:
        for question, answer in [*dialogue, (None, "")]:
            while question is None or question.encode() not in printed[at:]:
                assert select.select([terminal], [], [], 60)[0], printed.decode()
                try:
                    printed += os.read(terminal, 4096)
                except OSError:  # the command has ended
                    break
            at = len(printed)
            if question is not None:
                os.write(terminal, f"{answer}\n".encode())
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    return printed.decode()


_UNCLEAR = (
    """CREATE TABLE states (id bigserial PRIMARY KEY, game text, status smallint NOT NULL, point numeric NOT NULL,
           created_at timestamptz NOT NULL DEFAULT now())""",
    "INSERT INTO states (game, status, point) VALUES ('crash', 0, 0), ('crash', 3, 2.5)",
    "CREATE TABLE base (round_id bigint PRIMARY KEY, game_slug text, finished_at timestamptz, extras jsonb)",
    "CREATE TABLE other (round_id bigint PRIMARY KEY, game_slug text, finished_at timestamptz, extras jsonb)",
    "CREATE VIEW live_rounds AS SELECT * FROM base",
    "CREATE TABLE events (id uuid PRIMARY KEY, payload jsonb NOT NULL, created_at timestamptz NOT NULL)",
    "CREATE UNLOGGED TABLE fast (round_id bigint PRIMARY KEY, game_slug text, finished_at timestamptz, extras jsonb)",
)
