"""The options of `postgres-notify`, and whether the server and the table fit them.

Owns the sentences that an operator reads when they do not fit. Only reads from the database.
"""

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from backends.postgres.mapping.table_mapper import ColumnMissing, check_columns
from backends.postgres.postgres_options import Identifier, PostgresOptions, quote_identifier, quote_literal
from backends.postgres.statements import statement
from backends.postgres.table import OLDEST_VERSION, columns_of, has_unique_order, read_table

if TYPE_CHECKING:
    from backends.postgres.database import Connection

_SETUP: Final = "run as the owner of the table: stream-relay backend setup --backend postgres-notify"


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
    answer_timeout_s: float = Field(default=15.0, ge=0.2, le=600)
    """Limit of one query; after it the reader reconnects."""
    takeover_s: float = Field(default=15.0, ge=4, le=3600)
    """A standby ends the session of a reader that has been silent for so long."""

    @property
    def feed_reader(self) -> str:
        return self.consumer

    @property
    def is_pooled(self) -> bool:
        return not self.notify


async def read_source(connection: "Connection", options: NotifyOptions) -> dict[str, Any]:
    """Describe the server, the table and what `setup` made, with the columns of ``sql/read_table.sql`` and
    ``sql/read_notify_setup.sql``.

    Raises:
        SourceError: There is no such table.
    """
    table = await read_table(connection, options)
    names = {"schema": options.schema_name, "table": options.table_name}
    made = await connection.fetchrow(statement("read_notify_setup", **names))
    return {**table, **dict(made or {})}


def faults_of(source: dict[str, Any], options: NotifyOptions) -> list[str]:
    """Say why rounds cannot be read, one sentence for each fault, with what to run; empty: they can be read."""
    table, order, where = options.quoted_table, quote_identifier(options.order), options.shown_dsn
    columns = source["columns"] or []
    faults = []
    if source["version"] < OLDEST_VERSION:
        faults.append(f"{where} is PostgreSQL {source['version'] // 10000}; 14 is the oldest supported version")
    if source["is_standby"]:
        faults.append(
            f"{where} is a standby, which does not show locks of writers; set the option 'dsn' to the primary"
        )
    faults += _missing_columns(source, options)
    if not source["may_read"]:
        faults.append(f"our role may not read {table}; {_SETUP} --grant-to ROLE")
    if options.order not in columns:
        faults.append(f"table {table} has no column {order} to order rows by; set the option 'order_column'")
    elif not source["is_ordered"]:
        faults.append(
            f"column {order} of {table} is not an integer; set the option 'order_column' to one from a sequence"
        )
    elif not has_unique_order(source, is_named=options.order_column is not None):
        faults.append(_why_not_unique(source, options))
    if not source["has_positions"]:
        faults.append(f"table stream_relay.positions is missing on {where}; {_SETUP}")
    elif not source["may_keep_position"]:
        faults.append(f"our role may not store its offset in stream_relay.positions; {_SETUP} --grant-to ROLE")
    return faults


def warnings_of(source: dict[str, Any], options: NotifyOptions) -> list[str]:
    """Say what works, but not as well as it could, one sentence each."""
    warnings = []
    if options.notify and not source["has_trigger"]:
        warnings.append(
            f"the table has no trigger for notifications: rounds wait up to {options.poll_s:g} s for the next poll; "
            f"{_SETUP}"
        )
    if (source["sequence_cache"] or 1) > 1:
        warnings.append(
            f"the sequence of {options.order} caches {source['sequence_cache']} ids a session, so ids arrive late; "
            f"run: ALTER TABLE {options.quoted_table} ALTER COLUMN {quote_identifier(options.order)} SET CACHE 1;"
        )
    if not source["has_commit_times"]:
        warnings.append(
            "the server keeps no commit times, so timestamps are finished_at; run: "
            "ALTER SYSTEM SET track_commit_timestamp = on; and restart the server"
        )
    return warnings


def _missing_columns(source: dict[str, Any], options: NotifyOptions) -> list[str]:
    try:
        check_columns(options, columns_of(source))
    except ColumnMissing as error:
        return [str(error)]
    return []


def _why_not_unique(source: dict[str, Any], options: NotifyOptions) -> str:
    table, order = options.quoted_table, quote_identifier(options.order)
    if not source["is_partitioned"]:
        return (
            f"column {order} of {table} is not unique, so rows could be missed; run: "
            f"CREATE UNIQUE INDEX CONCURRENTLY ON {table} ({order}); or set the option 'order_column'"
        )
    if source["numbered"] and not source["is_indexed"]:
        return f"column {order} of {table} has no index to order rows by; run: CREATE INDEX ON {table} ({order});"
    what = f"column {order} of the partitioned table {table} can repeat, so rows could be missed"
    if source["numbered"]:
        return f"{what}; if its sequence numbers every row, set the option 'order_column' to {options.order}"
    sequence = f"{quote_identifier(options.schema_name)}.{quote_identifier(f'{options.table_name:.40}_relay_order')}"
    # Every role that inserts rounds needs the sequence from then on; without the grant its INSERT would fail.
    return (
        f"{what}; run: CREATE SEQUENCE {sequence}; GRANT USAGE ON SEQUENCE {sequence} TO PUBLIC; "
        f"ALTER TABLE {table} ADD COLUMN relay_order bigint NOT NULL DEFAULT nextval({quote_literal(sequence)}); "
        f"CREATE INDEX ON {table} (relay_order); and set the option 'order_column' to relay_order"
    )
