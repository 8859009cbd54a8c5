"""Read ranges of rows that are already in the tables, and publish the rounds that the log lacks.

A backend like any other, so that rounds are published in the same way. Owns the pages, the rate, and the check against
the log. Stores no state: run a stopped backfill again to continue it. No round is missed between a backfill and live
capture if capture was set up first: see docs/postgres-setup.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import structlog

from backends.contract import BackendContext, Captured, InvalidOptions, Rejected, SourceError, SourceUnavailable
from backends.postgres.backfill.missing_changes import missing_change
from backends.postgres.database import (
    Connection,
    ConnectionLost,
    ask,
    close_connection,
    open_connection,
)
from backends.postgres.game_tables import read_games
from backends.postgres.mapping.column_kinds import own_types_of
from backends.postgres.mapping.game_slugs import GameSlugs
from backends.postgres.mapping.table_mapper import ColumnMissing, TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.text_forms import MAX_ROUND_ID
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.row_bytes import fetch_rows
from backends.postgres.row_security import refuse_hidden_rows
from backends.postgres.statements import statement
from backends.postgres.table import columns_of, page_statement, read_table
from backends.publish.stored_ids import KnownRounds
from roundlog.backoff import Backoff
from roundlog.log_errors import LogUnavailable
from roundlog.log_settings import LogSettings
from rounds import Catalogue

log = structlog.get_logger()

_PAGE_ROWS: Final = 2000
_PAGES_PER_S: Final = 4
_ANSWER_S: Final = 60.0
_PAUSE_S: Final = 0.5
_CLOSE_S: Final = 1.0
_AFTER_ALL_KEYS: Final = "~"
"""Sorts after every key of a row: keys are hexadecimal digits."""


class Range(NamedTuple):
    """The first and the last id to read, of one table."""

    first: int
    last: int
    table: str = ""


class RowOffset(NamedTuple):
    """A row of one of the ranges. An id without the key need not be unique."""

    table: int
    """Which table: tables are read one after another."""
    offset: int
    key: str


_Item = Captured[RowOffset] | Rejected[RowOffset]


class TableBackfill:
    """Reads one range of each table once, and ends. Implements `backends.contract.Backend` with `RowOffset`."""

    def __init__(
        self,
        options: PostgresOptions,
        context: BackendContext,
        log_settings: LogSettings,
        *,
        table: str | None = None,
        first: int | None = None,
        last: int | None = None,
        rate: float = 0,
        on_progress: Callable[[Range, int], None] = lambda _range, _done: None,
    ) -> None:
        """Prepare a backfill.

        Args:
            options: Those of the backend for live capture.
            context: The catalogue of games.
            log_settings: The log to compare with.
            table: Which of the tables; None: all of them, one after another.
            first: The first id; None: the oldest in the table.
            last: The last id; None: the newest at the time of `open`.
            rate: Rounds per second at most; 0: no limit.
            on_progress: Called with a range, and the id up to which everything is in the log.

        Raises:
            InvalidOptions: There is no such table, or it is not clear of which table `first` and `last` are.
        """
        self._options = options
        tables = _chosen(options, table)
        if len(tables) > 1 and (first is not None or last is not None):
            names = ", ".join(one.source for one in tables)
            raise InvalidOptions(f"--from-id and --to-id are ids of one table; name it with --table: {names}")
        self._tables = [_OneTable(options, one, context.catalogue, index) for index, one in enumerate(tables)]
        self._log_settings = log_settings
        self._first, self._last = first, last
        self._rate = rate
        self._on_progress = on_progress
        self.left_out = 0
        """Number of rows that needed nothing: the log had their rounds already, or they are no rounds."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Check the tables, and determine the ranges. See `Backend.open`."""
        await self.check()
        for table in self._tables:
            log.info("backfill_started", table=table.range.table, first=table.range.first, last=table.range.last)
        yield

    async def check(self) -> None:
        """Check that every row of the tables can be read, in order, and mapped.

        Raises:
            SourceError: A table cannot be read, or not all of it; the text says what to run.
            SourceUnavailable: The server is away.
        """
        options = self._options
        try:
            connection = await open_connection(options, "backfill")
            try:
                for table in self._tables:
                    await table.prepare(connection, self._first, self._last)
            finally:
                await close_connection(connection, within_s=_CLOSE_S)
        except ConnectionLost as error:
            raise SourceUnavailable(f"{options.shown_dsn} cannot be reached: {error}") from error

    async def read(self) -> AsyncIterator[Sequence[_Item]]:
        """Yield the rows that the log does not have, table by table and page by page. See `Backend.read`."""
        for table in self._tables:
            async for items in self._read_table(table):
                yield items

    def confirm(self, offset: RowOffset) -> None:
        """Report the progress. See `Backend.confirm`."""
        self._on_progress(self._tables[offset.table].range, offset.offset)

    # --- inside -------------------------------------------------------------------------------------------------

    async def _read_table(self, table: "_OneTable") -> AsyncIterator[Sequence[_Item]]:
        first, last, _ = table.range
        own_ids = table.options.has_ordered_ids
        known_first, known_last = (first, last) if own_ids else (0, MAX_ROUND_ID)
        after = RowOffset(table.index, first - 1, _AFTER_ALL_KEYS)
        corrections = self._options.corrections
        async with KnownRounds(self._log_settings, known_first, known_last, with_contents=corrections) as known:
            while after.offset <= last:
                started = asyncio.get_running_loop().time()
                above = after.offset - 1 if own_ids else -1
                if corrections:
                    await _refresh(known, above=above)
                known_to = known.read_to
                rows = await self._page(table, after)
                if not rows:
                    return
                await _refresh(known, above=above)
                items = await self._missing(table, rows, known, known_to)
                self.left_out += len(rows) - len(items)
                after = table.offset(rows[-1])
                if items:
                    yield items
                else:
                    self._on_progress(table.range, after.offset)
                if self._rate:
                    elapsed_s = asyncio.get_running_loop().time() - started
                    await asyncio.sleep(max(0.0, len(items) / self._rate - elapsed_s))

    async def _page(self, table: "_OneTable", after: RowOffset) -> Sequence[Any]:
        """Read one page; reconnect until it succeeds."""
        limit = _PAGE_ROWS if not self._rate else max(1, min(_PAGE_ROWS, int(self._rate / _PAGES_PER_S)))
        backoff = Backoff(_PAUSE_S, self._options.retry_max_s)
        while True:
            try:
                connection = await open_connection(self._options, "backfill")
                try:
                    return await table.page(connection, after, limit)
                finally:
                    await close_connection(connection, within_s=_CLOSE_S)
            except ConnectionLost as error:
                log.warning("source_lost", error=str(error))
            await asyncio.sleep(backoff.next_s())

    async def _missing(self, table: "_OneTable", rows: Sequence[Any], known: KnownRounds, known_to: int) -> list[_Item]:
        """Return what the log lacks of these rows, which were read after its entry `known_to`; retry."""
        # Of several rows of a round, one alone does not say what the round is.
        corrections = self._options.corrections and table.has_unique_ids
        while True:
            try:
                found = [
                    await missing_change(
                        row, table.mapper, known, table.offset(row), corrections=corrections, known_to=known_to
                    )
                    for row in rows
                ]
            except LogUnavailable as error:
                log.warning("log_lost", error=str(error))
                await asyncio.sleep(_PAUSE_S)
            else:
                return [item for item in found if item is not None]


