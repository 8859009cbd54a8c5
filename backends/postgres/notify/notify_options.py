"""The options of `postgres-notify`."""

from typing import Final, Literal

from pydantic import Field, field_validator

from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import Identifier, PostgresOptions

_NO_CORRECTIONS: Final = (
    "needs the feed or postgres-replication, since postgres-notify sees rows as they are and not how they were; "
    "set up the feed with stream-relay backend setup --feed"
)
_NO_DELETES: Final = (
    "must be 'ignore' for postgres-notify, which does not see deleted rows; use the feed or postgres-replication"
)


class NotifyOptions(PostgresOptions):
    """All options of `postgres-notify`."""

    consumer: Identifier = "stream_relay"
    """Processes with the same consumer are standbys of each other; different logs need different consumers."""
    start: Literal["now", "beginning"] = "now"
    """Where the first start begins. Later starts continue after the last one."""
    notify: bool = True
    """Listen for wake-ups, and use a lock so that one process reads. Off: poll only, as behind a pooler in transaction
    mode."""
    channel: Identifier = "stream_relay"
    """The channel that the trigger notifies."""
    poll_s: float = Field(default=1.0, ge=0.02, le=60)
    """How often to query without a notification: the longest delay of a round whose notification was lost."""
    batch_rows: int = Field(default=2000, ge=1, le=20_000)
    """Rows of one query."""
    lookback_ids: int = Field(default=1000, ge=0, le=1_000_000)
    """How far below the newest id to query again, at each start and twice a minute, for rows that were committed later
    than the locks showed."""
    ahead_rows: int = Field(default=5000, ge=1)
    """How many rows to read above a hole. They are read again after a crash, and the publisher then recognises only
    the newest 10,000 rounds of the log."""
    unfinished_rows: int = Field(default=100_000, ge=1, le=1_000_000)
    """How many unfinished rows of a table to remember, about 200 bytes each. Of more, those with the lowest ids are
    given up."""
    rows_deleted: bool | None = None
    """Whether rows may be deleted before they are read, as those of an outbox: then this backend refuses the table.
    Unset: a table is taken for an outbox if its round id is a member of a JSON document."""
    answer_timeout_s: float = Field(default=15.0, ge=0.2, le=600)
    """Limit of one query; after it the reader reconnects."""
    takeover_s: float = Field(default=15.0, ge=4, le=3600)
    """A standby ends the session of a reader that has been silent for so long."""

    @field_validator("corrections")
    @classmethod
    def _check_corrections(cls, value: bool) -> bool:
        if value:
            raise ValueError(_NO_CORRECTIONS)
        return value

    @field_validator("deletes")
    @classmethod
    def _check_deletes(cls, value: str) -> str:
        if value != "ignore":
            raise ValueError(_NO_DELETES)
        return value

    @field_validator("tables")
    @classmethod
    def _check_deletes_of_tables(cls, value: tuple[TableOptions, ...]) -> tuple[TableOptions, ...]:
        for table in value:
            if table.deletes != "ignore":
                raise ValueError(f"deletes of {table.table} {_NO_DELETES}")
        return value

    @property
    def _reading_of_feed(self) -> dict[str, object]:
        # Nothing was read before it was set up. The INSERT itself takes the number, so no row is later than its lock.
        return {"start": "beginning", "lookback_ids": 0}

    @property
    def feed_reader(self) -> str:
        return self.consumer

    @property
    def is_pooled(self) -> bool:
        return not self.notify
