"""What the log remembers of a table that `postgres-notify` reads: where to begin, and which rows it has already.

Owns how an offset in the table is written. Which rows are read again is decided in `backends.postgres.notify.frontier`.
"""

from collections.abc import Mapping
from contextlib import suppress
from hashlib import blake2s
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import structlog

from backends.contract import OffsetTaken, SourceOffsets
from backends.postgres.notify.options import NotifyOptions

if TYPE_CHECKING:
    from backends.postgres.notify.session import NotifySession

log = structlog.get_logger()


class NotifyOffsets:
    """The offsets of one consumer's table."""

    def __init__(self, offsets: SourceOffsets[Any], options: NotifyOptions) -> None:
        self._offsets = offsets
        self._options = options
        database = urlsplit(options.dsn.get_secret_value()).path.lstrip("/")
        name = f"{database}.{options.consumer}.{options.source}"
        self._source = f"nt:{blake2s(name.encode(), digest_size=5).hexdigest()}"
        self._safe = -1  # the last one written, and how
        self._written = b""

    def offset_text(self, safe: int) -> bytes:
        """Write an offset as a round carries it: every row up to that id was read before."""
        if safe != self._safe:
            self._safe = safe
            self._written = f"{self._source}:{safe}".encode()
        return self._written

    async def begin(self, session: "NotifySession", safe: int, *, is_first: bool) -> int:
        """Return after which id to read, and learn which of the rows from there on the log has.

        On a first start that is where the log ends, if it has rounds of this table: another backend may have brought
        them here, and rows have come since it stopped. Otherwise it is `safe`.
        """
        if is_first:
            safe = await self._end_of_log(session, safe)
        kept = await self._offsets.kept(self._source)
        since = kept if kept is not None and _number(kept.offset) <= safe else None
        await self._offsets.recall(self._source, lambda offset: _number(offset) >= safe, since=since)
        with suppress(OffsetTaken):  # only a hint of how far to look back, and another process has left a newer one
            await self._offsets.keep(self._source, str(safe))
        return safe

    async def _end_of_log(self, session: "NotifySession", safe: int) -> int:
        newest: Mapping[str, int] = await self._offsets.newest()
        if not newest:
            return safe
        found = await session.find(newest)
        if found is None:
            log.warning("log_not_recognised", table=self._options.source, after=safe, games=len(newest))
            return safe
        # A row below may have been committed after it.
        begins = min(safe, found - self._options.lookback_ids)
        await session.rebegin(begins)
        log.info("log_continued", table=self._options.source, newest=found, after=begins)
        return begins


def _number(offset: str) -> int:
    try:
        return int(offset)
    except ValueError:
        return -1
