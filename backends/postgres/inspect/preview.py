"""Show what the rows of a table become with given options: rounds, and rows that are none with the reason.

Owns which rows are shown, and that little is read. The rounds are made by the mapper that capture uses.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from backends.contract import InvalidOptions, SourceError
from backends.postgres.database import Connection, ConnectionLost, ask
from backends.postgres.game_tables import read_games
from backends.postgres.inspect.facts import TableFacts
from backends.postgres.inspect.look import look_at_tables, newest_first
from backends.postgres.mapping.column_kinds import Column, own_types_of
from backends.postgres.mapping.table_mapper import RowState, TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.row_bytes import fetch_rows
from backends.postgres.statements import statement
from backends.postgres.table import require_table
from rounds import Catalogue, InvalidRound, Round

ROWS: Final = 500
"""Rows of each table that are read: enough to meet every state, and quick to read."""
_ANSWER_S: Final = 15.0
_REASONS: Final = 20
"""Most reasons that are listed."""
_QUOTED: Final = re.compile(r"'[^']*'")
"""A value in a reason."""


@dataclass(slots=True)
class RejectedRows:
    """Rows that are rejected for the same reason, but for the value in it."""

    reason: str
    """That of the first row."""
    key: str
    """The first row."""
    count: int = 1


@dataclass(slots=True)
class Preview:
    """What the rows that were read of one table are."""

    table: TableOptions
    rounds: list[Round] = field(default_factory=list)
    """Newest first, where the table can be read in an order."""
    counts: Counter[str] = field(default_factory=Counter)
    """Rows by what they are: ``rounds``, ``unfinished``, ``voided``, ``other`` and ``rejected``."""
    rejects: list["RejectedRows"] = field(default_factory=list)
    """The rejected rows, by reason."""
    rows: int = 0
    unread: str = ""
    """Why no row could be read; empty: rows were read."""
    doubled: list[Round] = field(default_factory=list)
    """Two rounds with the same id, of one game, and with other content, if there are such rows."""
    without_figure: dict[str, str] = field(default_factory=dict)
    """The main figures by games of which no round has one."""
    _first: dict[tuple[str, int], Round] = field(default_factory=dict)
    _figured: set[str] = field(default_factory=set)

    def add(self, round_: Round, catalogue: Catalogue, wanted: int) -> None:
        """Count a round, and show it while fewer than `wanted` are shown."""
        self.counts["rounds"] += 1
        if len(self.rounds) < wanted:
            timestamp = max(0, int(round_.finished.timestamp() * 1000))
            self.rounds.append(msgspec.structs.replace(round_, timestamp=timestamp))
        game = catalogue.game(round_.game_slug)
        if game.value in msgspec.json.decode(round_.extras):
            self.without_figure.pop(game.slug, None)
            self._figured.add(game.slug)
        elif game.slug not in self._figured:
            self.without_figure[game.slug] = game.value
        first = self._first.setdefault((round_.game_slug, round_.round_id), round_)
        if first != round_ and not self.doubled:
            self.doubled = [first, round_]


async def preview_tables(
    connection: Connection, options: PostgresOptions, catalogue: Catalogue, *, rounds: int = 3
) -> list[Preview]:
    """Read some rows of each table of the options; see `preview_table`."""
    return [await preview_table(connection, options, table, catalogue, rounds=rounds) for table in options.all_tables]


async def preview_table(
    connection: Connection, options: PostgresOptions, table: TableOptions, catalogue: Catalogue, *, rounds: int = 3
) -> Preview:
    """Read some rows of a table, and say what they become.

    Args:
        rounds: How many rounds are wanted.

    Raises:
        SourceError: There is no such table, or it lacks a column that the options name.
    """
    found = await look_at_tables(connection, options, [table.source])
    if not found or not found[0].is_capturable:
        await require_table(connection, options, table)
        raise SourceError(
            f"{table.quoted_table} is a partition, or belongs to an extension; set the option 'table' to the "
            "partitioned table, or to one of your own"
        )
    (facts,) = found
    preview = Preview(table)
    try:
        mapper = await mapper_of(connection, options, facts, table, catalogue)
    except InvalidOptions as error:  # a game that the catalogue lacks
        preview.unread = str(error)
        return preview
    await read_games(connection, options, [mapper.games])
    try:
        for row in await _read(connection, options, facts, mapper, "TRUE", ROWS):
            _judge(mapper, row, preview, catalogue, rounds)
        if len(preview.rounds) < rounds and preview.rows == ROWS:
            wanted = [mapper.sql_of("rows_when", "t"), mapper.sql_of("finished_when", "t")]
            wanted.append(f"NOT {mapper.sql_of('voided_when', 't')}")
            for row in await _read(connection, options, facts, mapper, " AND ".join(wanted), rounds):
                _judge(mapper, row, preview, catalogue, rounds)
    except (SourceError, ConnectionLost) as error:
        preview.unread = str(error)
    return preview


async def mapper_of(
    connection: Connection, options: PostgresOptions, facts: TableFacts, table: TableOptions, catalogue: Catalogue
) -> TableMapper:
    """Make the mapper of a table, without its games.

    Raises:
        ColumnMissing: The table lacks a column of the options.
        InvalidOptions: The options name a game that the catalogue lacks.
    """
    names = {"schema": facts.schema, "table": facts.name}
    types = await ask(options, connection.fetch(statement("read_types", **names), timeout=_ANSWER_S))
    columns = [Column(column.name, column.type_oid) for column in facts.columns]
    return TableMapper(table, catalogue, columns, own_types=own_types_of(types))


async def _read(
    connection: Connection, options: PostgresOptions, facts: TableFacts, mapper: TableMapper, condition: str, limit: int
) -> Sequence[Any]:
    """Read rows, each with ``row_values`` and, if some text is none in the encoding of the database, ``fault``."""
    values = f"ARRAY[{mapper.values_sql('t')}]::text[] AS row_values, TRUE AS is_row"
    sql = f"SELECT {values} FROM {facts.quoted} AS t WHERE {condition}{newest_first(facts)} LIMIT {limit:d}"  # noqa: S608
    return await fetch_rows(options, connection, sql, columns=["is_row"], timeout_s=_ANSWER_S)


def _judge(mapper: TableMapper, row: Any, preview: Preview, catalogue: Catalogue, rounds: int) -> None:
    preview.rows += 1
    values, fault = row["row_values"], row.get("fault")
    try:
        if fault is not None:
            raise InvalidRound(fault)
        state = mapper.state(values)
        if state is not RowState.FINISHED:
            preview.counts[state.name.lower()] += 1
            return
        round_ = mapper.to_round(values, 0)
    except InvalidRound as error:
        _reject(mapper, values, str(error), preview)
        return
    preview.add(round_, catalogue, rounds)


def _reject(mapper: TableMapper, values: Sequence[str | None], reason: str, preview: Preview) -> None:
    preview.counts["rejected"] += 1
    same = _QUOTED.sub("", reason)
    for found in preview.rejects:
        if _QUOTED.sub("", found.reason) == same:
            found.count += 1
            return
    if len(preview.rejects) < _REASONS:
        rejected: Any = mapper.reject(values, reason, 0)
        preview.rejects.append(RejectedRows(reason, rejected.key))
