"""What `postgres-notify` can be told, and the table as it must be for it.

Owns the sentences an operator reads when server or table do not fit. Asks the database one question, changes nothing.
"""

from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from backends.contract import SourceError
from backends.postgres.options import Identifier, PostgresOptions, quote_identifier, quote_literal
from backends.postgres.statements import statement

if TYPE_CHECKING:
    import asyncpg

SETUP: Final = "run as the owner of the table: stream-relay backend setup --backend postgres-notify"
_OLDEST: Final = 140000


class NotifyOptions(PostgresOptions):
    """Everything that `postgres-notify` can be told."""

    consumer: Identifier = "stream_relay"
    """Processes with the same consumer stand by for each other; different logs need different consumers."""
    order_column: Identifier | None = None
    """A unique integer that grows with every row of the table, by a sequence; unset: that of the round id. Set it where
    ids of rounds are unique within their game only."""
    start: Literal["now", "beginning"] = "now"
    """Where the very first start begins; later ones go on where the last one was."""
    notify: bool = True
    """Listen for wake-ups and stand by for others. Off: poll only, as behind a pooler in transaction mode."""
    channel: Identifier = "stream_relay"
    """The channel that the trigger wakes us on."""
    poll_s: float = Field(default=1.0, ge=0.02, le=60)
    """How often to look without having been woken: the longest that a lost wake-up delays a round."""
    batch_rows: int = Field(default=2000, ge=1, le=20_000)
    """Rows of one query."""
    lookback_ids: int = Field(default=1000, ge=0, le=1_000_000)
    """How far below the newest id to look again, at each start and twice a minute, for rows that came later than the
    rule allows."""
    ahead_rows: int = Field(default=5000, ge=1)
    """How many rows to read beyond a hole. What is beyond comes again after a crash, and only the newest 10,000 rounds
    of the log are recognised then."""
    answer_timeout_s: float = Field(default=15.0, ge=0.2, le=600)
    """A server that does not answer a query for so long is given up and connected to anew."""
    takeover_s: float = Field(default=15.0, ge=4, le=3600)
    """A reader that has not been heard of for so long is ended by the next one."""

    @property
    def order(self) -> str:
        return self.order_column or self.round_id_column

    @property
    def source(self) -> str:
        """The table's name in our own table of positions."""
        return f"{self.schema_name}.{self.table_name}"


def scan_statement(options: NotifyOptions, columns: list[str]) -> str:
    """Write the query that reads what is new; `columns` are those the table has."""
    return _rows_statement("scan_rows", options, columns)


def page_statement(options: NotifyOptions, columns: list[str]) -> str:
    """Write the query that reads the next page of a range; `columns` are those the table has."""
    return _rows_statement("read_page", options, columns)


def _rows_statement(name: str, options: NotifyOptions, columns: list[str]) -> str:
    return statement(
        name,
        schema=options.schema_name,
        table=options.table_name,
        order_column=options.order,
        round_id=options.round_id_column,
        game_slug=options.game_slug_column,
        # Any column will do where there is none: the mapper is not shown it then.
        game_type=game_type_column(options, columns) or options.game_slug_column,
        finished_at=options.finished_at_column,
        extras=options.extras_column,
    )


def game_type_column(options: NotifyOptions, columns: list[str]) -> str | None:
    """Name the column of the type, if there is one."""
    return options.game_type_column or ("game_type" if "game_type" in columns else None)


async def read_source(connection: "asyncpg.Connection[Any]", options: NotifyOptions) -> dict[str, Any]:
    """Ask what server and table are like, as in sql/read_notify_source.sql; raise `SourceError`: there is no table."""
    row = await connection.fetchrow(
        statement(
            "read_notify_source",
            schema=options.schema_name,
            table=options.table_name,
            order_column=options.order,
        )
    )
    if row is None:
        raise SourceError(f"{options.shown_dsn} has no table {options.quoted_table}; set the option 'table'")
    return dict(row)


