"""How far a replay has come: what the publisher confirms, and what a state file keeps."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(slots=True)
class Pass:
    """One time through the whole recording."""

    number: int = 0
    shift_ms: int = 0
    """What is added to the times of its rounds when a loop plays them again."""
    first_ms: int | None = None
    """The time of its first round, as recorded; None until that has been read."""


class FileOffset(NamedTuple):
    """The offset right after one item of the recording. Those of one replay grow."""

    pass_: Pass
    file: int
    """Which of the recording's files, counted from 0."""
    line: int
    """Lines of that file that are done with."""
    played: int
    """Rounds played up to here, over all passes."""
    newest_ms: int
    """The latest time of a round of this pass, as recorded."""

    @classmethod
    def start(cls) -> "FileOffset":
        return cls(Pass(), 0, 0, 0, 0)

    def next_pass(self, seam_ms: int) -> "FileOffset":
        """The start of the pass after this one, `seam_ms` after its newest round."""
        done = self.pass_
        span_ms = 0 if done.first_ms is None else self.newest_ms - done.first_ms
        return FileOffset(Pass(done.number + 1, done.shift_ms + span_ms + seam_ms), 0, 0, self.played, 0)
