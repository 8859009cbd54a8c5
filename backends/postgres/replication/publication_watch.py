"""Let the offset of a slot move over what held no round, once it is sure that none was kept from us.

A table that is not published any more sends nothing, and the stream says nothing of it. So before the offset moves over
nothing, it is seen that the same publication still holds the same table, over a connection of its own. Knows nothing of
frames or rounds.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from backends.contract import OffsetTaken
from backends.postgres.replication.protocol.connection import ReplicationConnection, StreamLost
from backends.postgres.replication.slot import ReplicationOptions, check_publication
from roundlog.errors import LogError

log = structlog.get_logger()

_WATCH_S: Final = 1.0
_TICKS: Final = 4


async def cover(
    stream: ReplicationConnection,
    options: ReplicationOptions,
    publication: str,
    *,
    due: Callable[[], int | None],
    keep: Callable[[int], Awaitable[None]],
) -> None:
    """Look again and again, until the stream is lost; fail it when its publication is not what it was.

    Args:
        stream: The one that is read.
        options: How to connect, and what to look at.
        publication: That which the stream began with, as `Slot.publication`.
        due: Asked each time for an offset to move to; None: there is no need to look.
        keep: Told that this offset, which `due` named before the look, held nothing that we have not got.
    """
    told = False
    while not stream.is_lost:
        try:
            watch = await ReplicationConnection.connect(options, replication=False)
            try:
                while True:
                    if (offset := due()) is not None:
                        if await check_publication(watch, options) != publication:
                            stream.fail(StreamLost("the publication was changed"))
                            return
                        await keep(offset)
                    told = False
                    await asyncio.sleep(min(_WATCH_S, options.sender_timeout_s / _TICKS))
            finally:
                await watch.close()
        except (OffsetTaken, LogError) as error:
            stream.fail(StreamLost(str(error)))
        except StreamLost as error:
            if not (told or stream.is_lost):
                told = True
                log.warning("publication_not_watched", slot=options.slot, error=str(error))
        await asyncio.sleep(_WATCH_S)
