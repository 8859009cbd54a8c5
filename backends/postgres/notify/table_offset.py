"""Track the offset in one table: which rows are yielded, which of them are stored, and what the server keeps.

Pure: no I/O, no clock. Owns the promise that the kept offset never passes a row that the log does not have, except
unfinished rows, which are stored beside it; and that a first start with ``start = "now"`` yields no row that existed
before. Which rows are new is decided in `frontier`, which of them are asked for again in `unfinished`.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from backends.postgres.notify.frontier import MAX_ID, MIN_ID, Frontier
from backends.postgres.notify.unfinished import Unfinished


class NotifyOffset(NamedTuple):
    """An offset in the tables. Offsets of one process grow."""

    number: int
    """Number of rows that this process has yielded, of all tables, up to here."""
    table: int = 0
    """Index of the table that the row at `number` is in."""
    safe: int = 0
    """Every row of that table up to this id was yielded at or before this offset, or is stored as unfinished."""


class Flow:
    """How many rows one process has yielded, of all its tables, and how many of them are stored in the log."""

    def __init__(self) -> None:
        self.yielded = 0
        self.stored = 0

    def numbers(self, count: int) -> range:
        """Return the numbers of the rows that are yielded next."""
        begin = self.yielded + 1
        self.yielded += count
        return range(begin, begin + count)

    def confirm(self, offset: NotifyOffset) -> None:
        """Record that everything up to `offset` is stored."""
        self.stored = max(self.stored, offset.number)

    def forget(self) -> None:
        """Record that what was yielded and is not stored was discarded: its offsets are not confirmed any more."""
        self.stored = self.yielded


class TableOffset:
    """How far one process has read one table, over any number of connections."""

    def __init__(self, flow: Flow, *, index: int = 0, lookback_ids: int, unfinished_rows: int = 0) -> None:
        """Prepare the table with this `index`; `flow` counts the rows of all tables."""
        self.frontier = Frontier(0)
        self.unfinished = Unfinished(limit=unfinished_rows)
        self.kept = 0
        """The id up to which everything is stored, as last written to the server."""
        self.is_begun = False
        self._flow = flow
        self._index = index
        self._lookback_ids = lookback_ids
        self._unfinished_rows = unfinished_rows
        self._began_at: int | None = None  # the newest id at a first start "now"
        self._old_to: int | None = None  # rows up to this id in the first scan existed before the first start
        self._in_flight: deque[NotifyOffset] = deque()
        self._safe_yielded = 0
        self._safe_stored = 0

    # --- beginning ----------------------------------------------------------------------------------------------

    def skip_existing(self, newest: int | None) -> None:
        """Skip the rows up to `newest` that the first scan finds, since they are visible now; None: skip none."""
        self._began_at = self._old_to = newest

    def is_behind(self, safe: int) -> bool:
        """Whether to `begin` with the `safe` id of the server.

        At first, if another process has read further, or if the server lost what we stored: it was restored.
        """
        return not self.is_begun or safe > max(self.kept, self.frontier.safe) or safe < self.kept

    def begin(self, safe: int, *, lowest: int, unfinished: Sequence[int] = ()) -> None:
        """Begin after id `safe`; ids up to `lowest` are never scanned. `unfinished` are those stored beside it."""
        given_up = self.unfinished.given_up
        self.frontier = Frontier(safe, lowest=lowest, lookback=self._lookback_ids)
        self.unfinished = Unfinished(unfinished, limit=self._unfinished_rows)
        self.unfinished.given_up = given_up
        self.kept = self._safe_yielded = self._safe_stored = safe
        self._in_flight.clear()
        self.is_begun = True

    # --- reading ------------------------------------------------------------------------------------------------

    def record_scan(self, ids: Sequence[int], *, is_cut: bool) -> set[int]:
        """Record the ids of a scan, in ascending order; return those whose rows are new.

        `is_cut`: the scan ended at its limit, and did not cover ids above the last one.
        """
        news = set(self.frontier.record(ids, up_to=ids[-1] if is_cut else MAX_ID))
        if (old_to := self._old_to) is not None:
            news = {number for number in news if number > old_to}
            if not is_cut:
                self._old_to = None
        return news

    def offsets_of(self, ids: Sequence[int], numbers: Sequence[int]) -> list[NotifyOffset]:
        """Return the offsets of rows of one scan, which are yielded next, in this order.

        Args:
            ids: Their ids. Those that were unfinished when they were read first may be among them.
            numbers: Those of the rows, from `Flow.numbers`.
        """
        known = {number for number in ids if number in self.unfinished} if len(self.unfinished) else set()
        safe, unread = [0] * len(ids), self.frontier.safe
        # A row may be followed by one with a lower id, which is not yielded yet.
        for index in range(len(ids) - 1, -1, -1):
            safe[index] = unread
            if (number := ids[index]) <= unread and number not in known:
                unread = number - 1
        offsets, yielded, table = [], self._safe_yielded, self._index
        for number, count, unread in zip(ids, numbers, safe, strict=True):
            if unread > yielded:
                yielded = unread
            offsets.append(NotifyOffset(count, table, yielded))
            if number in known:
                known.discard(number)
                self.unfinished.finish(number, yielded_as=count)
        self._safe_yielded = yielded
        self._in_flight.extend(offsets)
        return offsets

    def mark_all_yielded(self) -> None:
        """Record that all rows of the last scan were yielded."""
        self._safe_yielded = max(self._safe_yielded, self.frontier.safe)

    # --- keeping ------------------------------------------------------------------------------------------------

    @property
    def safe(self) -> int:
        """The id up to which everything is stored. Once all yielded rows are stored, closed holes count too."""
        stored, in_flight = self._flow.stored, self._in_flight
        while in_flight and in_flight[0].number <= stored:
            self._safe_stored = in_flight.popleft().safe
        self.unfinished.confirm(stored)
        if not in_flight and self._old_to is None:
            return max(self.kept, self.frontier.safe)
        return max(self.kept, self._safe_stored)

    @property
    def lowest(self) -> int:
        """The id up to which nothing needs to be scanned again once `safe` is kept; `MIN_ID`: as before.

        Once `safe` has passed the rows that a first start skipped, they need not be distinguished from new rows.
        """
        return self._began_at if self._began_at is not None and self.safe >= self._began_at else MIN_ID
