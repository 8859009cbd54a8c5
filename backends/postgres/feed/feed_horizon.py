"""Up to which number all rows of the feed are stored, for a reader that knows positions in the write-ahead log. Pure.

Numbers are taken in order and committed in any order, so a stored row says nothing of lower numbers. But when every
transaction that ran while the newest number was read has ended, all rows up to it are committed or never will be; and
when the reader has then stored everything up to the end of the log, it has stored them.
"""

from typing import NamedTuple


class Horizon(NamedTuple):
    """What the server reports at one moment; the number is read before the transactions."""

    newest: int
    """The newest number that was taken."""
    xmin: int
    """All transactions below it have ended, with commits below `lsn`."""
    xmax: int
    """Transactions from it on had not begun."""
    lsn: int


class FeedHorizon:
    """Follows one number at a time until all rows up to it are stored."""

    def __init__(self) -> None:
        self._number = 0
        self._xmax: int | None = None  # waits for the transactions below it
        self._lsn: int | None = None  # waits for the reader to store everything up to it

    def step(self, now: Horizon, stored_lsn: int) -> int | None:
        """Return the number up to which all rows are stored; None: nothing new is known.

        Args:
            now: What the server reports now.
            stored_lsn: Everything up to it is stored.
        """
        if self._xmax is None:
            self._number, self._xmax = now.newest, now.xmax
            return None
        if self._lsn is None:
            if now.xmin < self._xmax:
                return None
            self._lsn = now.lsn
        if stored_lsn < self._lsn:
            return None
        self._xmax = self._lsn = None
        return self._number
