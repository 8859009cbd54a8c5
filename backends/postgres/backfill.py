"""Read a range of rows that are already in the table, for rounds that no capture has seen.

A backend like any other, so that publishing and what comes with it are the same. Owns the pages, the pace, and leaving
out what the log has; needs no memory between runs for it: a run that was stopped goes on by being run again. Joins live
capture without a hole when that was set up before: see docs/postgres-setup.md.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import structlog

from backends.contract import BackendContext, Captured, Rejected, SourceError
from backends.postgres.mapping import RowMapper, item_of
from backends.postgres.notify.frontier import MAX_ID
from backends.postgres.notify.options import NotifyOptions, game_type_column, page_statement, read_source
from backends.postgres.notify.session import ConnectionLost, ask, open_connection
from backends.postgres.options import PostgresOptions
from backends.postgres.statements import statement
from backends.publish.stored_ids import KnownRounds
from roundlog.backoff import Backoff
from roundlog.errors import LogUnavailable
from roundlog.settings import LogSettings

log = structlog.get_logger()

_PAGE_ROWS: Final = 2000
_PAGES_A_SECOND: Final = 4
_ANSWER_S: Final = 60.0
_PAUSE_S: Final = 0.5
_AFTER_ALL_GAMES: Final = "\U0010ffff"


class Range(NamedTuple):
    """Ids to read, both included."""

    first: int
    last: int


class RowOffset(NamedTuple):
    """A row of the range. Ids alone need not be unique: they may be so within their game only."""

    offset: int
    game: str


Item = Captured[RowOffset] | Rejected[RowOffset]


class TableBackfill:
    """Reads one range once. Implements `backends.contract.Backend` with `RowOffset`; ends when the range does."""

    def __init__(
        self,
        options: PostgresOptions,
        context: BackendContext,
        log_settings: LogSettings,
        *,
        first: int | None = None,
        last: int | None = None,
        rate: float = 0,
        on_progress: Callable[[Range, int], None] = lambda _range, _place: None,
    ) -> None:
        """Prepare a backfill.

        Args:
            options: Those of the backend that captures live.
            context: As any backend has it.
            log_settings: The log that must not get a round twice.
            first: The first id; None: the oldest in the table.
            last: The last id; None: the newest at the time of `open`.
            rate: Rounds per second at most; 0: no limit.
            on_progress: Told the range, and up to which id everything is in the log.
        """
        self._options = _as_notify(options)
        self._mapper = RowMapper(context.catalogue, options.table)
        self._log_settings = log_settings
        self._first, self._last = first, last
        self._rate = rate
        self._on_progress = on_progress
        self._range = Range(0, -1)
        self._has_game_type = False
        self._page_sql = ""
        self.left_out = 0
        """Rounds that the log had."""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Look at the table and fix the range. See `Backend.open`."""
        options = self._options
        try:
            connection = await open_connection(options, "backfill", pooled=not options.notify)
            try:
                source = await ask(options, read_source(connection, options))
                self._prepare(source)
                sql = statement(
                    "read_extent", schema=options.schema_name, table=options.table_name, order_column=options.order
                )
                oldest, newest = await ask(options, connection.fetchrow(sql, timeout=_ANSWER_S))
            finally:
                await connection.close()
        except ConnectionLost as error:
            raise SourceError(f"{options.shown_dsn} cannot be reached: {error}") from error
        first = self._first if self._first is not None else oldest or 0
        last = self._last if self._last is not None else (-1 if newest is None else newest)
        self._range = Range(first, last)
        log.info("backfill_started", table=options.source, first=first, last=last)
        yield

    async def read(self) -> AsyncIterator[Sequence[Item]]:
        """Yield the rows that the log does not have, page by page. See `Backend.read`."""
        first, last = self._range
        own_ids = self._options.order == self._options.round_id_column
        span = self._range if own_ids else Range(0, MAX_ID)
        after = RowOffset(first - 1, _AFTER_ALL_GAMES)
        async with KnownRounds(self._log_settings, span.first, span.last) as known:
            while after.offset <= last:
                started = asyncio.get_running_loop().time()
                rows = await self._page(after)
                if not rows:
                    return
                await _patiently(known, above=after.offset - 1 if own_ids else -1)
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
        """Take note of how far the log has everything; only shown."""
        self._on_progress(self._range, offset.offset)

    # --- inside -------------------------------------------------------------------------------------------------

    def _prepare(self, source: dict[str, Any]) -> None:
        options, columns = self._options, source["columns"] or []
        wanted = [options.order, options.round_id_column, options.game_slug_column, options.finished_at_column]
        if missing := [name for name in [*wanted, options.extras_column] if name not in columns]:
            raise SourceError(f"table {options.quoted_table} has no column {', '.join(missing)}; set the options")
        if not source["is_ordered"]:
            raise SourceError(f"column {options.order} of {options.quoted_table} is no integer to go by")
        if not source["may_read"]:
            raise SourceError(f"our role may not read {options.quoted_table}; run: GRANT SELECT on it to that role")
        self._has_game_type = game_type_column(options, columns) is not None
        self._page_sql = page_statement(options, columns)

    async def _page(self, after: RowOffset) -> list[Any]:
        """Read one page, however often the server has to be found again for it."""
        limit = _PAGE_ROWS if not self._rate else max(1, min(_PAGE_ROWS, int(self._rate / _PAGES_A_SECOND)))
        backoff = Backoff(_PAUSE_S, self._options.retry_max_s)
        while True:
            try:
                connection = await open_connection(self._options, "backfill", pooled=not self._options.notify)
                try:
                    page = connection.fetch(self._page_sql, *after, self._range.last, limit, timeout=_ANSWER_S)
                    rows: list[Any] = await ask(self._options, page)
                    return rows
                finally:
                    await connection.close()
            except ConnectionLost as error:
                log.warning("source_lost", error=str(error))
            await asyncio.sleep(backoff.next_s())

    def _item(self, row: Any) -> Item:
        return item_of(row, self._mapper, _offset(row), has_game_type=self._has_game_type)

    def _is_known(self, item: Item, known: KnownRounds) -> bool:
        is_known = isinstance(item, Captured) and item.round in known
        self.left_out += is_known
        return is_known


def _offset(row: Any) -> RowOffset:
    return RowOffset(row["row_offset"], row["game_slug"] or "")


def _as_notify(options: PostgresOptions) -> NotifyOptions:
    """Take the options of either backend: which table, which columns, how to connect."""
    if isinstance(options, NotifyOptions):
        return options
    return NotifyOptions.read({name: getattr(options, name) for name in PostgresOptions.model_fields})


async def _patiently(known: KnownRounds, *, above: int) -> None:
    """Learn what the log has got since the last page; wait for a log that is away."""
    while True:
        try:
            return await known.refresh(above=above)
        except LogUnavailable as error:
            log.warning("log_lost", error=str(error))
            await asyncio.sleep(_PAUSE_S)
