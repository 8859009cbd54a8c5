"""What the log holds, and which rounds of it are gone: values, and the event that clients get. Pure."""

from enum import StrEnum
from typing import NamedTuple

from rounds import Cursor


class GapReason(StrEnum):
    """Why rounds between two cursors are gone."""

    EXPIRED = "expired"  # older than the log keeps rounds
    REBUILT = "rebuilt"  # the cursor is of an earlier log; the log was rebuilt
    DELETED = "deleted"  # somebody deleted them from the middle of the log
    AHEAD = "ahead"  # the cursor is after the log's end: the log lost its tail


class Gap(NamedTuple):
    """Rounds after `begin` up to and including `end` are gone, or may be."""

    begin: Cursor
    end: Cursor
    reason: GapReason

    def event(self) -> dict[str, object]:
        """The gap as an event for clients."""
        return {"event": "gap", "from": str(self.begin), "to": str(self.end), "reason": self.reason}


class Bounds(NamedTuple):
    """What the log holds: sequences from `first` to `head`; ``first == head + 1`` when it is empty."""

    epoch: str
    first: int
    head: int

    def at(self, sequence: int) -> Cursor:
        """The cursor of a sequence of this log."""
        return Cursor(self.epoch, sequence)
