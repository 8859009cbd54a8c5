"""Make ready what a first stream needs: see that the source can be used, and make publication and slot if wanted.

Owns what is asked once, at the start, and what is undone when it works only half. What a slot can be, and the words for
it, are in `backends.postgres.replication.slot`.
"""

import re
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import structlog

from backends.contract import SourceError
from backends.postgres.options import quote_identifier
from backends.postgres.replication.capture import columns_of
from backends.postgres.replication.protocol.connection import (
    NoAnswer,
    Record,
    ReplicationConnection,
    ServerError,
    StreamLost,
)
from backends.postgres.replication.protocol.wal import format_lsn, parse_lsn
from backends.postgres.replication.slot import (
    ReplicationOptions,
    ask,
    check_slot,
    creation_sql,
    read_publication,
    read_slot,
)
from backends.postgres.statements import one_line, statement

log = structlog.get_logger()

_OLDEST: Final = 140000
_FAILOVER_SINCE: Final = 170000
_NO_ROLE: Final = re.compile(r"\bwal ?sender\b", re.IGNORECASE)


async def prepare(options: ReplicationOptions) -> None:
    """Check source, publication and slot, having made the latter two where neither exists and the options say so.

    Raises:
        SlotLost: Publication or slot cannot be used, and will not be made anew.
        SourceError: Something else is not as it has to be, or the server cannot be reached; the text says what to do.
    """
    try:
        link = await ReplicationConnection.connect(options)
        try:
            await _check_source(link, options)
            if options.create and (lsn := await _create_missing(link, options)) is not None:
                made = {"lsn": format_lsn(lsn), "publication": options.publication}
                log.warning("slot_created", **options.log_fields, **made)
            await check_slot(link, options)
        finally:
            await link.close()
    except StreamLost as error:
        raise SourceError(f"{error}{_advice(options, error)}") from error


async def _check_source(link: ReplicationConnection, options: ReplicationOptions) -> None:
    """See that the server can replicate and that the table of rounds is there and can become rounds.

    Raises:
        SourceError: It is not so; the text says what to run.
        StreamLost: The connection broke.
    """
    (server,) = await ask(link, options, "read_server")
    version = int(server["version"] or 0)
    if version < _OLDEST:
        raise SourceError(f"{options.shown_dsn} is PostgreSQL {version // 10000}; 14 is the oldest that can be read")
    if server["wal_level"] != "logical":
        raise SourceError(
            f"{options.shown_dsn} has wal_level {server['wal_level']!r}, which must be 'logical'; run:"
            " ALTER SYSTEM SET wal_level = 'logical'; and restart the server"
        )
    if options.failover and version < _FAILOVER_SINCE:
        raise SourceError(f"option failover: needs PostgreSQL 17, and {options.shown_dsn} is {version // 10000}")
    columns = await ask(link, options, "read_columns", schema=options.schema_name, table=options.table_name)
    if not columns:
        raise SourceError(f"{options.shown_dsn} has no table {options.quoted_table}; set the option 'table'")
    if columns[0]["relpersistence"] != "p":
        raise SourceError(
            f"table {options.quoted_table} is unlogged or temporary, so its rows are not in the write-ahead log; run:"
            f" ALTER TABLE {options.quoted_table} SET LOGGED;"
        )
    columns_of(options, [column["attname"] or "" for column in columns])


async def _create_missing(link: ReplicationConnection, options: ReplicationOptions) -> int | None:
    """Make publication and slot if neither exists; return where the new slot starts, None when nothing was made.

    Of several processes that start together one makes them, and the others wait for it, until it closes `link`. A
    slot is there when every transaction that was open has ended; they are waited for within ``connect_timeout_s``.

    Raises:
        SourceError: The server refused, or waits for somebody; the text has what to run.
        StreamLost: The connection broke.
    """
    create_publication, create_slot = creation_sql(options)
    try:
        await ask(link, options, "lock_setup", slot=options.slot)
        if await read_publication(link, options) is not None or await read_slot(link, options) is not None:
            return None
        await _make(link, options, create_publication)
        try:
            made = await _make(link, options, create_slot)
        except (SourceError, StreamLost):
            with suppress(StreamLost):
                await _undo(link, options)
            raise
    except NoAnswer as error:
        raise SourceError(f"replication slot {options.slot!r} cannot be made: {error}") from error
    return parse_lsn(made[0]["lsn"] or "")


async def _make(link: ReplicationConnection, options: ReplicationOptions, sql: str) -> list[Record]:
    try:
        return await link.query(sql, options.connect_timeout_s)
    except NoAnswer as error:
        raise NoAnswer(f"{error}{await _what_holds(link, options)}") from error
    except ServerError as error:
        raise SourceError(f"cannot set up replication: {error}; run as an owner: {one_line(sql)}") from error


async def _what_holds(link: ReplicationConnection, options: ReplicationOptions) -> str:
    """Name what a statement without an answer waits for, as far as the server tells."""
    watch = await ReplicationConnection.connect(options, replication=False)
    try:
        found = await watch.query(statement("read_blockers", pid=str(link.pid)), options.connect_timeout_s)
    finally:
        await watch.close()
    if not found:
        return ""
    blocker = found[0]
    age = f"open for {blocker['open_s']} s" if blocker["open_s"] else "open for an unknown time"
    who = f"process {blocker['pid']} ({blocker['usename']}, {blocker['application_name'] or 'no application name'})"
    return (
        f"; it waits for the transaction of {who}, {age}, which has to end; or run:"
        f" SELECT pg_terminate_backend({blocker['pid']});"
    )


async def _undo(link: ReplicationConnection, options: ReplicationOptions) -> None:
    """Leave nothing half made: a publication without its slot would look like a slot that was lost."""
    undo = await ReplicationConnection.connect(options, replication=False)
    try:
        await undo.query(f"SELECT pg_catalog.pg_terminate_backend({link.pid}, 5000)", options.connect_timeout_s + 5)
        await undo.query(statement("drop_slot_if_there", slot=options.slot), options.connect_timeout_s)
        await undo.query(statement("drop_publication", publication=options.publication), options.connect_timeout_s)
    finally:
        await undo.close()


def _advice(options: ReplicationOptions, error: StreamLost) -> str:
    user = urlsplit(options.dsn.get_secret_value()).username
    return f"; run: ALTER ROLE {quote_identifier(user)} REPLICATION;" if user and _NO_ROLE.search(str(error)) else ""
