"""The offset of a replay: file, line and pass. The publisher confirms it, and a state file stores it."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Pass:
    """One time through the whole recording."""

    number: int = 0
    shift_ms: int = 0
    """Added to the times of its rounds, so that each pass of a loop has later times."""
    first_ms: int | None = None
    """The time of its first round, as recorded; None until that round has been read."""


class FileOffset(NamedTuple):
    """The offset right after one item of the recording. Offsets of one replay increase."""

    pass_: Pass
    file: int
    """Index of the file in the recording, from 0."""
    line: int
    """Number of lines of that file up to here."""
    played: int
    """Number of rounds up to here, over all passes."""
    newest_ms: int
    """The latest time of a round of this pass, as recorded."""

    @classmethod
    def start(cls) -> "FileOffset":
        return cls(Pass(), 0, 0, 0, 0)

    def next_pass(self, seam_ms: int) -> "FileOffset":
        """Return the start of the next pass, whose first round is `seam_ms` later than the newest round of this one."""
        done = self.pass_
        span_ms = 0 if done.first_ms is None else self.newest_ms - done.first_ms
        return FileOffset(Pass(done.number + 1, done.shift_ms + span_ms + seam_ms), 0, 0, self.played, 0)
