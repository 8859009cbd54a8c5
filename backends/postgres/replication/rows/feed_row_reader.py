"""Read rows of the feed as pgoutput sends them. Pure."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from backends.postgres.mapping.row_changes import Meaning, Outcome
from backends.postgres.replication.protocol.pgoutput import Insert
from backends.postgres.replication.rows.row_reader import RowReader

if TYPE_CHECKING:
    from backends.postgres.feed.feed_mapper import FeedMapper


class FeedRowReader(RowReader):
    """Reads the feed: each of its rows is a change of a row of another table. Its mapper is a `FeedMapper`."""

    def inserted(self, insert: Insert, timestamp_ms: int) -> Sequence[Outcome]:
        """Say what a row means; errors as of `RowReader.inserted`."""
        row, fault = self._pick(insert.values)
        if fault:
            return (Outcome(Meaning.REJECTED, None, row, fault),)
        return self._taken(cast("FeedMapper", self.mapper).outcomes(row, timestamp_ms), row)
