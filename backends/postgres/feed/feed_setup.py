"""Set up the feed, remove it, and say what of it is missing: the statements and the sentences for an operator.

Only reads from the database; the caller runs the statements. What the triggers do is in `feed_triggers`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backends.contract import SourceError
from backends.postgres.feed.feed_table import FEED
from backends.postgres.feed.feed_triggers import FeedMapping, function_name, function_sql, triggers_of, version_of
from backends.postgres.findings import Finding, Verdict
from backends.postgres.game_tables import games_of, grants_on_games, read_games
from backends.postgres.mapping.column_kinds import Column, own_types_of
from backends.postgres.mapping.condition import Condition
from backends.postgres.mapping.game_slugs import GameSlugs
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.value_path import ValuePath
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import one_line, statement
from backends.postgres.table import columns_of, read_table
from rounds import Catalogue

if TYPE_CHECKING:
    from backends.postgres.database import Connection

SETUP: Final = "run as the owner of the tables: stream-relay backend setup --feed"
GROWN_S: Final = 3600.0
"""How much older than `PostgresOptions.feed_keep_s` the oldest row may be before `check` warns."""
_JSONB: Final = 3802


class CapturedTable(NamedTuple):
    """A table that fills the feed, as it is now."""

    mapper: TableMapper
    columns: Sequence[Column]
    is_partitioned: bool = False

    @property
    def mapping(self) -> FeedMapping:
        """What of it has to be in the feed."""
        table = self.mapper.table
        return FeedMapping(
            table.source,
            table.quoted_table,
            self.mapper.columns,
            self._finished("OLD"),
            self._finished("NEW"),
            deletes=table.deletes == "void",
            keys=self._keys() if self.is_partitioned else (),
        )

    def _keys(self) -> tuple[str, ...]:
        table = self.mapper.table
        paths = [table.round_id_column, *([] if table.game_slug else [table.game_slug_column])]
        places = [ValuePath.parse(path).place([column.name for column in self.columns]) for path in paths]
        return tuple(place.column for place in places if place is not None)

    def _finished(self, row: str) -> str | None:
        """Write the condition that a row is a finished round; None: its SQL could raise, and fail a statement."""
        table, mapper = self.mapper.table, self.mapper
        if not all(map(self._cannot_raise, _paths_of(table))):
            return None
        tests = [f"({mapper.sql_of('finished_when', row)})"]
        if table.rows_when is not None:
            tests.append(f"({mapper.sql_of('rows_when', row)})")
        if table.voided_when is not None:
            tests.append(f"NOT ({mapper.sql_of('voided_when', row)})")
        return " AND ".join(tests)

    def _cannot_raise(self, path: ValuePath) -> bool:
        place = path.place([column.name for column in self.columns])
        # Text may be no JSON, and json may have members that jsonb cannot hold.
        return place is None or not place.members or Column(place.column, _JSONB) in self.columns


def _paths_of(table: TableOptions) -> list[ValuePath]:
    """Return the values that the conditions of a table read."""
    conditions = [table.finished_when, table.voided_when, table.rows_when]
    paths = [path for text in conditions if text is not None for path in Condition.parse(text).paths]
    return paths if table.finished_when is not None else [*paths, ValuePath.parse(table.finished_at_column)]


async def read_captured(
    connection: "Connection",
    options: PostgresOptions,
    catalogue: Catalogue,
    games: Mapping[str, GameSlugs] | None = None,
) -> list[CapturedTable]:
    """Describe the tables that fill the feed.

    Args:
        connection: Of a role that may read the catalogue.
        options: Those of the captured tables.
        catalogue: The games of this installation.
        games: The games of each table by `TableOptions.source`; None: rounds are not made.

    Raises:
        SourceError: A table or a column is missing.
    """
    found = []
    for table in options.all_tables:
        described = await read_table(connection, options, table)
        columns = columns_of(described)
        types = await connection.fetch(statement("read_types", schema=table.schema_name, table=table.table_name))
        mapper = TableMapper(
            table, catalogue, columns, games=(games or {}).get(table.source), own_types=own_types_of(types)
        )
        found.append(CapturedTable(mapper, columns, described["is_partitioned"]))
    return found


# --- statements ------------------------------------------------------------------------------------------------------


async def setup_sql(connection: "Connection", options: PostgresOptions, grant_to: str | None) -> list[str]:
    """Return the statements that create the feed and the triggers that are missing, in order.

    Raises:
        SourceError: A table cannot fill the feed as it is.
    """
    made = [statement("create_feed")]
    for captured in await read_captured(connection, options, Catalogue.load()):
        if fault := await _virtual_fault(connection, captured):
            raise SourceError(fault)
        mapping = captured.mapping
        triggers = triggers_of(mapping)
        made += [
            function_sql(mapping),
            statement(
                "create_feed_triggers",
                table=mapping.quoted_table,
                names=_array([trigger.name for trigger in triggers]),
                statements=_array([trigger.statement for trigger in triggers]),
                version=version_of(mapping),
            ),
        ]
        if grant_to is not None:
            table = captured.mapper.table
            names = {"schema": table.schema_name, "table": table.table_name}
            made.append(statement("grant_captured", **names, role=grant_to))
    if grant_to is None:
        return made
    return [*made, *grants_on_games(options, grant_to), statement("grant_feed", role=grant_to)]


def teardown_sql(options: PostgresOptions) -> list[str]:
    """Return the statements that drop the triggers, the reader's offset, and the feed if nothing else fills it."""
    dropped = [statement("drop_feed_triggers", function=function_name(table.source)) for table in options.all_tables]
    return [*dropped, statement("drop_feed", consumer=options.feed_reader)]


