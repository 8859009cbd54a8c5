"""Decide whether the ids of a table have begun again, and which rows are new then. Pure: no I/O, no clock.

Ids only grow: that is what reading by id relies on. ``TRUNCATE … RESTART IDENTITY``, a sequence that was set back or
that cycles, and a table of the same name all break it, and rows with lower ids would be passed over in silence. So the
table, its sequence and the newest id are looked at each second, and compared with the look before, which is stored
beside the offset. Why so: docs/adr/0040-unfinished-rows-are-stored.md
"""

from enum import Enum
from typing import NamedTuple, Self

import msgspec


class Sample(NamedTuple):
    """A row that was read: its id, and the round it became."""

    number: int
    game: str
    round_id: int


class TableLook(msgspec.Struct, frozen=True):
    """What a table was like at one moment, as it is stored beside the offset."""

    relation: int
    """The OID of the table."""
    sequence: str | None
    """The OID of the sequence of the ids, and of its file, which a restart replaces; None: there is no sequence."""
    last_value: int | None
    """The last value of the sequence; 0: it was never used; None: there is no sequence, or we may not see it."""
    oldest_xid: str
    """The oldest transaction that was not finished; all rows of it and of later ones are newer than this look."""
    children: tuple[int, ...] = ()
    """The OIDs of its partitions and children."""
    is_capped: bool = False
    """Whether rows with ids of before are above the last value of the sequence."""
    sample: Sample | None = None

    @property
    def identity(self) -> tuple[int, str | None]:
        """What another table, another sequence, or a restart of the sequence changes."""
        return self.relation, self.sequence

    def to_text(self) -> str:
        return msgspec.json.encode(self).decode()

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """Read what `to_text` wrote; None for anything else."""
        try:
            return msgspec.json.decode(text or "null", type=cls)
        except msgspec.DecodeError:
            return None


class NewRows(NamedTuple):
    """Where the rows begin that are newer than a look, all at the same moment; None: there is no such row."""

    lowest_new: int | None
    """The lowest id of them."""
    highest_old: int | None
    """The highest id below it of a row that is not newer."""
    lowest_above: int | None = None
    """The lowest id above those that were looked at."""


class Doubt(Enum):
    """What a look says of the ids."""

    NONE = "they grow"
    SEQUENCE = "the sequence went back"
    NEWEST = "the newest id is lower than the newest that was read"
    OBJECTS = "the table or its sequence was replaced or restarted"  # also by harmless statements


def doubt_of(before: TableLook | None, look: TableLook, newest: int | None, top: int) -> Doubt:
    """Judge a look.

    Args:
        before: The look before; None: there is none.
        look: The look now.
        newest: The newest visible id now; None: the table is empty.
        top: The newest id that was read. If it was deleted, there is no doubt while the sequence is above it.
    """
    last, last_before = look.last_value, None if before is None else before.last_value
    if last is not None and last_before is not None and last < last_before and last < top:
        return Doubt.SEQUENCE
    if before is not None and before.identity != look.identity:
        return Doubt.OBJECTS
    # A sequence that we may not see is taken to continue while it is the same one.
    is_numbered = look.sequence is not None if last is None else last >= top
    if top > (newest or 0) and not is_numbered:
        return Doubt.NEWEST
    return Doubt.NONE


def floor_of(rows: NewRows, top: int) -> int:
    """Return the id after which to read, once ids have begun again; `top` is the newest id that was read.

    Ids between the old rows and the new ones are read too: their transactions may be open.
    """
    beginning = min(0, 0 if rows.lowest_new is None else rows.lowest_new - 1)
    return min(beginning if rows.highest_old is None else rows.highest_old, top)
