"""What is read of the log: stored rounds, as bytes that are not parsed yet, and pages of them. Pure."""

from collections.abc import Sequence
from typing import NamedTuple


class LogEntry(NamedTuple):
    """One stored round as the log holds it."""

    sequence: int
    game: str
    data: bytes


class Page(NamedTuple):
    """Entries in log order. All that exist between the first one asked for and the last of them are included.

    Without entries, the log has no round from the sequence asked for on.
    """

    entries: list[LogEntry]
    remaining: int
    """How many more the log holds after the last message that was read: of the game, or of any subject."""
    others: Sequence[tuple[int, int]] = ()
    """Where messages are stored that are no rounds, in log order: the first and the last sequence of each run."""

    @property
    def last(self) -> int:
        """The sequence of the last message that was read, a round or not; 0 when there is none."""
        return max(self.entries[-1].sequence if self.entries else 0, self.others[-1][1] if self.others else 0)


def joined(page: Page, more: Page) -> Page:
    """Return a page and what follows it as one."""
    others = list(page.others)
    for begin, end in more.others:
        add_run(others, begin, end)
    return Page([*page.entries, *more.entries], more.remaining, others)


def shortened(page: Page, limit: int) -> Page:
    """Return the first `limit` entries of a page, and what is before the last of them."""
    entries = page.entries[:limit]
    others = [run for run in page.others if run[1] < entries[-1].sequence]
    return Page(entries, page.remaining + len(page.entries) - limit, others)


def add_run(runs: list[tuple[int, int]], begin: int, end: int) -> None:
    """Add a run of sequences after those that there are; as one with the last, if nothing is between them."""
    if runs and runs[-1][1] + 1 == begin:
        begin, _ = runs.pop()
    runs.append((begin, end))
