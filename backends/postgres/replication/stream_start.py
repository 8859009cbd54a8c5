"""Begin streams of a slot: connect, wait while another process reads it, and start at our offset.

Owns how a stream begins, and what the error of the last one says about the slot. Knows nothing of what is read or
reported in it: see `backends.postgres.replication.replication_stream`.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from backends.postgres.mapping.column_kinds import ColumnType, own_types_of
from backends.postgres.postgres_options import quote_identifier, quote_literal
from backends.postgres.replication.capture import Capture
from backends.postgres.replication.protocol.bounded_connection import BoundedConnection
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, ServerError, StreamLost
from backends.postgres.replication.protocol.replication_link import ReplicationLink
from backends.postgres.replication.protocol.wal import format_lsn
from backends.postgres.replication.publication.publication_note import change_between
from backends.postgres.replication.publication.source_tables import source_tables
from backends.postgres.replication.rows.message_reader import MESSAGE_BYTES
from backends.postgres.replication.slot import (
    PUBLICATION_SKIPPED,
    UNDEFINED,
    ReplicationOptions,
    Slot,
    SlotLost,
    SlotState,
    check_slot,
    facts_of,
    run_statement,
)
from backends.postgres.replication.slot_offset import SlotOffset
from backends.postgres.replication.standby_server import refuse_standby
from roundlog.backoff import jittered

log = structlog.get_logger()

_STANDBY_POLL_S: Final = 0.1

_SLOT_ACTIVE: Final = "55006"
_NOT_IN_STATE: Final = "55000"


class StreamStart:
    """Begins one stream after another."""

    def __init__(
        self, capture: Capture, offset: SlotOffset, options: ReplicationOptions, *, on_standby: Callable[[], None]
    ) -> None:
        """Prepare; `on_standby` is called when a stream has to wait for another process."""
        self._capture = capture
        self._offset = offset
        self._options = options
        self._on_standby = on_standby
        self._log = log.bind(**options.log_fields)
        self._own_pid = 0  # the server process of our last stream
        self._slot_error: ServerError | None = None  # what the server ended the last stream with, if it is the slot's

    async def begin(self) -> ReplicationLink:
        """Connect, wait until the slot is free, and start the stream; return its connection.

        Raises:
            StreamLost: The stream did not start; another attempt may succeed.
            SlotLost: The slot cannot be read as it is.
            OffsetTaken: Another process has started to read it.
            SourceError: The libraries that are installed cannot read it.
        """
        options = self._options
        link = await self._connect()
        try:
            link.on_notice(partial(_fail_if_skipping, link))
            # The catalogue is queried over another connection: a session that has read the current definition of the
            # table uses it to decode rows from before a change of the table, and fails, or returns wrong values.
            catalogue = await ReplicationConnection.connect(options, replication=False)
            try:
                await self._start(link, catalogue)
            finally:
                await catalogue.close()
        except BaseException:
            await link.close()
            raise
        self._own_pid = link.pid
        self._log.info("stream_started", from_lsn=format_lsn(self._capture.start_lsn), server_process=link.pid)
        return link

    async def look_up(self, oid: int) -> None:
        """Read the tables again if the one with this oid is a child of one of them: it was made since the stream began.

        Raises:
            StreamLost: The catalogue cannot be read.
        """
        options = self._options
        ours = {(table.schema_name, table.table_name) for table in options.all_tables}
        catalogue = await ReplicationConnection.connect(options, replication=False)
        try:
            parents = await run_statement(catalogue, options, "read_parents", oid=str(oid))
            if not ours.isdisjoint((row["schema_name"], row["table_name"]) for row in parents):
                facts = await facts_of(catalogue, options)
                self._capture.use_tables(source_tables(options, facts), await self._own_types(catalogue))
        finally:
            await catalogue.close()

    def ended_by(self, error: Exception) -> None:
        """Take the error of the last attempt or stream: it may mean that the slot cannot be read."""
        if isinstance(error, ServerError) and error.sqlstate in (UNDEFINED, _NOT_IN_STATE):
            self._slot_error = error

    async def _connect(self) -> ReplicationLink:
        options = self._options
        settings = {"wal_sender_timeout": f"{round(options.sender_timeout_s * 1000)}"}
        if not options.message_prefix:
            return await ReplicationConnection.connect(options, settings=settings)
        # Messages come whole, also those of other applications, and libpq would hold them.
        return await BoundedConnection.connect(
            options, prefix=options.message_prefix, limit_bytes=MESSAGE_BYTES, settings=settings
        )

    async def _start(self, link: ReplicationLink, catalogue: ReplicationConnection) -> None:
        options, capture = self._options, self._capture
        await refuse_standby(catalogue, options)
        while True:
            slot = await self._free_slot(catalogue)
            self._raise_slot_error()
            (system,) = await link.query("IDENTIFY_SYSTEM", options.connect_timeout_s)
            await self._offset.choose_start(system, slot)
            if slot.facts is not None:
                capture.use_tables(source_tables(options, slot.facts), await self._own_types(catalogue))
            capture.begin_stream(link.codec)
            publications = quote_literal(quote_identifier(options.publication))
            messages = ", messages 'true'" if options.message_prefix else ""
            command = (
                f"START_REPLICATION SLOT {quote_identifier(options.slot)} LOGICAL {format_lsn(capture.start_lsn)}"
                f" (proto_version '1', publication_names {publications}{messages})"
            )
            try:
                await link.start(command, options.connect_timeout_s)
            except ServerError as error:
                if error.sqlstate != _SLOT_ACTIVE:
                    raise
                self._offset.mark_shared()
            else:
                return await self._check_unchanged(catalogue, slot)

    async def _own_types(self, catalogue: ReplicationConnection) -> dict[int, ColumnType]:
        """Read the types of our columns that are not in pg_catalog."""
        found: dict[int, ColumnType] = {}
        for table in self._options.all_tables:
            names = {"schema": table.schema_name, "table": table.table_name}
            found |= own_types_of(await run_statement(catalogue, self._options, "read_types", **names))
        return found

    async def _free_slot(self, catalogue: ReplicationConnection) -> Slot:
        """Wait without limit until no process reads the slot: we are the hot standby."""
        waited = False
        while (slot := await check_slot(catalogue, self._options)).active_pid is not None:
            if slot.active_pid != self._own_pid:
                # Otherwise it is our own last connection, whose end the server has not noticed yet.
                self._offset.mark_shared()
            if not waited:
                waited = True
                self._on_standby()
                self._log.info("slot_awaited", holder=slot.active_pid)
            await asyncio.sleep(jittered(_STANDBY_POLL_S))
        return slot

    async def _check_unchanged(self, catalogue: ReplicationConnection, checked: Slot) -> None:
        """Look at the slot again now that no other process can read or drop it; raise `StreamLost` if it is another.

        Between its check and the start of the stream it may have been read by another process, or dropped and
        recreated. The server starts a recreated slot at its own offset, without the rounds before it.
        """
        held = await check_slot(catalogue, self._options)
        change = change_between(checked.publication, held.publication)
        if held.confirmed_lsn != checked.confirmed_lsn or change.lost:
            moved = f"from {format_lsn(checked.confirmed_lsn)} to {format_lsn(held.confirmed_lsn)}"
            raise StreamLost(f"the slot was changed {moved} while the stream began")

    def _raise_slot_error(self) -> None:
        """Raise `SlotLost` if the last stream failed at the slot, although the catalogue shows no fault now.

        The stream decodes WAL with the catalogue of that time, in which the publication did not exist yet.
        """
        error, self._slot_error = self._slot_error, None
        if error is not None and error.sqlstate == UNDEFINED:
            raise SlotLost(SlotState.PUBLICATION_LATE, self._options)
        if error is not None:
            raise SlotLost(SlotState.INVALIDATED, self._options, error.message)


def _fail_if_skipping(link: ReplicationLink, sqlstate: str, notice: str) -> None:
    """Fail the stream on the warning with which PostgreSQL 18 and later skip rows of a missing publication."""
    if sqlstate == PUBLICATION_SKIPPED:
        link.fail(ServerError(UNDEFINED, notice))
