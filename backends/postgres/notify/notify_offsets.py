"""What the log stores about one table that `postgres-notify` reads: where to begin, and which rows it already has.

Owns the text form of an offset in the table. Which rows are read again is decided in
`backends.postgres.notify.frontier`.
"""

from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from hashlib import blake2s
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from backends.contract import OffsetTaken, SourceOffsets
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.notify.notify_options import NotifyOptions

if TYPE_CHECKING:
    from backends.postgres.notify.notify_session import NotifySession
    from backends.postgres.notify.table_queries import TableQueries

log = structlog.get_logger()


class NotifyOffsets:
    """The offsets of one consumer's table."""

    def __init__(self, offsets: SourceOffsets[Any], options: NotifyOptions, table: TableOptions) -> None:
        self._offsets = offsets
        self._options = options
        self._table = table
        database = urlsplit(options.dsn.get_secret_value()).path.lstrip("/")
        name = f"{database}.{options.consumer}.{table.source}"
        self._source = f"nt:{blake2s(name.encode(), digest_size=5).hexdigest()}"
        self._safe = -1  # the last offset, and its text form below
        self._text = b""

    def offset_text(self, safe: int) -> bytes:
        """Write the offset that a round carries: every row up to id `safe` was read before it."""
        if safe != self._safe:
            self._safe = safe
            self._text = f"{self._source}:{safe}".encode()
        return self._text

    async def wait_for_log(self) -> None:
        """Wait until the log can be read and answers publishes."""
        await self._offsets.kept(self._source)

    async def begin(self, session: "NotifySession", queries: "TableQueries", safe: int, *, is_first: bool) -> int:
        """Return the id after which to read, and recall which rows above it the log has.

        On a first start this is the end of the log, if the log has rounds of this table: another backend may have
        stored them, and rows may have been added since it stopped. Otherwise it is `safe`.
        """
        if is_first:
            safe = await self._end_of_log(session, queries, safe)
        kept = await self._offsets.kept(self._source)
        since = kept if kept is not None and _number(kept.offset) <= safe else None
        stored_since = await session.unread_since() if self._options.feed else None
        again = partial(_is_above, safe)
        await self._offsets.recall(self._source, again, since=since, stored_since=stored_since)
        with suppress(OffsetTaken):  # only a hint of how far to look back; another process has kept a newer one
            await self._offsets.keep(self._source, str(safe))
        return safe

    async def _end_of_log(self, session: "NotifySession", queries: "TableQueries", safe: int) -> int:
        newest: Mapping[str, int] = await self._offsets.newest()
        if not newest:
            return safe
        found = await queries.find(newest)
        if found is None:
            log.warning("log_not_recognised", table=self._table.source, after=safe, games=len(newest))
            return safe
        # Rows below it may have been committed later.
        begins = min(safe, found - self._options.lookback_ids)
        await session.rebegin(self._table.source, begins)
        log.info("log_continued", table=self._table.source, newest=found, after=begins)
        return begins


def _is_above(safe: int, offset: str) -> bool:
    return _number(offset) >= safe


def _number(offset: str) -> int:
    try:
        return int(offset)
    except ValueError:
        return -1
