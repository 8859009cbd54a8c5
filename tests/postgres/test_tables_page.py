"""The page "If your table looks like this": each schema is set up, written to, and captured into a real log."""

import re
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from backends.postgres.findings import Verdict
from backends.postgres.inspect.mapping_check import check_mapping
from backends.postgres.source_admin import admin_of
from backends.registry import make_backend
from roundlog.log_settings import LogSettings
from rounds import Catalogue, Round
from tests.docs.pages import blocks, text_of
from tests.nats import NatsServer, nats_client
from tests.postgres.ingesting import CONTEXT, ingesting
from tests.postgres_server import PostgresServer
from tests.waiting import until

TABLES: Final = Path(__file__).with_name("tables")
_WAIT_S: Final = 20.0
_SECTION: Final = re.compile(r"^## (.*)\n((?:(?!^## ).*\n)*)", re.MULTILINE)
_ROUND: Final = re.compile(r"([a-z][a-z0-9-]*) (\d+)(?: revision (\d+))?(?: ([{].*?[}](?=, [a-z]|$)|[^\s,]+))?(?:, |$)")


class Expected(NamedTuple):
    """One entry of the log: a round, or a correction of one."""

    game: str
    round_id: int
    revision: int
    figure: str | None
    """The main figure, ``voided``, or all extras as JSON; None: anything."""

    def is_met_by(self, found: Round) -> bool:
        key = (found.game_slug, found.round_id, found.revision)
        if key != (self.game, self.round_id, self.revision) or found.voided is not (self.figure == "voided"):
            return False
        extras = msgspec.json.decode(found.extras)
        if self.figure is None or found.voided:
            return True
        if self.figure.startswith("{"):
            return bool(extras == msgspec.json.decode(self.figure))
        return bool(extras[Catalogue.load().game(found.game_slug).value] == self.figure)


class Section(NamedTuple):
    """A schema of the page."""

    heading: str
    backends: tuple[str, ...]
    tables: str
    settings: dict[str, Any]
    writes: str
    expected: tuple[Expected, ...]


def expected_of(sql: str) -> tuple[Expected, ...]:
    """Read the rounds that the comments at the end of some SQL promise; corrections come after all rounds."""
    found = []
    for line in re.findall(r"^-- (?:rounds|corrections): (.*)$", sql, re.MULTILINE):
        matches = list(_ROUND.finditer(line))
        assert matches, line
        assert sum(len(match[0]) for match in matches) == len(line), line
        found += [Expected(match[1], int(match[2]), int(match[3] or 1), match[4]) for match in matches]
    return tuple(found)


def sections() -> Iterator[Section]:
    for heading, text in _SECTION.findall(text_of("postgres-tables.md")):
        works = re.search(r"^Works with (.*?)\.", text, re.MULTILINE | re.DOTALL)
        assert works is not None, heading
        *tables, writes = blocks(text, "sql")
        (settings,) = blocks(text, "toml")
        backend = tomllib.loads(settings)["backend"]
        names = tuple(re.findall(r"`(postgres-[a-z]+)`", works[1]))
        yield Section(heading, names, "".join(tables), backend, writes, expected_of(writes))


async def in_log(nats: NatsServer) -> Sequence[Round]:
    """Read the log: the rounds in their order, and then the corrections."""
    found = []
    async with nats_client(LogSettings(url=nats.url)) as nc:
        inbox = nc.new_inbox()
        subscription = await nc.subscribe(inbox)
        request = {"seq": 1, "batch": 500, "next_by_subj": "rounds.*"}
        await nc.publish("$JS.API.DIRECT.GET.ROUNDS", msgspec.json.encode(request), reply=inbox)
        while not (message := await subscription.next_msg(timeout=10)).headers or "Status" not in message.headers:
            found.append(Round.parse(message.data))
    return sorted(found, key=lambda round_: round_.revision > 1)


async def capture(server: PostgresServer, nats: NatsServer, section: Section, backend: str, database: str) -> None:
    """Set a section up in a database of its own, write, and compare the log with what the page promises."""
    await server.execute(f'CREATE DATABASE "{database}"')
    if section.tables:
        await server.execute(section.tables, database=database)
    options = {"dsn": server.dsn(database), **section.settings}
    options |= {"slot": database} if backend == "postgres-replication" else {"start": "beginning", "poll_s": 0.1}
    admin = admin_of(backend, options)
    await admin.set_up(None)
    findings = [*await admin.check(), *await check_mapping(admin.options, CONTEXT.catalogue)]
    assert [finding.text for finding in findings if finding.verdict is Verdict.FAILURE] == [], section.heading
    async with ingesting(make_backend(backend, options, CONTEXT), nats):
        await write(server, section.writes, database)

        async def complete() -> bool:
            return len(await in_log(nats)) >= len(section.expected)

        await until(complete, within_s=_WAIT_S)
        found = await in_log(nats)
    expected = list(section.expected)
    if backend == "postgres-notify":  # rounds that are finished between two looks come in the order of their ids
        expected.sort()
        found = sorted(found, key=lambda round_: (round_.game_slug, round_.round_id))
    wrong = [(want, got) for want, got in zip(expected, found, strict=True) if not want.is_met_by(got)]
    assert wrong == [], section.heading
    await run_sql_of(server, admin, database)


async def write(server: PostgresServer, sql: str, database: str) -> None:
    """Run the statements one by one, as psql does: each is a transaction of its own, unless it says otherwise."""
    connection = await server.connect(database)
    for statement in re.split(r";\s*\n", re.sub(r"^--.*\n", "", sql, flags=re.MULTILINE)):
        if statement.strip():
            await connection.execute(statement)
    await connection.close()


async def run_sql_of(server: PostgresServer, admin: Any, database: str) -> None:
    """Free the slot for the next section."""
    for sql in admin.teardown_sql():
        await server.execute(sql, database=database)


@pytest.mark.service
@pytest.mark.parametrize("backend", ["postgres-replication", "postgres-notify"])
async def test_each_schema_of_the_page_gives_the_rounds_that_it_promises(
    postgres: PostgresServer, tmp_path: Path, backend: str
) -> None:
    """With the settings of the page, after `backend setup`, and with no failure of `backend check`."""
    for number, section in enumerate(sections()):
        if backend not in section.backends:
            continue
        store = tmp_path / f"{number}"
        store.mkdir()
        nats = NatsServer(store)
        await nats.start()
        try:
            await capture(postgres, nats, section, backend, f"page_{number}")
        finally:
            await nats.kill()


def test_page_covers_each_of_the_tables() -> None:
    """The rounds of every file of `tests/postgres/tables` are promised by a section of the page."""
    promised = {(expected.game, expected.round_id) for section in sections() for expected in section.expected}

    for path in sorted(TABLES.glob("*.sql")):
        found = re.findall(r"([a-z-]+) (\d+)", path.read_text("utf-8").partition("-- rounds")[2].partition("\n")[0])
        assert found, path.name
        assert {(game, int(round_id)) for game, round_id in found} <= promised, path.name
