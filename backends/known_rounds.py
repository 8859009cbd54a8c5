"""Know which rounds of a range the log holds, while others go on writing to it.

For who puts old rounds into the log: the server's own memory of ids is minutes, and the publisher's is the log's tail.
"""

from types import TracebackType
from typing import TYPE_CHECKING, Self

from backends.connection import connect
from backends.log import open_log
from backends.log_settings import LogSettings
from backends.tail import stored_ids
from rounds import Round, dedup_id

if TYPE_CHECKING:
    from nats.aio.client import Client


class KnownRounds:
    """The ids of a range that the log holds. Entered with ``async with``: it has a connection of its own.

    Used in ascending order of ids: what is passed is forgotten, so that memory stays within what is ahead.
    """

    def __init__(self, settings: LogSettings, first: int, last: int) -> None:
        self._settings = settings
        self._above, self._last = first - 1, last
        self._known: set[bytes] = set()
        self._read_to = 0
        self._epoch = ""
        self._connection = connect(settings, name="backfill")
        self._nc: Client | None = None

    async def __aenter__(self) -> Self:
        self._nc = await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    def __contains__(self, round_: Round) -> bool:
        return dedup_id(round_.game_slug, round_.round_id).encode() in self._known

    async def refresh(self, *, above: int) -> None:
        """Take in what was stored since the last time; ids up to `above` are of no interest any more.

        Raises:
            LogError: The log cannot be read.
        """
        if self._nc is None:
            raise AssertionError("entered")
        info = await open_log(self._nc, self._settings)
        if info.epoch != self._epoch:
            self._epoch, self._read_to = info.epoch, 0
            self._known.clear()
        self._above = above
        self._known = {msg_id for msg_id in self._known if self._is_ahead(msg_id)}
        first = max(info.first, self._read_to + 1)
        async for ids in stored_ids(self._nc, info.stream, first=first, last=info.last):
            self._known.update(msg_id for msg_id in ids if self._is_ahead(msg_id))
        self._read_to = info.last

    def _is_ahead(self, msg_id: bytes) -> bool:
        number = msg_id.rpartition(b":")[2]
        return number.isdigit() and self._above < int(number) <= self._last
