"""Keep our offset in one table: which rows are given out, what the log has of them, and what the server is told.

Pure: no I/O, no clock. Owns the promise that the offset never passes a row that the log does not have, and that a first
start "now" gives out nothing that was there before. Which rows are new is decided in `frontier`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from backends.postgres.notify.frontier import MAX_ID, MIN_ID, Frontier


class NotifyOffset(NamedTuple):
    """An offset in the table. Positions grow."""

    number: int
    """How many rows were read by this process up to here."""
    safe: int
    """Every row up to this id was read at or before this offset."""


class TableOffset:
    """How far one process is with one table, over any number of connections."""

    def __init__(self, *, lookback_ids: int) -> None:
        self.frontier = Frontier(0)
        self.kept = 0
        """Up to which id everything is stored, as the server was told last."""
        self._lookback_ids = lookback_ids
        self._is_begun = False
        self._began_at: int | None = None  # the newest id at a first start "now"
        self._old_to: int | None = None  # up to this id, what the first scan finds was there before that
        self._read = 0  # rows given out
        self._safe_given = 0
        self._confirmed = NotifyOffset(0, 0)

    # --- beginning ----------------------------------------------------------------------------------------------

    def pass_over(self, newest: int | None) -> None:
        """Give out nothing that the first scan finds up to `newest`, which is visible now; None: do."""
        self._began_at = self._old_to = newest

    def is_behind(self, safe: int) -> bool:
        """Whether to `begin`, the server saying `safe`: the first time, or another process has read on meanwhile."""
        return not self._is_begun or safe > max(self.kept, self.frontier.safe)

    def begin(self, safe: int, *, lowest: int) -> None:
        """Begin after id `safe`; ids up to `lowest` are never asked for."""
        self.frontier = Frontier(safe, lowest=lowest, lookback=self._lookback_ids)
        self._is_begun = True

    # --- reading ------------------------------------------------------------------------------------------------

    def see(self, ids: Sequence[int], *, is_cut: bool) -> set[int]:
        """Take note of what a scan found, in ascending order; return which of it to give out.

        `is_cut`: the scan ended at its limit, and says nothing of what is beyond the last id.
        """
        news = set(self.frontier.see(ids, up_to=ids[-1] if is_cut else MAX_ID))
        if (old_to := self._old_to) is not None:
            news = {number for number in news if number > old_to}
            if not is_cut:
                self._old_to = None
        return news

    def give_out(self, number: int) -> NotifyOffset:
        """Return the offset of the row with this id, which is the next to be given out."""
        self._read += 1
        self._safe_given = max(self._safe_given, min(number, self.frontier.safe))
        return NotifyOffset(self._read, self._safe_given)

    def given_out(self) -> None:
        """Take note that all that was seen is given out."""
        self._safe_given = max(self._safe_given, self.frontier.safe)

    # --- keeping ------------------------------------------------------------------------------------------------

    def confirm(self, offset: NotifyOffset) -> None:
        """Take note that everything up to `offset` is stored."""
        self._confirmed = max(self._confirmed, offset)

    @property
    def safe(self) -> int:
        """Up to where everything is stored; what died or was passed over counts once all that was given out is."""
        if self._confirmed.number == self._read and self._old_to is None:
            return max(self.kept, self.frontier.safe)
        return max(self.kept, self._confirmed.safe)

    @property
    def lowest(self) -> int:
        """Up to which id nothing needs to be looked at any more, as far as `safe` tells; `MIN_ID`: as before.

        Beyond the rows that a first start passed over, they need not be told from new ones any more.
        """
        return self._began_at if self._began_at is not None and self.safe >= self._began_at else MIN_ID