# --- what is missing -------------------------------------------------------------------------------------------------


async def faults_of_feed(
    connection: "Connection", options: PostgresOptions, tables: Sequence[CapturedTable]
) -> list[str]:
    """Say why rounds would not get into the feed or out of it, one sentence each with what to run; empty: they do."""
    made: Any = await connection.fetchrow(statement("read_feed"))
    if not (made["has_feed"] and made["has_positions"] and made["has_function"]):
        return [f"table {FEED} is missing on {options.shown_dsn} or not complete; {SETUP}"]
    faults = []
    if not made["may_read"]:
        faults.append(f"our role may not read {FEED}; {SETUP} --grant-to ROLE")
    elif not made["may_delete"]:
        faults.append(
            f"our role may not delete stored rows of {FEED}, or not store its offset; {SETUP} --grant-to ROLE"
        )
    for captured in tables:
        if fault := await _virtual_fault(connection, captured):
            faults.append(fault)
            continue
        mapping = captured.mapping
        names = [trigger.name for trigger in triggers_of(mapping)]
        sql = statement("read_feed_triggers")
        rows = await connection.fetch(sql, mapping.quoted_table, names, version_of(mapping))
        faults += [f"a trigger of {row['relation']} that fills {FEED} is {row['faults']}; {SETUP}" for row in rows]
    return faults


async def _virtual_fault(connection: "Connection", captured: CapturedTable) -> str | None:
    """Say that the mapping reads a column whose value no trigger gets; None: it does not."""
    table = captured.mapper.table
    sql = statement("read_virtual_columns")
    virtual = {row[0] for row in await connection.fetch(sql, table.quoted_table)} & set(captured.mapper.columns)
    if not virtual:
        return None
    return (
        f"column {min(virtual)} of {table.quoted_table} is a virtual generated column, which a trigger cannot read; "
        "make it STORED, or let the options name the columns that it is made of"
    )


async def check_feed(connection: "Connection", options: PostgresOptions) -> list[Finding]:
    """Check the feed: its triggers, our rights, and whether its rows are stored and deleted.

    Raises:
        SourceError: A captured table or a column is missing.
    """
    tables = await read_captured(connection, options, Catalogue.load())
    findings = [Finding(Verdict.FAILURE, fault) for fault in await faults_of_feed(connection, options, tables)]
    try:
        await read_games(connection, options, games_of(options, Catalogue.load()).values())
    except SourceError as error:
        findings.append(Finding(Verdict.FAILURE, str(error)))
    if findings:
        return findings
    size: Any = await connection.fetchrow(statement("read_feed_size"))
    if (size["safe"] or 0) > size["newest"]:
        return [
            Finding(
                Verdict.FAILURE,
                f"the sequence of {FEED} is at {size['newest']}, behind offset {size['safe']} of reader "
                f"{size['readers'][0]!r}, so new rows would count as stored; {SETUP}",
            )
        ]
    if (size["oldest_s"] or 0) > options.feed_keep_s + GROWN_S:
        return [Finding(Verdict.WARNING, _grown(size))]
    return [Finding(Verdict.OK, f"{FEED} is filled by {', '.join(table.mapper.table.source for table in tables)}")]


async def feed_status(connection: "Connection") -> dict[str, str]:
    """Return the state of the feed, by label."""
    made: Any = await connection.fetchrow(statement("read_feed"))
    if not made["has_feed"]:
        return {"feed": "not set up"}
    size: Any = await connection.fetchrow(statement("read_feed_size"))
    kept = 0 if size["oldest"] is None else size["newest"] - size["oldest"] + 1
    age = "" if size["oldest_s"] is None else f", the oldest {size['oldest_s']:,.0f} s old"
    return {
        "feed": f"up to {kept:,} rows{age}, {size['bytes']:,} bytes",
        "feed readers": ", ".join(size["readers"] or "-"),
    }


def _grown(size: Any) -> str:
    age = f"the oldest row of {FEED} is {size['oldest_s']:,.0f} s old"
    if not size["readers"]:
        return f"{age}, and no reader has ever stored an offset; start ingest"
    reader = size["readers"][0]
    forget = one_line(statement("forget_feed_reader", consumer=reader))
    return f"{age}: reader {reader!r} has not stored it; start it, or, if it is gone for good, run: {forget}"


def _array(texts: Sequence[str]) -> str:
    """Write an array of text as PostgreSQL reads it."""
    quoted = (text.replace("\\", "\\\\").replace('"', '\\"') for text in texts)
    return "{" + ",".join(f'"{text}"' for text in quoted) + "}"
