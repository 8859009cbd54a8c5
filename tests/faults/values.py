"""What the judges compare: commits, entries of the log, and what clients received. Pure values."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

Extras = dict[str, Any]


class Key(NamedTuple):
    """What makes a round one and the same."""

    game: str
    round_id: int


@dataclass(frozen=True, slots=True)
class Commit:
    """A round that the database has."""

    number: int  # the place in the order of commits, from 1; the rounds of one transaction share it
    key: Key
    extras: Extras


@dataclass(frozen=True, slots=True)
class Entry:
    """A round as it is in the log, or as a client received it."""

    sequence: int
    key: Key
    extras: Extras


@dataclass(frozen=True, slots=True)
class Gap:
    """A client was sent that the rounds after one sequence, up to and including another, are gone."""

    after: int
    to: int
    reason: str


@dataclass(frozen=True, slots=True)
class Place:
    """A client was sent its place, without a round: it has everything up to here."""

    sequence: int


Item = Entry | Gap | Place


@dataclass
class LogRecord:
    """Every entry that the log has had, read before it could be removed."""

    epoch: str = ""
    entries: dict[int, Entry] = field(default_factory=dict)
    """By sequence, oldest first."""
    purged_to: int = 0
    """Every entry up to here is gone: purged, trimmed or expired."""
    deleted: set[int] = field(default_factory=set)
    """Entries that were removed from the middle of the log."""
    head: int = 0

    def is_gone(self, sequence: int) -> bool:
        return sequence <= self.purged_to or sequence in self.deleted

    def in_order(self) -> Iterable[Entry]:
        """All entries, oldest first."""
        return (self.entries[sequence] for sequence in sorted(self.entries))


@dataclass(frozen=True, slots=True)
class Selection:
    """What a client asked for."""

    games: frozenset[str]
    min_point: float | None = None
    colors: frozenset[str] = frozenset()

    def matches(self, entry: Entry) -> bool:
        """Whether a round is selected; a round without the field of a criterion is not."""
        if entry.key.game not in self.games:
            return False
        point, color = entry.extras.get("point"), entry.extras.get("color")
        if self.min_point is not None and (point is None or float(point) < self.min_point):
            return False
        return not self.colors or color in self.colors


@dataclass
class Chain:
    """What one client received over connections that each continued after its cursor, from one known begin on.

    A client that comes back without a place begins another chain.
    """

    after: int | None
    """The sequence it asked to continue after; None: it asked for live rounds."""
    live_after: int = 0
    """Without `after`: rounds of later commits than this number are due, since the connection was open before them."""
    items: list[Item] = field(default_factory=list)

    @property
    def position(self) -> int:
        """Everything up to this sequence was received, or is known to be gone."""
        position = self.after or 0
        for item in reversed(self.items):
            match item:
                case Gap(to=sequence) | Place(sequence=sequence) | Entry(sequence=sequence):
                    return max(position, sequence)
        return position


@dataclass
class View:
    """What one client asked for, and what it received."""

    name: str
    selection: Selection
    receives_gaps: bool
    chains: list[Chain] = field(default_factory=list)


class Finding(NamedTuple):
    """A broken promise."""

    kind: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.subject}: {self.text}"


SHOWN: Final = 8


def some(values: Iterable[object]) -> str:
    """Show the first few of many values."""
    listed = list(values)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(map(str, listed[:SHOWN])) + more
