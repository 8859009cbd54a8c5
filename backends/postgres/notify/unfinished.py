"""Remember rows that were read before they were finished, until they are finished or deleted. Pure: no I/O, no clock.

Such a row is remembered as a hole is, but it needs no lock to wait for: its id is known. The stored offset passes it,
so its id is stored beside the offset. Bounded: of more rows than `limit` those with the lowest ids are given up.
Why so: docs/adr/0040-unfinished-rows-are-stored.md
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

_NEWEST: Final = 500
"""How many of the newest rows are asked for each time: the rounds that run now."""
_SLICE: Final = 2000
"""How many of the other rows are asked for in one `sweep`: a query of a few milliseconds."""


class UnfinishedChanges(NamedTuple):
    """What to change in the ids stored beside the offset."""

    added: list[int]
    removed: list[int]


class GivenUp(NamedTuple):
    """Rows that are not asked for any more, although they may still finish."""

    rows: int
    lowest: int
    highest: int


class Unfinished:
    """The unfinished rows of one table."""

    def __init__(self, ids: Iterable[int] = (), *, limit: int) -> None:
        """Begin with the `ids` that are stored beside the offset; remember at most `limit`."""
        self._ids = sorted(ids)
        self._limit = limit
        self._stored = set(self._ids)
        self._finished: dict[int, int] = {}  # id: the number of its round, until the log has it
        self._in_flight: deque[int] = deque()  # the keys of _finished, by number
        self._changed: set[int] = set()  # ids whose stored state may be wrong
        self._unsure: set[int] = set()  # ids that were sent to be changed, and no answer came yet
        self._swept = 0  # the index that the next sweep begins at
        self.given_up = 0
        """Number of rows given up, ever."""

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, number: int) -> bool:
        index = bisect_left(self._ids, number)
        return index < len(self._ids) and self._ids[index] == number

    def asked(self) -> list[int]:
        """Return the ids of the newest rows, in ascending order."""
        return self._ids[-_NEWEST:]

    def sweep(self) -> list[int]:
        """Return the next of the other ids, in ascending order; repeated calls return all of them, again and again."""
        older = len(self._ids) - _NEWEST
        if older <= 0:
            return []
        begin = self._swept if self._swept < older else 0
        self._swept = min(begin + _SLICE, older)
        return self._ids[begin : self._swept]

    # --- changes ------------------------------------------------------------------------------------------------

    def remember(self, ids: Sequence[int]) -> GivenUp | None:
        """Remember rows; return which were given up for them, None: none were."""
        for number in ids:
            if not self._ids or number > self._ids[-1]:
                self._ids.append(number)
            elif number not in self:
                insort(self._ids, number)
        self._changed.update(ids)
        if (excess := len(self._ids) - self._limit) <= 0:
            return None
        oldest, self._ids = self._ids[:excess], self._ids[excess:]
        self._changed.update(oldest)
        self._swept = max(0, self._swept - excess)
        self.given_up += excess
        return GivenUp(excess, oldest[0], oldest[-1])

    def finish(self, number: int, *, yielded_as: int) -> None:
        """Record that a row is finished, and the number of its round among all that were yielded."""
        self._forget(number)
        self._finished[number] = yielded_as
        self._in_flight.append(number)

    def forget(self, ids: Iterable[int]) -> None:
        """Record that rows were deleted."""
        for number in ids:
            self._forget(number)

    def confirm(self, number: int) -> None:
        """Record that all rounds up to this number are in the log."""
        while self._in_flight and self._finished[self._in_flight[0]] <= number:
            stored = self._in_flight.popleft()
            del self._finished[stored]
            self._changed.add(stored)

    # --- storing ------------------------------------------------------------------------------------------------

    @property
    def has_changes(self) -> bool:
        """Whether `changes` may return something."""
        return bool(self._changed or self._unsure)

    def changes(self, safe: int) -> UnfinishedChanges:
        """Return what has to be stored together with the offset `safe`.

        A row above the offset is read again by its id's range, so it is not stored. A finished one stays stored until
        the log has its round.
        """
        added, removed = [], []
        for number in self._changed | self._unsure:
            is_stored, is_unsure = number in self._stored, number in self._unsure
            if self._is_wanted(number):
                if number <= safe and (is_unsure or not is_stored):
                    added.append(number)
            elif is_unsure or is_stored:
                removed.append(number)
        self._unsure.update(added, removed)
        return UnfinishedChanges(sorted(added), sorted(removed))

    def mark_stored(self, changes: UnfinishedChanges) -> None:
        """Record that `changes` were stored. Until then they are returned again."""
        self._unsure.difference_update(changes.added, changes.removed)
        self._stored.update(changes.added)
        self._stored.difference_update(changes.removed)
        self._changed = {number for number in self._changed if self._is_wanted(number) != (number in self._stored)}

    def _is_wanted(self, number: int) -> bool:
        return number in self._finished or number in self

    def _forget(self, number: int) -> None:
        index = bisect_left(self._ids, number)
        if index < len(self._ids) and self._ids[index] == number:
            del self._ids[index]
            if index < self._swept:
                self._swept -= 1
        self._changed.add(number)
