"""``stream-relay backend init``: look at a database, propose how its rows become rounds, and write the settings.

Owns what is asked, and what is printed when nobody can be asked. Never writes to the database, never prints a password.
The proposals are made by `backends.postgres.inspect`.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import msgspec
import typer

from backends.contract import BackendContext, BackendError, InvalidOptions
from backends.postgres.database import ConnectionLost, close_connection, open_connection
from backends.postgres.findings import Verdict
from backends.postgres.inspect.choose import Choice, choose_tables
from backends.postgres.inspect.facts import ServerFacts
from backends.postgres.inspect.look import look_at_server
from backends.postgres.inspect.mapping_check import check_mapping
from backends.postgres.inspect.preview import Preview, preview_tables
from backends.postgres.inspect.propose import Proposal, Question
from backends.postgres.inspect.settings_text import as_toml, as_variables
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.source_admin import admin_of
from relay.commands.backend.init_report import InitReport, print_next, print_report, print_table
from relay.commands.run import fail, run
from relay.config.catalogue import load_catalogue
from relay.config.settings import Settings

if TYPE_CHECKING:
    from backends.postgres.findings import Finding
    from rounds import Catalogue

DEFAULT_BACKEND: Final = "postgres-replication"
DEFAULT_FILE: Final = "stream-relay.toml"
_CLOSE_S: Final = 1.0
_SHARED: Final = ("dsn", "table", "tables")
"""Options of the connection and of the whole, which are not those of one table."""


class Init:
    """One run of the command."""

    def __init__(
        self,
        settings: Settings,
        *,
        dsn: str | None,
        tables: Sequence[str],
        given: Mapping[str, object],
        examples: Sequence[str],
        rounds: int,
        asks: bool,
    ) -> None:
        """Take what the user gave.

        Args:
            settings: Those in force; of the backend only the name and the DSN are used.
            dsn: Where to look; None: as the settings say, or as the user answers.
            tables: The tables that the user named.
            given: Options that the user has set.
            examples: Rows as JSON objects, for a table that is empty now.
            rounds: How many rounds to show of each table.
            asks: Whether somebody can answer.
        """
        self._asks = asks
        self._rounds = rounds
        self._tables = tables
        self._examples = [_row(text) for text in examples]
        self._backend = settings.backend.name if settings.backend.name.startswith("postgres-") else DEFAULT_BACKEND
        own = given.get("dsn") or settings.backend.options.get("dsn")
        self._own_dsn = str(own) if own else None
        self._dsn = dsn or self._own_dsn or self._ask_dsn()
        self._given = {name: value for name, value in given.items() if name not in _SHARED}
        self._catalogue: Catalogue = load_catalogue(settings.games_file)
        self._context = BackendContext(catalogue=self._catalogue)

    def report(self) -> InitReport:
        """Look at the database, ask what is not clear, and return what was found. Ends the program on errors."""
        options = self._connection_options(self._dsn)
        shared, own = self._split_given()
        found: list[tuple[ServerFacts, Choice]] = []

        async def look() -> None:
            connection = await open_connection(options, "init")
            try:
                server = await look_at_server(connection, options)
                found.append(
                    (
                        server,
                        await choose_tables(connection, options, self._catalogue, self._tables, own, self._examples),
                    )
                )
            finally:
                await close_connection(connection, within_s=_CLOSE_S)

        run(_answered(options, look()))
        server, choice = found[0]
        proposals = [self._complete(proposal) for proposal in self._chosen(choice)]
        return self._judged(server, proposals, choice.others, shared)

    # --- asking -------------------------------------------------------------------------------------------------

    def _ask_dsn(self) -> str:
        if not self._asks:
            fail("set RELAY_BACKEND_DSN, or give --dsn postgresql://user@host:5432/database")
        return str(
            typer.prompt("The database, as postgresql://user:password@host:5432/database", err=True, hide_input=True)
        )

    def _chosen(self, choice: Choice) -> list[Proposal]:
        names = ", ".join(proposal.table.full_name for proposal in choice.chosen or choice.others)
        if choice.chosen and not choice.is_ambiguous:
            return list(choice.chosen)
        if choice.chosen:
            what = f"several tables may hold the same rounds: {names}"
        else:
            nearest = f"the nearest are {names}" if names else "our role sees no table"
            what = f"no table looks like one of rounds; {nearest}"
        if not self._asks or not names:
            fail(f"{what}; name the table with --table SCHEMA.TABLE, once for each")
        typer.echo(what, err=True)
        answer = str(typer.prompt("Tables to capture, separated by commas", err=True))
        wanted = [name.strip() for name in answer.split(",")]
        known = {proposal.table.full_name: proposal for proposal in (*choice.chosen, *choice.others)}
        known |= {proposal.table.name: proposal for proposal in known.values() if proposal.table.schema == "public"}
        if unknown := [name for name in wanted if name not in known]:
            fail(f"{unknown[0]} is none of {names}; run the command again with --table {unknown[0]}")
        return [known[name] for name in dict.fromkeys(wanted)]

    def _complete(self, proposal: Proposal) -> Proposal:
        """Answer the questions of a proposal; end the program if nobody can."""
        if not proposal.questions:
            return proposal
        if not self._asks:
            fail("; ".join(map(_how_to_answer, proposal.questions)))
        answers = {question.option: self._answer(question) for question in proposal.questions}
        reasons = dict.fromkeys(answers, "as you say")
        return replace(
            proposal, options={**proposal.options, **answers}, reasons={**proposal.reasons, **reasons}, questions=()
        )

    def _answer(self, question: Question) -> str:
        typer.echo(question.text, err=True)
        for number, choice in enumerate(question.choices, 1):
            typer.echo(f"  {number}  {choice}", err=True)
        answer = str(typer.prompt(question.option, err=True)).strip()
        is_number = answer.isdecimal() and 1 <= int(answer) <= len(question.choices)
        return question.choices[int(answer) - 1] if is_number else answer

    # --- judging ------------------------------------------------------------------------------------------------

    def _split_given(self) -> tuple[dict[str, object], dict[str, object]]:
        """Split the options that the user gave into those of the backend, and those of its tables."""
        from backends.postgres.mapping.table_options import TableOptions

        of_table = TableOptions.model_fields.keys()
        shared = {name: value for name, value in self._given.items() if name not in of_table}
        return shared, {name: value for name, value in self._given.items() if name in of_table}

    def _connection_options(self, dsn: str) -> PostgresOptions:
        try:
            return PostgresOptions.read({"dsn": dsn})
        except InvalidOptions as error:
            fail(str(error))

    def _judged(
        self,
        server: ServerFacts,
        proposals: Sequence[Proposal],
        others: Sequence[Proposal],
        shared: Mapping[str, object],
    ) -> InitReport:
        tables = [dict(proposal.options) for proposal in proposals]
        own_dsn = self._own_dsn or self._dsn
        mapping = {"tables": tables} if len(tables) > 1 else tables[0]
        try:
            admin = admin_of(self._backend, {"dsn": own_dsn, **shared, **mapping}).acting_as(self._dsn)
            grant_to = _stranger(own_dsn, server, proposals)
            sql = asyncio.run(admin.planned_sql(grant_to))
        except BackendError as error:
            fail(str(error))
        previews: list[Preview] = []
        findings: list[Finding] = []

        async def judge() -> None:
            connection = await open_connection(admin.options, "init")
            try:
                previews.extend(await preview_tables(connection, admin.options, self._catalogue, rounds=self._rounds))
            finally:
                await close_connection(connection, within_s=_CLOSE_S)
            found = [*await admin.check(), *await check_mapping(admin.options, self._catalogue)]
            findings.extend(finding for finding in found if finding.verdict is not Verdict.OK)

        run(_answered(admin.options, judge()))
        return InitReport(
            server,
            admin.options.shown_dsn,
            self._backend,
            tuple(proposals),
            tuple(others),
            tuple(previews),
            tuple(sql),
            tuple(findings),
            {"dsn": own_dsn, **shared},
            tuple(tables),
            grant_to,
        )


def _stranger(dsn: str, server: ServerFacts, proposals: Sequence[Proposal]) -> str | None:
    """Return the role of ingest if it does not own all of the tables, so that it needs grants; None: it does."""
    role = unquote(urlsplit(dsn).username or "") or server.role
    return role if any(proposal.table.owner != role for proposal in proposals) else None


def _row(text: str) -> dict[str, str | None]:
    """Read a row of ``--example``; end the program if it is none."""
    try:
        row = msgspec.json.decode(text)
        if not isinstance(row, dict):
            raise TypeError
    except (msgspec.DecodeError, TypeError):
        fail(f'--example {text[:80]!r} is no JSON object of a row, such as {{"id": 1, "payload": {{}}}}')
    return {name: _as_text(value) for name, value in row.items()}


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else msgspec.json.encode(value).decode()


def _how_to_answer(question: Question) -> str:
    example = f", such as -o {json.dumps(f'{question.option}={question.choices[-1]}')}" if question.choices else ""
    return f"{question.text}; set it with -o {question.option}=…{example}"


async def _answered(options: PostgresOptions, work: Any) -> None:
    from backends.contract import SourceUnavailable

    try:
        await work
    except ConnectionLost as error:
        raise SourceUnavailable(f"{options.shown_dsn} cannot be reached: {error}") from error


def write_settings(report: InitReport, path: Path, *, replaces: bool) -> None:
    """Write the settings as a file that only its owner may read, since the DSN may have a password.

    A file whose name ends in ``.env`` gets variables of the environment, any other one TOML.
    """
    if path.suffix == ".env":
        text = "\n".join(as_variables(report.backend, report.options, report.tables)) + "\n"
    else:
        text = as_toml(report.backend, report.options, report.tables)
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replaces else os.O_EXCL)
    try:
        with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        fail(f"{path} exists; to replace it, give --yes, or another file with --out")
    except OSError as error:
        fail(f"{path} cannot be written: {error.strerror or error}")


def init(
    settings: Settings,
    *,
    dsn: str | None,
    tables: Sequence[str],
    given: Mapping[str, object],
    examples: Sequence[str],
    out: Path | None,
    rounds: int,
    yes: bool,
    as_json: bool,
) -> None:
    """Run the command; see `stream-relay backend init --help`."""
    asks = not yes and not as_json and sys.stdin.isatty() and sys.stderr.isatty()
    report = Init(settings, dsn=dsn, tables=tables, given=given, examples=examples, rounds=rounds, asks=asks).report()
    if as_json:
        if out is not None:
            write_settings(report, out, replaces=yes)
        print_table(report)
        return
    if asks:
        print_report(report, None)
        out = out or Path(str(typer.prompt("Write the settings to", default=DEFAULT_FILE, err=True)))
        replaces = out.exists() and typer.confirm(f"Replace {out}?", err=True)
        write_settings(report, out, replaces=replaces)
    else:
        if out is not None:
            write_settings(report, out, replaces=yes)
        print_report(report, out)
    print_next(report, out)
