"""Whether the server and one table fit `postgres-notify`.

Owns the sentences that an operator reads when they do not fit. Only reads from the database.
"""

from typing import TYPE_CHECKING, Any, Final

from backends.postgres.identifiers import quote_identifier, quote_literal
from backends.postgres.mapping.finishing import finished_by_options, finishes_by_update
from backends.postgres.mapping.table_mapper import ColumnMissing, check_columns
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.value_path import ValuePath
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.table import OLDEST_VERSION, columns_of, has_unique_order, read_table

if TYPE_CHECKING:
    from backends.postgres.database import Connection

_SETUP: Final = "run as the owner of the table: stream-relay backend setup --backend postgres-notify"
_REPLICATION: Final = "use the backend postgres-replication, which reads each INSERT"


async def read_source(connection: "Connection", options: NotifyOptions, table: TableOptions) -> dict[str, Any]:
    """Describe the server, a table and what `setup` made, with the columns of ``sql/read_table.sql`` and
    ``sql/read_notify_setup.sql``.

    Raises:
        SourceError: There is no such table.
    """
    return await read_table(connection, options, table, also="read_notify_setup")


def is_finished_by_update(source: dict[str, Any], table: TableOptions) -> bool:
    """Whether rows may be inserted before they are finished."""
    required = source["required_columns"] or ()
    return finishes_by_update(table, {name: name not in required for name in source["columns"] or ()})


def remembers_unfinished(source: dict[str, Any], table: TableOptions) -> bool:
    """Whether unfinished rows are read again; False: they are rejected, as with the setup of an older version."""
    return is_finished_by_update(source, table) and bool(source["has_unfinished"] and source["may_keep_unfinished"])


def faults_of(source: dict[str, Any], options: NotifyOptions, table: TableOptions) -> list[str]:
    """Say why rounds cannot be read, one sentence for each fault, with what to run; empty: they can be read."""
    name, where = table.quoted_table, options.shown_dsn
    faults = []
    if source["version"] < OLDEST_VERSION:
        faults.append(f"{where} is PostgreSQL {source['version'] // 10000}; 14 is the oldest supported version")
    if source["is_standby"]:
        faults.append(
            f"{where} is a standby, which does not show locks of writers; set the option 'dsn' to the primary"
        )
    try:
        check_columns(table, columns_of(source))
    except ColumnMissing as error:
        faults.append(str(error))
    if not source["may_read"]:
        faults.append(f"our role may not read {name}; {_SETUP} --grant-to ROLE")
    faults += _outbox_faults(options, table) or _order_faults(source, table)
    if not source["has_positions"]:
        faults.append(f"table stream_relay.positions is missing on {where}; {_SETUP}")
    elif not source["may_keep_position"]:
        faults.append(f"our role may not store its offset in stream_relay.positions; {_SETUP} --grant-to ROLE")
    elif finished_by_options(table):
        faults += _unfinished_faults(source, options, table)
    return faults


def shortfalls_of(source: dict[str, Any], options: NotifyOptions, table: TableOptions) -> list[str]:
    """Say which rows would be rejected, one sentence each: for a check, since reading the others works."""
    if not source["has_positions"] or not is_finished_by_update(source, table):
        return []
    return _unfinished_faults(source, options, table)


def warnings_of(source: dict[str, Any], options: NotifyOptions, table: TableOptions) -> list[str]:
    """Say what works, but not as well as it could, one sentence each."""
    name, order, warnings = table.quoted_table, quote_identifier(table.order), []
    late = f"rounds wait up to {options.poll_s:g} s for the next poll; {_SETUP}"
    if options.notify and not source["has_trigger"]:
        warnings.append(f"table {name} has no trigger for notifications: {late}")
    elif options.notify and not source["has_update_trigger"] and is_finished_by_update(source, table):
        warnings.append(f"table {name} has no trigger for notifications of UPDATE: {late}")
    if options.notify and source["silent_children"]:
        warnings.append(f"{', '.join(source['silent_children'])} of {name} have no trigger for notifications: {late}")
    warnings += [
        f"{child} of {name} is searched whole at every poll; run: CREATE INDEX CONCURRENTLY ON {child} ({order});"
        for child in source["unindexed_children"] or ()
    ]
    if (source["sequence_cache"] or 1) > 1:
        warnings.append(
            f"the sequence of {table.order} caches {source['sequence_cache']} ids a session, so ids arrive late; "
            f"run: ALTER TABLE {name} ALTER COLUMN {order} SET CACHE 1;"
        )
    if source["sequence_cycles"]:
        warnings.append(
            f"the sequence of {table.order} cycles, so ids will begin again; "
            f"run: ALTER TABLE {name} ALTER COLUMN {order} SET NO CYCLE;"
        )
    if not (source["has_commit_times"] or options.feed):  # rows of the feed have a time of their own
        warnings.append(
            "the server keeps no commit times, so timestamps are finished_at; run: "
            "ALTER SYSTEM SET track_commit_timestamp = on; and restart the server"
        )
    return warnings


