"""Begin streams of a slot: connect, stand by while another process reads it, and start where our offset is.

Owns how a stream comes to be, and what the end of the one before says about the slot. Knows nothing of what is read or
told in it: see `backends.postgres.replication.stream`.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog

from backends.postgres.options import quote_identifier, quote_literal
from backends.postgres.replication.capture import Capture
from backends.postgres.replication.protocol.connection import ReplicationConnection, ServerError
from backends.postgres.replication.protocol.wal import format_lsn
from backends.postgres.replication.slot import (
    PUBLICATION_SKIPPED,
    UNDEFINED,
    ReplicationOptions,
    Slot,
    SlotLost,
    SlotState,
    check_slot,
)
from backends.postgres.replication.slot_offset import SlotOffset
from roundlog.backoff import spread

log = structlog.get_logger()

_STANDBY_LOOK_S: Final = 0.1

_SLOT_ACTIVE: Final = "55006"
_NOT_IN_STATE: Final = "55000"


class StreamStart:
    """Begins one stream after another."""

    def __init__(
        self, capture: Capture, offset: SlotOffset, options: ReplicationOptions, *, on_standby: Callable[[], None]
    ) -> None:
        """Prepare; `on_standby` is called when a stream has to wait for another process."""
        self._capture = capture
        self._place = offset
        self._options = options
        self._on_standby = on_standby
        self._log = log.bind(**options.log_fields)
        self._own_pid = 0  # of our former connection
        self._suspect: ServerError | None = None  # what the server ended the last stream with

    async def begin(self) -> ReplicationConnection:
        """Connect, wait until the slot is free, and start the stream; return the link that it runs on.

        Raises:
            StreamLost: It did not work this time.
            SlotLost: The slot, as it is, can never be read on.
            OffsetTaken: Another process reads it by now.
        """
        options = self._options
        timeout = f"{round(options.sender_timeout_s * 1000)}"
        link = await ReplicationConnection.connect(options, settings={"wal_sender_timeout": timeout})
        try:
            link.on_notice(partial(_fail_if_skipping, link))
            # What is there is asked over another connection: a session that has seen the table as it is now decodes
            # rows from before a change of it by the new columns, and fails, or worse.
            look = await ReplicationConnection.connect(options, replication=False)
            try:
                await self._start(link, look)
            finally:
                await look.close()
        except BaseException:
            await link.close()
            raise
        self._own_pid = link.pid
        self._log.info("stream_started", from_lsn=format_lsn(self._capture.start_lsn), server_process=link.pid)
        return link

    def ended_by(self, error: Exception) -> None:
        """Take note of what the last attempt or stream ended with: it may be the slot that is to blame."""
        if isinstance(error, ServerError) and error.sqlstate in (UNDEFINED, _NOT_IN_STATE):
            self._suspect = error

    async def _start(self, link: ReplicationConnection, look: ReplicationConnection) -> None:
        options, capture = self._options, self._capture
        while True:
            slot = await self._free_slot(look)
            self._heed_suspicion()
            (system,) = await link.query("IDENTIFY_SYSTEM", options.connect_timeout_s)
            await self._place.follow(system, slot)
            capture.begin_stream()
            command = (
                f"START_REPLICATION SLOT {quote_identifier(options.slot)} LOGICAL {format_lsn(capture.start_lsn)}"
                f" (proto_version '1', publication_names {quote_literal(quote_identifier(options.publication))},"
                " messages 'true')"
            )
            try:
                return await link.start(command, options.connect_timeout_s)
            except ServerError as error:
                if error.sqlstate != _SLOT_ACTIVE:
                    raise

    async def _free_slot(self, look: ReplicationConnection) -> Slot:
        """Wait, however long, until nobody reads the slot: we are the hot standby."""
        waited = False
        while (slot := await check_slot(look, self._options)).holder is not None:
            if slot.holder != self._own_pid:
                # Our own former connection holds it too, until the server has noticed that it is gone.
                self._place.another_reads()
            if not waited:
                waited = True
                self._on_standby()
                self._log.info("slot_awaited", holder=slot.holder)
            await asyncio.sleep(spread(_STANDBY_LOOK_S))
        return slot

    def _heed_suspicion(self) -> None:
        """Slot and publication stand, and yet the last stream found that they do not: so it was at an earlier time."""
        suspect, self._suspect = self._suspect, None
        if suspect is not None and suspect.sqlstate == UNDEFINED:
            raise SlotLost(SlotState.PUBLICATION_LATE, self._options)
        if suspect is not None:
            raise SlotLost(SlotState.INVALIDATED, self._options, suspect.message)


def _fail_if_skipping(link: ReplicationConnection, notice: str) -> None:
    """From PostgreSQL 18 on, rows of a publication that is not there yet are passed over with a mere warning."""
    if notice.startswith(PUBLICATION_SKIPPED):
        link.fail(ServerError(UNDEFINED, notice))