class _OneTable:
    """One table: its mapping, its range and its pages. Usable once it is prepared."""

    mapper: TableMapper
    range: Range

    def __init__(self, options: PostgresOptions, table: TableOptions, catalogue: Catalogue, index: int) -> None:
        self.options = table
        self.index = index
        self._source = options
        self._catalogue = catalogue
        self._games = GameSlugs(table, catalogue)
        self._page_sql = ""
        self.has_unique_ids = False
        """Whether a round has one row at most."""

    async def prepare(self, connection: Connection, first: int | None, last: int | None) -> None:
        """Check the table, read its games, and determine the range."""
        source, table = self._source, self.options
        names = {"schema": table.schema_name, "table": table.table_name}
        described = await ask(source, read_table(connection, source, table))
        if table.order not in (described["columns"] or []):
            raise ColumnMissing(table.table, table.order, "order_column", described["columns"] or [])
        if not described["is_ordered"]:
            raise SourceError(
                f"column {table.order} of {table.quoted_table} is not an integer, so rows cannot be ordered by it; set "
                "the option 'order_column'"
            )
        if not described["may_read"]:
            raise SourceError(
                f"our role may not read {table.quoted_table}; run: GRANT SELECT ON {table.quoted_table} TO ROLE;"
            )
        key = [table.round_id_column, *([] if table.game_slug else [table.game_slug_column])]
        unique = connection.fetchval(statement("has_unique_rounds", **names), key, timeout=_ANSWER_S)
        self.has_unique_ids = bool(await ask(source, unique))
        await refuse_hidden_rows(source, connection, table, timeout_s=_ANSWER_S)
        types = await ask(source, connection.fetch(statement("read_types", **names), timeout=_ANSWER_S))
        await read_games(connection, source, [self._games])
        self.mapper = TableMapper(
            table, self._catalogue, columns_of(described), games=self._games, own_types=own_types_of(types)
        )
        self._page_sql = page_statement(self.mapper)
        sql = statement("read_extent", **names, order_column=table.order)
        extent: Any = await ask(source, connection.fetchrow(sql, timeout=_ANSWER_S))
        oldest, newest = extent
        first = first if first is not None else oldest or 0
        self.range = Range(first, last if last is not None else (-1 if newest is None else newest), table.source)

    async def page(self, connection: Connection, after: RowOffset, limit: int) -> Sequence[Any]:
        """Read the next rows, and their games if one is not known."""
        await refuse_hidden_rows(self._source, connection, self.options, timeout_s=_ANSWER_S)
        arguments = (after.offset, after.key, self.range.last, limit)
        columns = ("row_offset", "row_key", "committed_ms")
        rows = await fetch_rows(
            self._source, connection, self._page_sql, *arguments, columns=columns, timeout_s=_ANSWER_S
        )
        if self.mapper.needs_games(row["row_values"] for row in rows):
            await read_games(connection, self._source, [self._games])
        return rows

    def offset(self, row: Any) -> RowOffset:
        """Return the offset of a row."""
        return RowOffset(self.index, row["row_offset"], row["row_key"])


def _chosen(options: PostgresOptions, table: str | None) -> Sequence[TableOptions]:
    if table is None:
        return options.all_tables
    chosen = [one for one in options.all_tables if table in (one.table, one.source)]
    if not chosen:
        names = ", ".join(one.source for one in options.all_tables)
        raise InvalidOptions(f"--table = {table!r:.80} is not a table of the options; there are: {names}")
    return chosen


async def _refresh(known: KnownRounds, *, above: int) -> None:
    """Read which rounds were stored since the last page; retry until the log is available."""
    while True:
        try:
            return await known.refresh(above=above)
        except LogUnavailable as error:
            log.warning("log_lost", error=str(error))
            await asyncio.sleep(_PAUSE_S)
