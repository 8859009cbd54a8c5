"""Advance the slot past WAL without rounds, after checking that the publication still includes the table.

The stream does not report that a table is no longer published: it sends no rows. So before the slot advances past WAL
without rounds, another connection checks that the publication and the table are the same. Knows nothing of frames or
rounds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from backends.contract import OffsetTaken
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.slot import ReplicationOptions, check_publication
from roundlog.log_errors import LogError

log = structlog.get_logger()

_CHECK_S: Final = 1.0
_CHECKS: Final = 4
"""Checks within ``sender_timeout_s``, at least."""


async def advance_past_empty_wal(
    stream: ReplicationConnection,
    options: ReplicationOptions,
    publication: str,
    *,
    empty_wal_end: Callable[[], int | None],
    advance_to: Callable[[int], Awaitable[None]],
) -> None:
    """Check the publication at intervals until the stream is lost; fail the stream if the publication has changed.

    Args:
        stream: The stream that is read.
        options: How to connect, and what to check.
        publication: What the stream began with, as `Slot.publication`.
        empty_wal_end: Called before each check; returns where the WAL without rounds ends, or None: no check is needed.
        advance_to: Called after a successful check with the LSN that `empty_wal_end` returned before it.
    """
    is_reported = False
    while not stream.is_lost:
        try:
            watch = await ReplicationConnection.connect(options, replication=False)
            try:
                while True:
                    if (lsn := empty_wal_end()) is not None:
                        if await check_publication(watch, options) != publication:
                            stream.fail(StreamLost("the publication was changed"))
                            return
                        await advance_to(lsn)
                    is_reported = False
                    await asyncio.sleep(min(_CHECK_S, options.sender_timeout_s / _CHECKS))
            finally:
                await watch.close()
        except (OffsetTaken, LogError) as error:
            stream.fail(StreamLost(str(error)))
        except StreamLost as error:
            if not (is_reported or stream.is_lost):
                is_reported = True
                log.warning("publication_not_watched", slot=options.slot, error=str(error))
        await asyncio.sleep(_CHECK_S)