def faults_of(source: dict[str, Any], options: NotifyOptions) -> list[str]:
    """Say why rounds cannot be read like this, one sentence for each fault, with what to run; empty: they can."""
    table, order, where = options.quoted_table, quote_identifier(options.order), options.shown_dsn
    columns = source["columns"] or []
    wanted = [options.round_id_column, options.game_slug_column, options.finished_at_column, options.extras_column]
    wanted += [options.game_type_column] if options.game_type_column else []
    missing = [name for name in wanted if name not in columns]
    faults = []
    if source["version"] < _OLDEST:
        faults.append(f"{where} is PostgreSQL {source['version'] // 10000}; 14 is the oldest that can be read")
    if source["is_standby"]:
        faults.append(
            f"{where} is a standby, where locks of writers cannot be seen; set the option 'dsn' to the primary"
        )
    if missing:
        faults.append(f"table {table} has no column {', '.join(missing)}; it has {', '.join(columns)}; set the options")
    if not source["may_read"]:
        faults.append(f"our role may not read {table}; {SETUP} --grant-to ROLE")
    if options.order not in columns:
        faults.append(f"table {table} has no column {order} to read in the order of; set the option 'order_column'")
    elif not source["is_ordered"]:
        faults.append(f"column {order} of {table} is no integer; set the option 'order_column' to one from a sequence")
    elif not has_unique_order(source, options):
        faults.append(_why_not_unique(source, options))
    if not source["has_positions"]:
        faults.append(f"table stream_relay.positions is missing on {where}; {SETUP}")
    elif not source["may_keep_position"]:
        faults.append(f"our role may not keep its offset in stream_relay.positions; {SETUP} --grant-to ROLE")
    return faults


def has_unique_order(source: dict[str, Any], options: NotifyOptions) -> bool:
    """Whether no two rows have the same offset: a second one would pass for the first, and never come.

    Over partitions only a sequence can promise it. One that an INSERT may pass over does when the operator names the
    column: the default, the id of the round, may be numbered by each game.
    """
    if source["is_unique"]:
        return True
    may_be_named = source["numbered"] == "by default" and options.order_column is not None
    return bool(source["is_partitioned"] and source["is_indexed"] and (source["numbered"] == "always" or may_be_named))


def _why_not_unique(source: dict[str, Any], options: NotifyOptions) -> str:
    table, order = options.quoted_table, quote_identifier(options.order)
    if not source["is_partitioned"]:
        return (
            f"column {order} of {table} is not unique, so rows could be missed; run: "
            f"CREATE UNIQUE INDEX CONCURRENTLY ON {table} ({order}); or set the option 'order_column'"
        )
    if source["numbered"] and not source["is_indexed"]:
        return (
            f"column {order} of {table} has no index to read in the order of; run: CREATE INDEX ON {table} ({order});"
        )
    what = f"column {order} of the partitioned table {table} can repeat, so rows could be missed"
    if source["numbered"]:
        return f"{what}; if its sequence gives out every id, set the option 'order_column' to {options.order}"
    sequence = f"{quote_identifier(options.schema_name)}.{quote_identifier(f'{options.table_name:.40}_relay_order')}"
    # Whoever inserts rounds needs the sequence from then on, and must not fail.
    return (
        f"{what}; run: CREATE SEQUENCE {sequence}; GRANT USAGE ON SEQUENCE {sequence} TO PUBLIC; "
        f"ALTER TABLE {table} ADD COLUMN relay_order bigint NOT NULL DEFAULT nextval({quote_literal(sequence)}); "
        f"CREATE INDEX ON {table} (relay_order); and set the option 'order_column' to relay_order"
    )


def warnings_of(source: dict[str, Any], options: NotifyOptions) -> list[str]:
    """Say what works, but not as well as it could."""
    warnings = []
    if options.notify and not source["has_trigger"]:
        warnings.append(f"nothing wakes us: rounds wait up to {options.poll_s:g} s for the next poll; {SETUP}")
    if (source["sequence_cache"] or 1) > 1:
        warnings.append(
            f"the sequence of {options.order} caches {source['sequence_cache']} ids a session, so ids come late; run: "
            f"ALTER TABLE {options.quoted_table} ALTER COLUMN {quote_identifier(options.order)} SET CACHE 1;"
        )
    if not source["has_commit_times"]:
        warnings.append(
            "the server keeps no commit times, so timestamps are finished_at; run: "
            "ALTER SYSTEM SET track_commit_timestamp = on; and restart the server"
        )
    return warnings
