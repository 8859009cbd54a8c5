"""Turn rows of the feed into what follows from them for their rounds.

Pure. A row of the feed holds one change of a row of another table, whose own mapper decides what it means. Owns the
form of the rows: JSON objects of text by column, as ``sql/create_feed_function.sql`` writes them.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from backends.contract import Rejected
from backends.postgres.feed.feed_table import FEED_COLUMNS, FEED_TABLE
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.json_documents import Row
from backends.postgres.mapping.row_changes import Meaning, Outcome, changes_of
from backends.postgres.mapping.table_mapper import RAW_BYTES, RowState, TableMapper
from rounds import Catalogue

P = TypeVar("P")

_VALUES: Final = msgspec.json.Decoder(dict[str, str | None])
_SETUP: Final = "run: stream-relay backend setup --feed"


class FeedMapper(TableMapper):
    """Reads rows of the feed with the mappers of the captured tables."""

    def __init__(self, catalogue: Catalogue, columns: Sequence[Column] = FEED_COLUMNS) -> None:
        super().__init__(FEED_TABLE, catalogue, columns)
        self.mappers: Mapping[str, TableMapper] = {}
        """Those of the captured tables, by `TableOptions.source`. Rows of other tables are of another reader."""
        self._seq, self._source, self._old, self._new, self._error = map(
            self.columns.index, ("seq", "source", "old", "new", "error")
        )

    def state(self, row: Row) -> RowState:
        """Say whether a row is of one of our tables."""
        return RowState.FINISHED if row[self._source] in self.mappers else RowState.OTHER

    def outcomes(self, row: Row, timestamp_ms: int, *, corrections: bool) -> tuple[Outcome, ...]:
        """Say what follows from one row, in the order in which it has to be published.

        Args:
            row: The values of `columns`.
            timestamp_ms: When the row was committed, Unix milliseconds.
            corrections: See `changes_of`.

        Raises:
            UnknownGameKey: The table of games has to be read again.
        """
        mapper = self.mappers.get(row[self._source] or "")
        if mapper is None:
            return (Outcome(Meaning.OTHER),)
        if (error := row[self._error]) is not None:
            return (Outcome(Meaning.REJECTED, None, row, error),)
        try:
            old, new = self._row(mapper, row[self._old]), self._row(mapper, row[self._new])
        except _ColumnNotCopied as missing:
            reason = f"the triggers of {mapper.table.table} do not copy column {str(missing)!r}; {_SETUP}"
            return (Outcome(Meaning.REJECTED, None, row, reason),)
        found = changes_of(mapper, old, new, timestamp_ms, corrections=corrections)
        return tuple(outcome if outcome.row is None else outcome._replace(row=row) for outcome in found)

    def reject(self, row: Row, reason: str, offset: P) -> Rejected[P]:
        """Describe a row by the row of the captured table, if it holds one."""
        mapper = self.mappers.get(row[self._source] or "")
        held = row[self._old] if row[self._new] is None else row[self._new]
        if mapper is not None and held is not None:
            try:
                return mapper.reject(self._row(mapper, held) or (), reason, offset)
            except _ColumnNotCopied:
                pass
        key = f"{row[self._source]!s:.64}:feed:{row[self._seq]}"
        return Rejected(key, reason, (held or "").encode()[:RAW_BYTES], offset)

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
