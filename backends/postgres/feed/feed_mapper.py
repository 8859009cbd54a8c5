"""Turn rows of the feed into what follows from them for their rounds.

Pure. A row of the feed holds one change of a row of another table, whose own mapper decides what it means. Owns the
form of the rows: JSON objects of text by column, as ``sql/create_feed_function.sql`` writes them.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

import msgspec

from backends.contract import Rejected
from backends.postgres.feed.feed_table import FEED_COLUMNS, FEED_TABLE
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.json_documents import Row
from backends.postgres.mapping.row_changes import Meaning, Outcome, changes_of
from backends.postgres.mapping.table_mapper import RAW_BYTES, RowState, TableMapper
from backends.postgres.mapping.text_forms import finished_at_of
from backends.postgres.mapping.unreadable_rows import UnreadableRows
from rounds import Catalogue, Round

P = TypeVar("P")

_VALUES: Final = msgspec.json.Decoder(dict[str, str | None])
_SETUP: Final = "run: stream-relay backend setup --feed"
_REMEMBERED: Final = 100_000
"""Limit of remembered rounds that were reopened while the log takes no corrections."""


class FeedTables:
    """The captured tables, as mappers of the feed share them."""

    def __init__(self, *, corrections: bool) -> None:
        self.mappers: Mapping[str, TableMapper] = {}
        """By `TableOptions.source`. Rows of other tables are of another reader."""
        self.corrections = corrections
        self._reopened: OrderedDict[tuple[str, int], None] = OrderedDict()
        self.unreadable = UnreadableRows()
        """The rounds whose rows are rejected now."""

    def reopen(self, round_: Round) -> None:
        """Remember a round that is no longer finished: without corrections it is not sent again."""
        self._reopened[round_.game_slug, round_.round_id] = None
        if len(self._reopened) > _REMEMBERED:
            self._reopened.popitem(last=False)

    def was_reopened(self, round_: Round) -> bool:
        return bool(self._reopened) and (round_.game_slug, round_.round_id) in self._reopened


class FeedMapper(TableMapper):
    """Reads rows of the feed with the mappers of the captured tables."""

    def __init__(self, tables: FeedTables, catalogue: Catalogue, columns: Sequence[Column] = FEED_COLUMNS) -> None:
        """Find the columns of the feed; errors as of `TableMapper`."""
        super().__init__(FEED_TABLE, catalogue, columns)
        self._tables = tables
        self._seq, self._source, self._old, self._new, self._error, self._written_at = map(
            self.columns.index, ("seq", "source", "old", "new", "error", "written_at")
        )

    def state(self, row: Row) -> RowState:
        """Say whether a row is of one of our tables."""
        return RowState.FINISHED if row[self._source] in self._tables.mappers else RowState.OTHER

    def outcomes(self, row: Row, timestamp_ms: int | None) -> tuple[Outcome, ...]:
        """Say what follows from one row, in the order in which it has to be published: rounds, corrections, rejects.

        Args:
            row: The values of `columns`.
            timestamp_ms: When the row was committed, Unix milliseconds; None: the server does not know it, and the
                time at which the row was written is used.

        Raises:
            UnknownGameKey: The table of games has to be read again.
        """
        tables = self._tables
        mapper = tables.mappers.get(row[self._source] or "")
        if mapper is None:
            return (Outcome(Meaning.OTHER),)
        if (error := row[self._error]) is not None:
            return (Outcome(Meaning.REJECTED, None, row, error),)
        try:
            old, new = self._row(mapper, row[self._old]), self._row(mapper, row[self._new])
        except _ColumnNotCopied as missing:
            reason = f"the triggers of {mapper.table.table} do not copy column {str(missing)!r}; {_SETUP}"
            return (Outcome(Meaning.REJECTED, None, row, reason),)
        when_ms = self._written_ms(row) if timestamp_ms is None else timestamp_ms
        taken = []
        changes = changes_of(mapper, old, new, when_ms, corrections=tables.corrections, unreadable=tables.unreadable)
        for outcome in changes:
            match outcome.meaning:
                case Meaning.REOPENED if outcome.round is not None:
                    tables.reopen(outcome.round)
                case Meaning.ROUND if outcome.round is not None and tables.was_reopened(outcome.round):
                    pass
                case Meaning.REJECTED:
                    taken.append(outcome._replace(row=row))
                case _:
                    taken.append(outcome)
        return tuple(taken)

    def reject(self, row: Row, reason: str, offset: P) -> Rejected[P]:
        """Describe a row by the row of the captured table, if it holds one."""
        mapper = self._tables.mappers.get(row[self._source] or "")
        held = row[self._old] if row[self._new] is None else row[self._new]
        if mapper is not None and held is not None:
            try:
                return mapper.reject(self._row(mapper, held) or (), reason, offset)
            except (_ColumnNotCopied, msgspec.DecodeError):  # the latter where text is not in the encoding
                pass
        key = f"{row[self._source]!s:.64}:feed:{row[self._seq]}"
        return Rejected(key, reason, (held or "").encode()[:RAW_BYTES], offset)

    def _written_ms(self, row: Row) -> int:
        return int(datetime.fromisoformat(finished_at_of(row[self._written_at])).timestamp() * 1000)

    @staticmethod
    def _row(mapper: TableMapper, text: str | None) -> Row | None:
        if text is None:
            return None
        values = _VALUES.decode(text)
        try:
            return [values[column] for column in mapper.columns]
        except KeyError as missing:
            raise _ColumnNotCopied(missing.args[0]) from None


class _ColumnNotCopied(Exception):
    """The triggers were made for another mapping."""
