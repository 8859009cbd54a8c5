"""Check the source at the start, and create the publication and the slot if the options say so.

Owns the checks before the first stream, and the clean-up when only one of the two was created. The states of a slot,
and the errors for them, are in `backends.postgres.replication.slot`.
"""

import re
from collections.abc import Sequence
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import structlog

from backends.contract import SourceError, SourceUnavailable
from backends.postgres.database import ConnectionLost, close_connection, is_transient, open_connection
from backends.postgres.dsn import UnsupportedParameter
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.table_mapper import check_columns
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import quote_identifier
from backends.postgres.replication.protocol.replication_connection import (
    NoAnswer,
    Record,
    ReplicationConnection,
    ServerError,
    StreamLost,
)
from backends.postgres.replication.protocol.wal import format_lsn, parse_lsn
from backends.postgres.replication.publication.publication_faults import creation_statements, refusal_of
from backends.postgres.replication.slot import (
    ReplicationOptions,
    check_slot,
    creation_sql,
    facts_of,
    read_slot,
    run_statement,
)
from backends.postgres.replication.standby_server import StandbyReached, refuse_standby
from backends.postgres.statements import one_line, statement
from backends.postgres.table import OLDEST_VERSION, relation_statement, why_no_table

log = structlog.get_logger()

_FAILOVER_SINCE: Final = 170000
_CLOSE_S: Final = 1.0
_LOCK_S: Final = 3
_EXISTS: Final = ("42710", "23505")
"""SQLSTATEs of a CREATE whose object another session created meanwhile: before it began, or while it waited."""
_NO_ROLE: Final = re.compile(r"\bwal ?sender\b", re.IGNORECASE)


async def ensure_slot(options: ReplicationOptions) -> None:
    """Check the source, the publication and the slot; create the latter two if ``create`` is set and neither exists.

    Raises:
        SlotLost: The publication or the slot cannot be used.
        SourceUnavailable: The server cannot be reached, or cannot answer now.
        SourceError: The source cannot be used; the text says what to do.
    """
    try:
        link = await ReplicationConnection.connect(options)
        try:
            await refuse_standby(link, options)
            await _check_source(link, options)
            if options.create and (lsn := await _create_missing(link, options)) is not None:
                made = {"lsn": format_lsn(lsn), "publication": options.publication}
                log.warning("slot_created", **options.log_fields, **made)
            await check_slot(link, options)
        finally:
            await link.close()
    except StandbyReached as error:
        raise SourceError(str(error)) from error
    except StreamLost as error:
        advice = _advice(options, error)
        kind = SourceUnavailable if not advice and await _may_heal(options, error) else SourceError
        raise kind(f"{error}{advice}") from error


async def _may_heal(options: ReplicationOptions, error: StreamLost) -> bool:
    """Say whether the error passes without an operator.

    libpq does not return the SQLSTATE of a failed attempt to connect, so asyncpg, which does, makes one too.
    """
    if isinstance(error, ServerError):
        return is_transient(error.sqlstate)
    if isinstance(error, NoAnswer):
        return True
    try:
        options.target.for_asyncpg(options.connect_timeout_s)
        await close_connection(await open_connection(options, "check"), within_s=_CLOSE_S)
    except (ConnectionLost, UnsupportedParameter):
        return True
    except SourceError:
        return False
    return True


async def _check_source(link: ReplicationConnection, options: ReplicationOptions) -> None:
    """Check that the server can replicate, and that the table of rounds exists and has the columns.

    Raises:
        SourceError: A check failed; the text says what to run.
        StreamLost: The connection broke.
    """
    (server,) = await run_statement(link, options, "read_server")
    version = int(server["version"] or 0)
    if version < OLDEST_VERSION:
        raise SourceError(f"{options.shown_dsn} is PostgreSQL {version // 10000}; 14 is the oldest supported version")
    if server["wal_level"] != "logical":
        raise SourceError(
            f"{options.shown_dsn} has wal_level {server['wal_level']!r}, which must be 'logical'; run:"
            " ALTER SYSTEM SET wal_level = 'logical'; and restart the server"
        )
    if options.failover and version < _FAILOVER_SINCE:
        raise SourceError(f"option failover: needs PostgreSQL 17, and {options.shown_dsn} is {version // 10000}")
    for table in options.all_tables:
        await _check_table(link, options, table)


async def _check_table(link: ReplicationConnection, options: ReplicationOptions, table: TableOptions) -> None:
    columns = await run_statement(link, options, "read_columns", schema=table.schema_name, table=table.table_name)
    if not columns:
        (found,) = await link.query(relation_statement(table), options.connect_timeout_s)
        raise SourceError(why_no_table(options, table, found) or f"table {table.quoted_table} has no columns")
    if columns[0]["relpersistence"] != "p":
        raise SourceError(
            f"table {table.quoted_table} is unlogged or temporary, so its rows are not in the write-ahead log; run:"
            f" ALTER TABLE {table.quoted_table} SET LOGGED;"
        )
    check_columns(table, [Column(column["attname"] or "", int(column["column_type"] or 0)) for column in columns])