def _outbox_faults(options: NotifyOptions, table: TableOptions) -> list[str]:
    name = table.quoted_table
    if options.rows_deleted:
        return [f"rows of {name} may be deleted before they are read (rows_deleted); {_REPLICATION}"]
    if options.rows_deleted is None and len(ValuePath.parse(table.round_id_column).parts) > 1:
        return [
            (
                f"{name} looks like an outbox, whose rows may be deleted before they are read; {_REPLICATION}, or set "
                "rows_deleted=false if rows stay for longer than ingest may be away"
            )
        ]
    return []


def _order_faults(source: dict[str, Any], table: TableOptions) -> list[str]:
    name, order = table.quoted_table, quote_identifier(table.order)
    if table.order not in (source["columns"] or []):
        return [f"table {name} has no column {order} to order rows by; set the option 'order_column'"]
    if not source["is_ordered"]:
        return [f"column {order} of {name} is not an integer; set the option 'order_column' to one from a sequence"]
    if not has_unique_order(source, is_named=table.order_column is not None):
        return [_why_not_unique(source, table)]
    if source["children"] and not source["numbered"]:
        return [
            (
                f"column {order} can repeat in {', '.join(source['children'])}, which inherit from {name}, so rows "
                "could be missed; give the column a sequence as its default, or set the option 'order_column'"
            )
        ]
    return []


def _unfinished_faults(source: dict[str, Any], options: NotifyOptions, table: TableOptions) -> list[str]:
    if not source["has_unfinished"]:
        return [
            (
                f"rows of {table.quoted_table} are finished by UPDATE, and table stream_relay.unfinished is missing on "
                f"{options.shown_dsn}, so unfinished rows are rejected; {_SETUP}; or set finished_by=insert"
            )
        ]
    if not source["may_keep_unfinished"]:
        return [f"our role may not store unfinished rows in stream_relay.unfinished; {_SETUP} --grant-to ROLE"]
    return []


def _why_not_unique(source: dict[str, Any], table: TableOptions) -> str:
    name, order = table.quoted_table, quote_identifier(table.order)
    if not source["is_partitioned"]:
        return (
            f"column {order} of {name} is not unique, so rows could be missed; run: "
            f"CREATE UNIQUE INDEX CONCURRENTLY ON {name} ({order}); or set the option 'order_column'"
        )
    if source["numbered"] and not source["is_indexed"]:
        return f"column {order} of {name} has no index to order rows by; run: CREATE INDEX ON {name} ({order});"
    what = f"column {order} of the partitioned table {name} can repeat, so rows could be missed"
    if source["numbered"]:
        return f"{what}; if its sequence numbers every row, set the option 'order_column' to {table.order}"
    sequence = f"{quote_identifier(table.schema_name)}.{quote_identifier(f'{table.table_name:.40}_relay_order')}"
    # Every role that inserts rounds needs the sequence from then on; without the grant its INSERT would fail.
    return (
        f"{what}; run: CREATE SEQUENCE {sequence}; GRANT USAGE ON SEQUENCE {sequence} TO PUBLIC; "
        f"ALTER TABLE {name} ADD COLUMN relay_order bigint NOT NULL DEFAULT nextval({quote_literal(sequence)}); "
        f"CREATE INDEX ON {name} (relay_order); and set the option 'order_column' to relay_order"
    )
