"""The options of `postgres-notify`."""

from typing import Final, Literal, Self

from pydantic import Field, model_validator

from backends.postgres.postgres_options import Identifier, PostgresOptions

_ONLY_FEED: Final = (
    "needs the feed, since postgres-notify sees how rows are and not how they were: run stream-relay backend setup "
    "--feed and set feed = true, or use postgres-replication"
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

    @model_validator(mode="after")
    def _check_changes(self) -> Self:
        """Refuse what only changes of rows show, unless the feed holds them."""
        if self.feed:
            return self
        if self.corrections:
            raise ValueError(f"corrections = true {_ONLY_FEED}")
        for table in self.all_tables:
            if table.deletes != "ignore":
                raise ValueError(f"deletes = {table.deletes!r} of {table.table} {_ONLY_FEED}")
        return self

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
