"""Check that rows become rounds: types of columns, what the newest rows become, games, and what a backfill needs.

For both backends. Reads only, within bounds. What the publication sends is checked in `replication`, what polling needs
in `notify`.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from backends.contract import BackendError, SourceError
from backends.postgres.database import Connection, ask
from backends.postgres.findings import Finding, Verdict, connected
from backends.postgres.game_tables import read_games
from backends.postgres.identifiers import quote_identifier
from backends.postgres.inspect.column_faults import REPEATED_REMEDY, column_faults
from backends.postgres.inspect.facts import ServerFacts, TableFacts
from backends.postgres.inspect.look import look_at_server, look_at_tables, newest_first
from backends.postgres.inspect.preview import Preview, mapper_of, preview_table
from backends.postgres.mapping.column_kinds import Kind
from backends.postgres.mapping.table_mapper import ColumnMissing, TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.value_path import ValuePath, sql_of
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement
from backends.postgres.table import read_table
from rounds import Catalogue, InvalidRound

_GAME_ROWS: Final = 20_000
"""The newest rows whose games are looked at."""
_GAMES: Final = 1000
_GAMES_NAMED: Final = 10
_AHEAD: Final = timedelta(minutes=10)
_ANSWER_S: Final = 15.0


async def check_mapping(options: PostgresOptions, catalogue: Catalogue) -> list[Finding]:
    """Check every table of the options.

    Raises:
        SourceError: The server cannot be queried.
    """
    findings: list[Finding] = []
    if options.without_effect:
        findings.append(Finding(Verdict.WARNING, options.without_effect))
    async with connected(options) as connection:
        server = await look_at_server(connection, options)
        findings += _of_encoding(server)
        names = [table.source for table in options.all_tables]
        facts = {table.full_name: table for table in await look_at_tables(connection, options, names)}
        for table in options.all_tables:
            if (found := facts.get(table.source)) is not None and found.is_capturable:
                findings += await _of_table(connection, options, table, found, catalogue, quote_identifier(server.role))
    return findings


async def _of_table(
    connection: Connection,
    options: PostgresOptions,
    table: TableOptions,
    facts: TableFacts,
    catalogue: Catalogue,
    role: str,
) -> list[Finding]:
    try:
        mapper = await mapper_of(connection, options, facts, table, catalogue)
    except ColumnMissing:
        return []  # the check of the backend says so
    except BackendError as error:
        return [Finding(Verdict.FAILURE, f"{error}; add the game to the file of RELAY_GAMES_FILE")]
    findings = [
        *column_faults(facts, table),
        *(await _of_recovery(connection, options, table, role)),
    ]
    if not facts.may_read:
        return findings
    try:
        await read_games(connection, options, [mapper.games])
    except SourceError as error:
        return [*findings, Finding(Verdict.FAILURE, str(error))]
    findings += await _of_games(connection, table, facts, mapper, catalogue)
    preview = await preview_table(connection, options, table, catalogue)
    return [*findings, *_of_rows(preview, facts)]


def _of_encoding(server: ServerFacts) -> list[Finding]:
    if server.encoding != "SQL_ASCII":
        return []
    text = (
        f"database {server.database} has the encoding SQL_ASCII, which does not check text: a row with bytes that are "
    )
    return [Finding(Verdict.WARNING, f"{text}not UTF-8 is rejected")]


# --- rows ------------------------------------------------------------------------------------------------------------


def _of_rows(preview: Preview, facts: TableFacts) -> list[Finding]:
    if preview.unread:
        text = f"rows of {facts.quoted} could not be read, so they were not checked: {preview.unread}"
        return [Finding(Verdict.WARNING, text)]
    findings = []
    for each in preview.rejects:
        if not each.reason.startswith("unknown game"):  # see `_of_games`
            rows = f"{each.count:,} of {preview.rows:,} rows that were read of {facts.quoted}"
            findings.append(Finding(Verdict.FAILURE, f"{rows} would be rejected, such as {each.key}: {each.reason}"))
    if preview.doubled:
        first, second = preview.doubled
        text = (
            f"{facts.quoted}: round {first.round_id} of {first.game_slug} stands in several rows of different content, "
            f"such as those finished at {first.finished_at} and {second.finished_at}, which count as one round; "
        )
        findings.append(Finding(Verdict.FAILURE, f"{text}{REPEATED_REMEDY}"))
    for game, figure in sorted(preview.without_figure.items()):
        text = (
            f"rounds of {game} in {facts.quoted} have no {figure!r} in their extras, which is the main figure of {game}"
        )
        remedy = f"filters and /api/latest do not find it; name it with 'extras_columns', such as {figure}=COLUMN"
        findings.append(Finding(Verdict.WARNING, f"{text}: {remedy}"))
    ahead = [round_ for round_ in preview.rounds if round_.finished > datetime.now(UTC) + _AHEAD]
    if ahead:
        text = (
            f"{facts.quoted}: round {ahead[0].round_id} finished at {ahead[0].finished_at}, which is in the future; a "
        )
        findings.append(Finding(Verdict.WARNING, f"{text}timestamp without time zone is read as UTC"))
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(preview.counts.items()))
    text = f"{facts.quoted}: of {preview.rows:,} rows that were read: {counts or 'none'}"
    return [*findings, Finding(Verdict.OK, text)]


async def _of_games(
    connection: Connection, table: TableOptions, facts: TableFacts, mapper: TableMapper, catalogue: Catalogue
) -> list[Finding]:
    """Look for games that the catalogue lacks: in the options, and in the newest rows."""
    lost: dict[str, str] = {}
    for slug in [*([table.game_slug] if table.game_slug else []), *table.game_slug_map.values()]:
        if slug not in catalogue.games:
            lost[slug] = f"unknown game {slug!r}"
    if table.game_slug is None:
        try:
            values = await _distinct_games(connection, table, facts, mapper)
        except (asyncpg.PostgresError, TimeoutError, UnicodeDecodeError) as error:
            text = f"the games of {facts.quoted} could not be read: {str(error) or 'no answer in time'}"
            return [Finding(Verdict.WARNING, text)]
        for value in values:
            try:
                mapper.games.game_of(value)
            except InvalidRound as error:
                if value is not None:
                    lost[value] = str(error).partition(";")[0]
    if not lost:
        return []
    named = ", ".join(list(lost.values())[:_GAMES_NAMED])
    more = f" and {len(lost) - _GAMES_NAMED} more" if len(lost) > _GAMES_NAMED else ""
    remedy = (
        "add these games to the file of RELAY_GAMES_FILE, map them with the option 'game_slug_map', or leave the rows "
    )
    text = f"rows of {facts.quoted} would be rejected: {named}{more}; {remedy}out with 'rows_when'"
    return [Finding(Verdict.FAILURE, text)]


async def _distinct_games(
    connection: Connection, table: TableOptions, facts: TableFacts, mapper: TableMapper
) -> Sequence[str | None]:
    place = ValuePath.parse(table.game_slug_column).place(tuple(facts.by_name))
    if place is None:
        return []
    game, ours = sql_of(place, "t", Kind.TEXT), mapper.sql_of("rows_when", "t")
    rows = f"SELECT {game} AS game FROM {facts.quoted} AS t WHERE {ours}"  # noqa: S608
    sql = f"SELECT DISTINCT r.game FROM ({rows}{newest_first(facts)} LIMIT {_GAME_ROWS}) AS r LIMIT {_GAMES}"  # noqa: S608
    async with connection.transaction(readonly=True):
        return [row["game"] for row in await connection.fetch(sql, timeout=_ANSWER_S)]


# --- recovery --------------------------------------------------------------------------------------------------------


async def _of_recovery(
    connection: Connection, options: PostgresOptions, table: TableOptions, role: str
) -> list[Finding]:
    """Say why a backfill could not read the table: a failure if the options rely on it, else a warning."""
    relies = getattr(options, "on_lost", None) == "backfill"
    facts: Any = await ask(options, read_table(connection, options, table))
    rights: Any = await ask(
        options,
        connection.fetchrow(statement("describe_backfill", schema=table.schema_name, table=table.table_name)),
    )
    order, quoted = table.order, table.quoted_table
    reasons = []
    if order not in (facts["columns"] or []):
        reasons.append(f"{quoted} has no column {order!r} to order rows by; set the option 'order_column'")
    elif not facts["is_ordered"]:
        what = f"column {quote_identifier(order)} of {quoted} is not an integer that orders rows"
        reasons.append(f"{what}; set the option 'order_column' to one from a sequence")
    elif not facts["is_indexed"]:
        index = f"CREATE INDEX CONCURRENTLY ON {quoted} ({quote_identifier(order)});"
        text = f"column {quote_identifier(order)} of {quoted} has no index, so a backfill reads the table for each page"
        return [Finding(Verdict.WARNING, f"{text}; run: {index}")]
    if not facts["may_read"]:
        reasons.append(f"our role may not read {quoted}; run: GRANT SELECT ON {quoted} TO {role};")
    if rights["hides_rows"]:
        reasons.append(
            f"row level security hides rows of {quoted} from our role; run: ALTER ROLE {role} BYPASSRLS; or add a "
            "policy that shows it all rows"
        )
    if relies and not rights["owns"]:
        grant = f"GRANT {quote_identifier(rights['owner'])} TO {role};"
        reasons.append(f"our role does not own {quoted}, so it cannot recreate the publication; run: {grant}")
    verdict = Verdict.FAILURE if relies else Verdict.WARNING
    begins = "on_lost = backfill could not do its work" if relies else "a backfill could not do its work"
    return [Finding(verdict, f"{begins}: {reason}") for reason in reasons]
