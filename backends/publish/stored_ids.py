"""The ids of a range that the log holds, kept current while other processes publish to it.

For publishing old rounds: nats-server knows ids for minutes, and the publisher those of the log's tail only.
"""

from array import array
from hashlib import blake2b
from types import TracebackType
from typing import Final, Self

from backends.contract import SourceError
from roundlog.client.connection import Connection, connect
from roundlog.log_settings import LogSettings
from roundlog.stream import read_log
from roundlog.tail import stored_ids
from rounds import Round, dedup_id

MOST: Final = 16_000_000
"""The most rounds of one range: 256 MiB, and 50 % more while the memory for the last half is allocated."""


class TooManyRounds(SourceError):
    """The log holds more rounds of the range than fit in memory. None was published."""

    def __init__(self, most: int) -> None:
        super().__init__(most)
        self.most = most

    def __str__(self) -> str:
        return (
            f"the log holds more than {self.most:,} rounds of the range, too many to tell which are missing; run"
            " `stream-relay backend backfill` over parts of it, with --from-id and --to-id"
        )


class KnownRounds:
    """The ids of a range that the log holds. Entered with ``async with``; has a connection of its own.

    Keeps a hash of eight bytes for each, so that the ids of months fit in memory.
    """

    def __init__(self, settings: LogSettings, first: int, last: int, *, most: int = MOST) -> None:
        """Prepare for rounds with ids from `first` to `last`, of which the log may hold `most`."""
        self._settings = settings
        self._above, self._last = first - 1, last
        self._most = most
        self._known = Digests()
        self._read_to = 0
        self._epoch = ""
        self._connection = connect(settings, name="backfill")
        self._open: Connection | None = None

    async def __aenter__(self) -> Self:
        self._open = await self._connection.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.__aexit__(kind, error, trace)

    def __contains__(self, round_: Round) -> bool:
        return _digest(dedup_id(round_.game_slug, round_.round_id).encode()) in self._known

    async def refresh(self, *, above: int) -> None:
        """Add what was stored since the last call; ids up to `above` need not be known any more.

        Raises:
            LogError: The log cannot be read.
            TooManyRounds: The log holds more rounds of the range than fit in memory.
        """
        if self._open is None:
            raise AssertionError("not entered")
        info = await read_log(self._open, self._settings)
        if info.epoch != self._epoch:
            self._epoch, self._read_to = info.epoch, 0
            self._known = Digests()
        self._above = max(self._above, above)
        first = max(info.first, self._read_to + 1)
        async for ids in stored_ids(self._open, info.stream, first=first, last=info.last):
            for msg_id in ids:
                if self._is_ahead(msg_id):
                    self._known.add(_digest(msg_id))
            if len(self._known) > self._most:
                raise TooManyRounds(self._most)
        self._read_to = info.last

    def _is_ahead(self, msg_id: bytes) -> bool:
        number = msg_id.rpartition(b":")[2]
        return number.isdigit() and self._above < int(number) <= self._last


class Digests:
    """A set of numbers from 1 to 2^64-1 in 12 to 24 bytes each, where Python's own takes about 100."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FEWEST))  # open addressing with linear probing; 0: free
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return self._slots[self._slot(number)] == number

    def add(self, number: int) -> None:
        slot = self._slot(number)
        if self._slots[slot] != number:
            self._slots[slot] = number
            self._count += 1
            if 3 * self._count > 2 * len(self._slots):
                self._grow()

    def _slot(self, number: int) -> int:
        slots, mask = self._slots, len(self._slots) - 1
        slot = number & mask
        while slots[slot] not in (0, number):
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        for number in old:
            if number:
                self._slots[self._slot(number)] = number


_FEWEST: Final = 1024


def _digest(msg_id: bytes) -> int:
    # A collision is less likely than a bit error of the disk.
    return int.from_bytes(blake2b(msg_id, digest_size=8).digest()) or 1
