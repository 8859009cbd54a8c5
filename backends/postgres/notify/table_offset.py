"""Track the offset in one table: which rows are yielded, which of them are stored, and what the server keeps.

Pure: no I/O, no clock. Owns the promise that the kept offset never passes a row that the log does not have, and that a
first start with ``start = "now"`` yields no row that existed before. Which rows are new is decided in `frontier`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from backends.postgres.notify.frontier import MAX_ID, MIN_ID, Frontier


class NotifyOffset(NamedTuple):
    """An offset in the table. Offsets of one process grow."""

    number: int
    """Number of rows that this process has yielded, up to here."""
    safe: int
    """Every row up to this id was yielded at or before this offset."""


class TableOffset:
    """How far one process has read one table, over any number of connections."""

    def __init__(self, *, lookback_ids: int) -> None:
        self.frontier = Frontier(0)
        self.kept = 0
        """The id up to which everything is stored, as last written to the server."""
        self._lookback_ids = lookback_ids
        self._is_begun = False
        self._began_at: int | None = None  # the newest id at a first start "now"
        self._old_to: int | None = None  # rows up to this id in the first scan existed before the first start
        self._yielded = 0  # number of rows
        self._safe_yielded = 0
        self._confirmed = NotifyOffset(0, 0)

    # --- beginning ----------------------------------------------------------------------------------------------

    def skip_existing(self, newest: int | None) -> None:
        """Skip the rows up to `newest` that the first scan finds, since they are visible now; None: skip none."""
        self._began_at = self._old_to = newest

    def is_behind(self, safe: int) -> bool:
        """Whether to `begin` with the `safe` id of the server: at first, or if another process has read further."""
        return not self._is_begun or safe > max(self.kept, self.frontier.safe)

    def begin(self, safe: int, *, lowest: int) -> None:
        """Begin after id `safe`; ids up to `lowest` are never scanned."""
        self.frontier = Frontier(safe, lowest=lowest, lookback=self._lookback_ids)
        self._is_begun = True

    # --- reading ------------------------------------------------------------------------------------------------

    def record_scan(self, ids: Sequence[int], *, is_cut: bool) -> set[int]:
        """Record the ids of a scan, in ascending order; return those whose rows to yield.

        `is_cut`: the scan ended at its limit, and did not cover ids above the last one.
        """
        news = set(self.frontier.record(ids, up_to=ids[-1] if is_cut else MAX_ID))
        if (old_to := self._old_to) is not None:
            news = {number for number in news if number > old_to}
            if not is_cut:
                self._old_to = None
        return news

    def next_offset(self, number: int) -> NotifyOffset:
        """Return the offset of the row with this id, which is yielded next."""
        self._yielded += 1
        self._safe_yielded = max(self._safe_yielded, min(number, self.frontier.safe))
        return NotifyOffset(self._yielded, self._safe_yielded)

    def mark_all_yielded(self) -> None:
        """Record that all rows of the last scan were yielded."""
        self._safe_yielded = max(self._safe_yielded, self.frontier.safe)

    # --- keeping ------------------------------------------------------------------------------------------------

    def confirm(self, offset: NotifyOffset) -> None:
        """Record that everything up to `offset` is stored."""
        self._confirmed = max(self._confirmed, offset)

    @property
    def safe(self) -> int:
        """The id up to which everything is stored. Once all yielded rows are stored, closed holes count too."""
        if self._confirmed.number == self._yielded and self._old_to is None:
            return max(self.kept, self.frontier.safe)
        return max(self.kept, self._confirmed.safe)

    @property
    def lowest(self) -> int:
        """The id up to which nothing needs to be scanned again once `safe` is kept; `MIN_ID`: as before.

        Once `safe` has passed the rows that a first start skipped, they need not be distinguished from new rows.
        """
        return self._began_at if self._began_at is not None and self.safe >= self._began_at else MIN_ID