async def _create_missing(link: ReplicationConnection, options: ReplicationOptions) -> int | None:
    """Create the publication and the slot if neither exists; return where the slot starts, None: none was created.

    If several processes start together, one of them creates both, and the others wait until it closes `link`. Other
    programs do not take that lock: what one of them creates meanwhile exists, and is never dropped here. The
    server creates a slot once all open transactions have ended, which has to be within ``connect_timeout_s``.

    Raises:
        SourceError: The server refused, or waits for a transaction; the text says what to run.
        StreamLost: The connection broke.
    """
    await run_statement(link, options, "lock_setup", slot=options.slot)
    try:
        facts = await facts_of(link, options)
        if facts.oid is not None or await read_slot(link, options) is not None:
            return None
        if (refusal := refusal_of(options.wishes, facts)) is not None:
            raise SourceError(refusal)
        create_slot = creation_sql(options, facts)[1]
        publication = await _create_publication(link, options, creation_statements(options.wishes, facts))
        try:
            slot = await _create(link, options, create_slot)
        except (SourceError, StreamLost):
            if publication is not None:
                with suppress(StreamLost):
                    await _drop_both(link, options)
            raise
    except NoAnswer as error:
        raise SourceError(f"replication slot {options.slot!r} cannot be created: {error}") from error
    return None if slot is None else parse_lsn(slot[0]["lsn"] or "")


async def _create_publication(
    link: ReplicationConnection, options: ReplicationOptions, statements: Sequence[str]
) -> list[Record] | None:
    """Create the publication, with replica identities in the same transaction; errors and result as in `_create`.

    A replica identity needs a lock that blocks readers too, so the wait for it is short.
    """
    first, *others = statements
    if not others:
        return await _create(link, options, first)
    await link.query("BEGIN", options.connect_timeout_s)
    try:
        await link.query(f"SET LOCAL lock_timeout = '{_LOCK_S}s'", options.connect_timeout_s)
        made = await _create(link, options, first)
        for sql in others if made is not None else ():
            await _create(link, options, sql)
    except SourceError:
        await link.query("ROLLBACK", options.connect_timeout_s)
        raise
    await link.query("COMMIT" if made is not None else "ROLLBACK", options.connect_timeout_s)
    return made


async def _create(link: ReplicationConnection, options: ReplicationOptions, sql: str) -> list[Record] | None:
    """Run one CREATE; return its result, None: the object exists.

    Raises:
        SourceError: The server refused; the text has the statement.
        StreamLost: No answer in time, or the connection broke.
    """
    try:
        return await link.query(sql, options.connect_timeout_s)
    except NoAnswer as error:
        raise NoAnswer(f"{error}{await _blocker(link, options)}") from error
    except ServerError as error:
        if error.sqlstate in _EXISTS:
            return None
        kind = SourceUnavailable if is_transient(error.sqlstate) else SourceError
        raise kind(f"cannot set up replication: {error}; run as an owner: {one_line(sql)}") from error


async def _blocker(link: ReplicationConnection, options: ReplicationOptions) -> str:
    """Say which transaction a statement waits for, if the server shows it."""
    watch = await ReplicationConnection.connect(options, replication=False)
    try:
        found = await watch.query(statement("read_blockers", pid=str(link.pid)), options.connect_timeout_s)
    finally:
        await watch.close()
    if not found:
        return ""
    blocker = found[0]
    age = f"open for {blocker['open_s']} s" if blocker["open_s"] else "open for an unknown time"
    blocking = (
        f"process {blocker['pid']} ({blocker['usename']}, {blocker['application_name'] or 'no application name'})"
    )
    return (
        f"; it waits for the transaction of {blocking}, {age}, which has to end; or run:"
        f" SELECT pg_terminate_backend({blocker['pid']});"
    )


async def _drop_both(link: ReplicationConnection, options: ReplicationOptions) -> None:
    """Drop what was created: a publication without its slot would look like a lost slot at the next start."""
    cleanup = await ReplicationConnection.connect(options, replication=False)
    try:
        await cleanup.query(f"SELECT pg_catalog.pg_terminate_backend({link.pid}, 5000)", options.connect_timeout_s + 5)
        await cleanup.query(statement("drop_slot_if_there", slot=options.slot), options.connect_timeout_s)
        await cleanup.query(statement("drop_publication", publication=options.publication), options.connect_timeout_s)
    finally:
        await cleanup.close()


def _advice(options: ReplicationOptions, error: StreamLost) -> str:
    user = urlsplit(options.dsn.get_secret_value()).username
    return f"; run: ALTER ROLE {quote_identifier(user)} REPLICATION;" if user and _NO_ROLE.search(str(error)) else ""
