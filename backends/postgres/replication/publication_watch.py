"""Check, while a stream is read, that the publication sends all rows of our tables; before that nothing is confirmed.

The stream does not report that rows are not sent: a publication that lacks a table, or has a filter, sends nothing. So
another connection looks at the catalogue at intervals. Up to where the WAL was received before a check, nothing was
left out, and the slot may advance, also past WAL without rounds. Knows nothing of frames or rounds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from backends.contract import OffsetTaken
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.protocol.replication_link import ReplicationLink
from backends.postgres.replication.publication.publication_note import change_between
from backends.postgres.replication.slot import ReplicationOptions, check_publication
from backends.postgres.replication.slot_offset import SlotOffset
from roundlog.log_errors import LogError

log = structlog.get_logger()

_CHECK_S: Final = 1.0
_CHECKS: Final = 4
"""Checks within ``sender_timeout_s``, at least."""
_LAST_S: Final = 0.2
"""Limit of the check before a stream is closed."""


class PublicationWatch:
    """Checks the publication of one stream."""

    def __init__(
        self,
        stream: ReplicationLink,
        options: ReplicationOptions,
        offset: SlotOffset,
        *,
        on_checked: Callable[[int | None], Awaitable[None]],
    ) -> None:
        """Prepare.

        Args:
            stream: The stream that is read; it is failed when rows may have been left out.
            options: How to connect, and what to check.
            offset: What may be confirmed.
            on_checked: Called after a check, with the end of the WAL without rounds, see `SlotOffset.empty_wal_end`.
        """
        self._stream = stream
        self._options = options
        self._offset = offset
        self._on_checked = on_checked
        self._is_reported = False

    async def run(self) -> None:
        """Check at intervals until the stream is lost."""
        self._offset.begin_watch()
        while not self._stream.is_lost:
            try:
                watch = await ReplicationConnection.connect(self._options, replication=False)
                try:
                    while not self._stream.is_lost:
                        if self._offset.needs_check:
                            await self._check(watch)
                        self._is_reported = False
                        await asyncio.sleep(min(_CHECK_S, self._options.sender_timeout_s / _CHECKS))
                finally:
                    await watch.close()
            except (OffsetTaken, LogError) as error:
                self._stream.fail(StreamLost(str(error)))
            except StreamLost as error:
                if not (self._is_reported or self._stream.is_lost):
                    self._is_reported = True
                    log.warning("publication_not_watched", slot=self._options.slot, error=str(error))
            await asyncio.sleep(_CHECK_S)

    async def check_at_end(self) -> None:
        """Check once more, briefly, so that the last status message has the rounds that were stored just before."""
        if self._stream.is_lost or not self._offset.needs_check:
            return
        try:
            async with asyncio.timeout(_LAST_S):
                watch = await ReplicationConnection.connect(self._options, replication=False)
                try:
                    await self._compare(watch)
                finally:
                    await watch.close()
        except (TimeoutError, StreamLost):
            pass  # the rounds are sent again, and recognised

    async def _check(self, watch: ReplicationConnection) -> None:
        end = self._offset.empty_wal_end()
        if await self._compare(watch):
            await self._on_checked(end)

    async def _compare(self, watch: ReplicationConnection) -> bool:
        """Compare the publication with what the stream began with; return whether all rows were sent."""
        received = self._offset.received_lsn
        note = await check_publication(watch, self._options)
        if note is None or change_between(self._offset.publication, note).lost:
            self._stream.fail(StreamLost("the publication was changed"))
            return False
        self._offset.mark_published(received, note)
        return True
