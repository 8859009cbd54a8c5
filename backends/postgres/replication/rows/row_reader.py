"""Read the changes of one table's rows as pgoutput sends them: which values, and what the change means.

Pure. What a change means for a round is in `backends.postgres.mapping.row_changes`; here is which changes are worth
asking, and what to do without the old row. Why: docs/adr/0035-the-transition-is-in-the-old-row.md
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from backends.postgres.encodings import readable, why_not_text
from backends.postgres.mapping.game_slugs import UnknownGameKey
from backends.postgres.mapping.json_documents import Row
from backends.postgres.mapping.row_changes import Meaning, Outcome, changes_of
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.unreadable_rows import UnreadableRows
from backends.postgres.mapping.value_path import ValuePath
from backends.postgres.replication.protocol.pgoutput import Delete, Insert, InvalidMessage, Update
from rounds import InvalidRound, Round

Values = Sequence[bytes | None]

_REMEMBERED: Final = 100_000
"""Limit of remembered rounds that were reopened while the log takes no corrections."""


class Wanted(NamedTuple):
    """What is read of a table besides its inserts."""

    updates: bool
    """Whether its rows become rounds by an UPDATE, or may be corrected."""
    deletes: bool
    """Whether a deleted row voids its round."""
    unfinished_reason: str = ""
    """Why an unfinished row cannot become a round later: no update of it will come. Empty: one will."""
    rejects_unknown: bool = False
    """Whether a changed row without its old version is rejected, and does not stop capture."""


INSERTS_ONLY: Final = Wanted(updates=False, deletes=False)


@dataclass(slots=True)
class Counters:
    """Rows that made no round, since the process has started."""

    unfinished: int = 0
    other: int = 0
    reopened: int = 0


class OldRowMissing(Exception):
    """An update or delete came without the old row, so that nobody knows whether the round was finished before."""

    def __init__(self, relation: str, quoted_table: str) -> None:
        super().__init__(relation, quoted_table)
        self.relation, self.quoted_table = relation, quoted_table

    def __str__(self) -> str:
        return f"a row of {self.relation} was changed while the replica identity of it or its partition was not FULL"


class Reopened:
    """The rounds that are no longer finished, so that the row is not sent again when it is finished again."""

    def __init__(self, limit: int = _REMEMBERED) -> None:
        self._keys: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._limit = limit
        self.unreadable = UnreadableRows()
        """The rounds whose rows are rejected now."""

    def add(self, round_: Round) -> None:
        self._keys[round_.game_slug, round_.round_id] = None
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)

    def __contains__(self, round_: Round) -> bool:
        return (round_.game_slug, round_.round_id) in self._keys if self._keys else False


class RowReader:
    """Reads the changes of one relation: a table, or a child of it."""

    def __init__(
        self,
        mapper: TableMapper,
        columns: Sequence[str],
        wanted: Wanted,
        *,
        name: str,
        corrections: bool,
        codec: str,
        counters: Counters,
        reopened: Reopened,
    ) -> None:
        """Prepare for rows with these columns; `name` is the relation's own, for errors."""
        self.mapper = mapper
        self.wanted = wanted
        self._indexes = mapper.indexes
        self._width = len(columns)
        self._name = name
        self._codec = codec
        self._corrections = corrections
        self._counters = counters
        self._reopened = reopened
        table = mapper.table
        paths = [table.round_id_column, *([] if table.game_slug else [table.game_slug_column])]
        places = [ValuePath.parse(path).place(columns) for path in paths]
        self._key = [columns.index(place.column) for place in places if place is not None]
        self.is_plain = (
            type(self).inserted is RowReader.inserted
            and table.rows_when is None
            and table.voided_when is None
            and table.finished_when is None
            and not wanted.updates
        )

    # --- changes ------------------------------------------------------------------------------------------------

    def inserted(self, insert: Insert, timestamp_ms: int) -> Sequence[Outcome]:
        """Say what a new row means.

        Raises:
            InvalidMessage: The row is not one of this table.
            UnknownGameKey: The table of games has to be read again.
        """
        row, fault = self._pick(insert.values)
        if fault:
            return (Outcome(Meaning.REJECTED, None, row, fault),)
        if not self.is_plain:
            return self._taken(changes_of(self.mapper, None, row, timestamp_ms, corrections=self._corrections), row)
        try:
            round_ = self.mapper.to_round(row, timestamp_ms)
        except UnknownGameKey:
            raise
        except InvalidRound as error:
            return (_rejected(row, error, self.wanted.unfinished_reason),)
        return (Outcome(Meaning.ROUND, round_),)

    def plain_round(self, values: Values, timestamp_ms: int) -> Round | None:
        """Return the round of a new row of a table with `is_plain`; None: `inserted` says what is wrong with it.

        Raises:
            UnknownGameKey: The table of games has to be read again.
        """
        if len(values) != self._width:
            return None
        codec = self._codec
        try:
            row = [None if (value := values[index]) is None else value.decode(codec) for index in self._indexes]
            return self.mapper.to_round(row, timestamp_ms)
        except UnknownGameKey:
            raise
        except (InvalidRound, UnicodeDecodeError):
            return None

    def updated(self, update: Update, timestamp_ms: int) -> Sequence[Outcome]:
        """Say what a changed row means.

        Raises:
            OldRowMissing: It may have become a round just now, or long ago.
            InvalidMessage, UnknownGameKey: As for `inserted`.
        """
        return self.replaced(update.old, update.values, timestamp_ms)

    def replaced(self, old: Values | None, new: Values, timestamp_ms: int) -> Sequence[Outcome]:
        """Say what the new version of a row means; errors as for `updated`."""
        row, fault = self._pick(new)
        if old is None:
            return self._without_old(row, timestamp_ms)
        before, old_fault = self._pick(old)
        if row == before and fault == old_fault:
            return ()
        return self._changed(before, row, timestamp_ms, old_fault, fault)

    def deleted(self, old: Values | None, timestamp_ms: int) -> Sequence[Outcome]:
        """Say what a deleted row means; errors as for `updated`."""
        if not self.wanted.deletes:
            return ()
        if old is None:
            raise OldRowMissing(self._name, self.mapper.table.quoted_table)
        row, fault = self._pick(old)
        return self._changed(row, None, timestamp_ms, fault, "")

    def is_moved(self, delete: Delete, insert: Insert) -> bool:
        """Whether an update has moved a row to another partition: it comes as a delete, and at once as an insert."""
        old, new = delete.old, insert.values
        if old is None or delete.relation != insert.relation or len(old) != len(new):
            return False
        return all(old[index] == new[index] for index in self._key)

    # --- inside -------------------------------------------------------------------------------------------------

    def _pick(self, values: Values) -> tuple[Row, str]:
        """Decode the values that are read; return them, and why they cannot be read."""
        if len(values) != self._width:
            raise InvalidMessage(f"a row of {len(values)} values in a table of {self._width} columns")
        codec = self._codec
        try:
            return [None if (value := values[index]) is None else value.decode(codec) for index in self._indexes], ""
        except UnicodeDecodeError as error:
            picked = [values[index] for index in self._indexes]
            row = [None if value is None else readable(value, codec) for value in picked]
            return row, why_not_text(error, codec)

    def _changed(
        self, old: Row, new: Row | None, timestamp_ms: int, old_fault: str, new_fault: str
    ) -> Sequence[Outcome]:
        outcomes = changes_of(
            self.mapper,
            old,
            new,
            timestamp_ms,
            corrections=self._corrections,
            unreadable=self._reopened.unreadable,
            old_fault=old_fault,
            new_fault=new_fault,
        )
        return self._taken(outcomes, old if new is None else new)

    def _without_old(self, row: Row, timestamp_ms: int) -> Sequence[Outcome]:
        outcomes = changes_of(self.mapper, None, row, timestamp_ms, corrections=self._corrections)
        if not (self._corrections or any(outcome.meaning is Meaning.ROUND for outcome in outcomes)):
            return ()
        missing = OldRowMissing(self._name, self.mapper.table.quoted_table)
        if self.wanted.rejects_unknown:
            return (Outcome(Meaning.REJECTED, None, row, f"{missing}, so it may be a round already"),)
        raise missing

    def _taken(self, outcomes: Sequence[Outcome], row: Row) -> Sequence[Outcome]:
        """Count what makes no round, and leave it out."""
        taken = []
        for outcome in outcomes:
            match outcome.meaning:
                case Meaning.ROUND:
                    if outcome.round is None or outcome.round not in self._reopened:
                        taken.append(outcome)
                case Meaning.CORRECTION | Meaning.REJECTED:
                    taken.append(outcome)
                case Meaning.UNFINISHED:
                    self._counters.unfinished += 1
                    if self.wanted.unfinished_reason:
                        taken.append(Outcome(Meaning.REJECTED, None, row, self.wanted.unfinished_reason))
                case Meaning.OTHER:
                    self._counters.other += 1
                case Meaning.REOPENED:
                    self._counters.reopened += 1
                    if outcome.round is not None:
                        self._reopened.add(outcome.round)
        return taken


def _rejected(row: Row, error: InvalidRound, reason: str) -> Outcome:
    return Outcome(
        Meaning.REJECTED, None, row, reason if reason and "finished_at is NULL" in str(error) else str(error)
    )
