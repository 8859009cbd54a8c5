"""The ids of a range that the log holds, and what it says of each, kept current while other processes publish.

For publishing old rounds: nats-server knows ids for minutes, and the publisher those of the log's tail only.
"""

from array import array
from collections.abc import Sequence
from contextlib import suppress
from hashlib import blake2b
from types import TracebackType
from typing import Final, Self

from backends.contract import SourceError
from backends.publish.corrections.revision_numbers import content_digest
from roundlog.client.connection import Connection, connect
from roundlog.log_settings import LogSettings
from roundlog.stream import read_log
from roundlog.tail import TailPage, data_of_leader, stored_pages
from rounds import InvalidRound, Round, dedup_id

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

    Keeps a hash of eight bytes for each, so that the ids of months fit in memory; with contents 24 bytes, for a third
    of the rounds.
    """

    def __init__(
        self, settings: LogSettings, first: int, last: int, *, most: int = MOST, with_contents: bool = False
    ) -> None:
        """Prepare for rounds with ids from `first` to `last`, of which the log may hold `most`.

        `with_contents`: also remember what the newest entry of each round says, a correction or the round itself.
        """
        self._settings = settings
        self._above, self._last = first - 1, last
        self._with_contents = with_contents
        self._most = most // 3 if with_contents else most
        self._known = self._none()
        self._read_to = 0
        self._deleted = 0
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

    def content(self, game_slug: str, round_id: int) -> int | None:
        """Return the `content_digest` of a round's newest entry; None: the log has none of it. With contents only."""
        found = self._known.values(_digest(dedup_id(game_slug, round_id).encode()))
        return None if found is None else found[0]

    def sequence(self, game_slug: str, round_id: int) -> int:
        """Return where the log has a round's newest entry; 0: it has none of it. With contents only."""
        found = self._known.values(_digest(dedup_id(game_slug, round_id).encode()))
        return 0 if found is None else found[1]

    @property
    def read_to(self) -> int:
        """The newest sequence of the log at the last `refresh`."""
        return self._read_to

    async def newest_entry(self, game_slug: str, round_id: int) -> Round | None:
        """Read a round's newest entry; None: it is not there any more. With contents only.

        Raises:
            LogUnavailable: No answer in time, no leader, or the connection is lost.
        """
        found = self._known.values(_digest(dedup_id(game_slug, round_id).encode()))
        if found is None or self._open is None:
            return None
        data = await data_of_leader(self._open, self._settings.stream, found[1])
        return None if data is None else Round.parse(data)

    async def refresh(self, *, above: int) -> None:
        """Add what was stored since the last call; ids up to `above` need not be known any more.

        Raises:
            LogError: The log cannot be read.
            TooManyRounds: The log holds more rounds of the range than fit in memory.
        """
        if self._open is None:
            raise AssertionError("not entered")
        info = await read_log(self._open, self._settings)
        # Of messages that were purged or deleted since, the log does not say which: all are read again.
        if info.epoch != self._epoch or info.deleted > self._deleted or info.first > self._read_to + 1:
            self._read_to, self._known = 0, self._none()
        self._epoch, self._deleted = info.epoch, info.deleted
        self._above = max(self._above, above)
        first = max(info.first, self._read_to + 1)
        async for page in stored_pages(self._open, info.stream, first=first, last=info.last):
            self._add(page)
            if len(self._known) > self._most:
                raise TooManyRounds(self._most)
        self._read_to = info.last

    def _add(self, page: TailPage) -> None:
        for msg_id, sequence, data in zip(page.ids, page.sequences, page.data, strict=True):
            round_id = _of_round(msg_id)
            if not self._is_ahead(round_id):
                continue
            if not self._with_contents:
                self._known.add(_digest(round_id))
                continue
            with suppress(InvalidRound):  # of another program
                self._known.add(_digest(round_id), content_digest(Round.parse(data)), sequence)

    def _is_ahead(self, msg_id: bytes) -> bool:
        number = msg_id.rpartition(b":")[2]
        return number.isdigit() and self._above < int(number) <= self._last

    def _none(self) -> "Digests":
        return Digests(values=2 if self._with_contents else 0)


class Digests:
    """A set of numbers from 1 to 2^64-1 in 12 to 24 bytes each, where Python's own takes about 100.

    With values, a mapping from them to so many numbers of 64 bits, each as large.
    """

    def __init__(self, values: int = 0) -> None:
        self._stride = values + 1
        self._slots = array("Q", bytes(8 * self._stride * _FEWEST))  # open addressing with linear probing; 0: free
        self._size = _FEWEST
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, number: int) -> bool:
        return self._slots[self._slot(number)] == number

    def add(self, number: int, *values: int) -> None:
        """Add a number, or replace its values."""
        slot = self._slot(number)
        if self._slots[slot] != number:
            self._slots[slot] = number
            self._count += 1
        for place, value in enumerate(values, slot + 1):
            self._slots[place] = value
        if 3 * self._count > 2 * self._size:
            self._grow()

    def values(self, number: int) -> Sequence[int] | None:
        """Return the values of a number; None: it was not added."""
        slot = self._slot(number)
        return self._slots[slot + 1 : slot + self._stride] if self._slots[slot] == number else None

    def _slot(self, number: int) -> int:
        slots, mask, stride = self._slots, self._size - 1, self._stride
        slot = number & mask
        while slots[slot * stride] not in (0, number):
            slot = (slot + 1) & mask
        return slot * stride

    def _grow(self) -> None:
        old, stride = self._slots, self._stride
        self._size *= 2
        self._slots = array("Q", bytes(8 * stride * self._size))
        for at in range(0, len(old), stride):
            if number := old[at]:
                slot = self._slot(number)
                self._slots[slot : slot + stride] = old[at : at + stride]


_FEWEST: Final = 1024


def _of_round(msg_id: bytes) -> bytes:
    """Return the id of the round itself for that of a correction."""
    return msg_id.rpartition(b":")[0] if msg_id.count(b":") > 1 else msg_id


def _digest(msg_id: bytes) -> int:
    # A collision is less likely than a bit error of the disk.
    return int.from_bytes(blake2b(msg_id, digest_size=8).digest()) or 1
