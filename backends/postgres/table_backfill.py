"""Read a range of rows that are already in the table, and publish the rounds that the log lacks.

A backend like any other, so that rounds are published in the same way. Owns the pages, the rate, and the check against
the log. Stores no state: run a stopped backfill again to continue it. No round is missed between a backfill and live
capture if capture was set up first: see docs/postgres-setup.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import structlog

from backends.contract import BackendContext, Captured, Rejected, SourceError, SourceUnavailable
from backends.postgres.database import ConnectionLost, ask, close_connection, fetch_rows, open_connection
from backends.postgres.mapping.table_mapper import ColumnMissing, TableMapper, item_of
from backends.postgres.mapping.text_forms import MAX_ROUND_ID
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement
from backends.postgres.table import columns_of, page_statement, read_table
from backends.publish.stored_ids import KnownRounds
from roundlog.backoff import Backoff
from roundlog.log_errors import LogUnavailable
from roundlog.log_settings import LogSettings

log = structlog.get_logger()

_PAGE_ROWS: Final = 2000
_PAGES_PER_S: Final = 4
_ANSWER_S: Final = 60.0
_PAUSE_S: Final = 0.5
_CLOSE_S: Final = 1.0
_AFTER_ALL_KEYS: Final = "\U0010ffff"
"""Sorts after every key of a row."""


class Range(NamedTuple):
    """The first and the last id to read."""

    first: int
    last: int


class RowOffset(NamedTuple):
    """A row of the range. An id without the key need not be unique."""

    offset: int
    key: str


_Item = Captured[RowOffset] | Rejected[RowOffset]


class TableBackfill:
    """Reads one range once, and ends. Implements `backends.contract.Backend` with `RowOffset`."""

    def __init__(
        self,
        options: PostgresOptions,
        context: BackendContext,
        log_settings: LogSettings,
        *,
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
            first: The first id; None: the oldest in the table.
            last: The last id; None: the newest at the time of `open`.
            rate: Rounds per second at most; 0: no limit.
            on_progress: Called with the range, and the id up to which everything is in the log.
        """
        self._options = options
        self._catalogue = context.catalogue
        self._log_settings = log_settings
        self._first, self._last = first, last
        self._rate = rate
        self._on_progress = on_progress
        self._range = Range(0, -1)
        self._mapper: TableMapper
        self._page_sql = ""
        self.left_out = 0
        """Number of rounds that the log had already."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Check the table, and determine the range. See `Backend.open`."""
        options = self._options
        try:
            connection = await open_connection(options, "backfill")
            try:
                table = await ask(options, read_table(connection, options))
                self._prepare(table)
                sql = statement(
                    "read_extent", schema=options.schema_name, table=options.table_name, order_column=options.order
                )
                extent: Any = await ask(options, connection.fetchrow(sql, timeout=_ANSWER_S))
                oldest, newest = extent
            finally:
                await close_connection(connection, within_s=_CLOSE_S)
        except ConnectionLost as error:
            raise SourceUnavailable(f"{options.shown_dsn} cannot be reached: {error}") from error
        first = self._first if self._first is not None else oldest or 0
        last = self._last if self._last is not None else (-1 if newest is None else newest)
        self._range = Range(first, last)
        log.info("backfill_started", table=options.source, first=first, last=last)
        yield

    async def read(self) -> AsyncIterator[Sequence[_Item]]:
        """Yield the rows that the log does not have, page by page. See `Backend.read`."""
        first, last = self._range
        own_ids = self._options.order == self._options.round_id_column
        span = self._range if own_ids else Range(0, MAX_ROUND_ID)
        after = RowOffset(first - 1, _AFTER_ALL_KEYS)
        async with KnownRounds(self._log_settings, span.first, span.last) as known:
            while after.offset <= last:
                started = asyncio.get_running_loop().time()
                rows = await self._page(after)
                if not rows:
                    return
                await _refresh(known, above=after.offset - 1 if own_ids else -1)
                items = [item for item in map(self._item, rows) if not self._is_known(item, known)]
                after = _offset(rows[-1])
                if items:
                    yield items
                else:
                    self._on_progress(self._range, after.offset)
                if self._rate:
                    elapsed_s = asyncio.get_running_loop().time() - started
                    await asyncio.sleep(max(0.0, len(items) / self._rate - elapsed_s))

    def confirm(self, offset: RowOffset) -> None:
        """Report the progress. See `Backend.confirm`."""
        self._on_progress(self._range, offset.offset)

    # --- inside -------------------------------------------------------------------------------------------------

    def _prepare(self, table: dict[str, Any]) -> None:
        options, columns = self._options, table["columns"] or []
        mapper = TableMapper(options, self._catalogue, columns_of(table))
        if options.order not in columns:
            raise ColumnMissing(options.table, options.order, "order_column", columns)
        if not table["is_ordered"]:
            raise SourceError(
                f"column {options.order} of {options.quoted_table} is not an integer, so rows cannot be ordered by it"
            )
        if not table["may_read"]:
            raise SourceError(
                f"our role may not read {options.quoted_table}; run: GRANT SELECT ON {options.quoted_table} TO ROLE;"
            )
        self._mapper = mapper
        self._page_sql = page_statement(mapper)

    async def _page(self, after: RowOffset) -> list[Any]:
        """Read one page; reconnect until it succeeds."""
        limit = _PAGE_ROWS if not self._rate else max(1, min(_PAGE_ROWS, int(self._rate / _PAGES_PER_S)))
        backoff = Backoff(_PAUSE_S, self._options.retry_max_s)
        while True:
            try:
                connection = await open_connection(self._options, "backfill")
                try:
                    arguments = (*after, self._range.last, limit)
                    return await fetch_rows(self._options, connection, self._page_sql, *arguments, timeout_s=_ANSWER_S)
                finally:
                    await close_connection(connection, within_s=_CLOSE_S)
            except ConnectionLost as error:
                log.warning("source_lost", error=str(error))
            await asyncio.sleep(backoff.next_s())

    def _item(self, row: Any) -> _Item:
        return item_of(row, self._mapper, _offset(row))

    def _is_known(self, item: _Item, known: KnownRounds) -> bool:
        is_known = isinstance(item, Captured) and item.round in known
        self.left_out += is_known
        return is_known


def _offset(row: Any) -> RowOffset:
    return RowOffset(row["row_offset"], row["row_key"])


async def _refresh(known: KnownRounds, *, above: int) -> None:
    """Read which rounds were stored since the last page; retry until the log is available."""
    while True:
        try:
            return await known.refresh(above=above)
        except LogUnavailable as error:
            log.warning("log_lost", error=str(error))
            await asyncio.sleep(_PAUSE_S)
