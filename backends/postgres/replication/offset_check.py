"""Compare a replication slot with the log: whether it is where we left it, and which rounds it yields again.

A slot does not record which client advanced it: a slot that was dropped and recreated looks like one that was read. So
an offset is stored in the log, with a round or beside the rounds, before it is reported to the server. A slot that is
ahead of the log was moved by another program. Owns the text form of an offset.
Why: docs/adr/0011-the-log-is-the-checkpoint.md
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from hashlib import blake2s

import structlog

from backends.contract import KeptOffset, OffsetTaken, SourceOffsets
from backends.postgres.replication.capture import WalOffset
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.protocol.wal import format_lsn
from backends.postgres.replication.publication.publication_note import change_between
from backends.postgres.replication.slot import BACKFILL, ReplicationOptions, Slot, SlotLost, SlotState, check_slot
from backends.publish.log_offsets import LogOffsets
from roundlog.log_settings import LogSettings

log = structlog.get_logger()


class OffsetCheck:
    """Compares one slot with the offsets in the log."""

    def __init__(
        self,
        offsets: SourceOffsets[WalOffset],
        options: ReplicationOptions,
        unread_since: Callable[[], Awaitable[datetime | None]] | None = None,
    ) -> None:
        """Take the log's offsets; `unread_since` of `RowFeed` if the slot sends the feed."""
        self._offsets = offsets
        self._unread_since = unread_since
        self._options = options
        self._source = ""
        self._offset: WalOffset | None = None  # the last offset, and its text form below
        self._text = b""

    def offset_text(self, offset: WalOffset) -> bytes:
        """Write an offset as a round carries it; the rounds of a transaction share one."""
        if offset is not self._offset:
            self._offset = offset
            self._text = f"{self._source}:{offset.lsn:X}".encode()
        return self._text

    def stored_lsn(self, generation: int) -> int:
        """The LSN up to which rounds of this generation are in the log with their offset; 0: none are."""
        stored = self._offsets.stored
        return stored.lsn if stored is not None and stored.generation == generation else 0

    async def check(self, system: str, slot: Slot) -> bool:
        """Check that the slot is where we left it, and recall which rounds it yields again.

        Returns:
            Whether the log has the slot's offset or a later one, or had it as far as can be known.

        Raises:
            SlotLost: The slot is ahead of the log, or was read with another publication.
            OffsetTaken: Another process has started to read it.
        """
        options, at = self._options, slot.confirmed_lsn
        self._source, self._offset = source_of(system, options.slot), None
        kept = await self._offsets.kept(self._source)
        newest = _lsn(kept.offset) if kept is not None else 0

        def comes_again(offset: str) -> bool:
            nonlocal newest
            lsn = _lsn(offset)
            newest = max(newest, lsn)
            return lsn >= at

        since = kept if kept is not None and newest <= at else None
        stored_since = None if self._unread_since is None else await self._unread_since()
        await self._offsets.recall(self._source, comes_again, since=since, stored_since=stored_since)
        if options.accept_lsn != format_lsn(at):
            self._compare(slot, kept, newest)
        if kept is None and not newest and await self._offsets.newest():
            # Another backend or an older release filled the log. Only an operator knows where it stopped.
            log.warning("slot_begins_late", slot=options.slot, at=format_lsn(at), run=BACKFILL)
        if kept is None or _lsn(kept.offset) < at or kept.note != slot.publication:
            await self.keep(at, slot.publication)
        return newest >= at or (kept is not None and kept.lost)

    async def keep(self, lsn: int, publication: str) -> None:
        """Store an offset that no round carries. If the log cannot store it, it has logged that, and we continue."""
        await self._offsets.keep(self._source, f"{lsn:X}", publication)

    async def accept(self, system: str, slot: Slot) -> None:
        """Store the slot's offset as ours: a backfill has stored the rounds before it."""
        self._source = source_of(system, self._options.slot)
        kept = await self._offsets.kept(self._source)
        if kept is None or _lsn(kept.offset) < slot.confirmed_lsn or kept.note != slot.publication:
            try:
                await self.keep(slot.confirmed_lsn, slot.publication)
            except OffsetTaken as error:
                log.info("slot_awaited", reason=str(error))

    def _compare(self, slot: Slot, kept: KeptOffset | None, newest: int) -> None:
        at = format_lsn(slot.confirmed_lsn)
        if kept is None:
            if 0 < newest < slot.confirmed_lsn:
                log.warning("slot_not_proven", slot=self._options.slot, at=at, newest=format_lsn(newest))
            return
        if slot.confirmed_lsn > newest and kept.lost:
            # A round that is no longer in the log carried the offset. Who advanced the slot cannot be known.
            log.warning("slot_not_proven", slot=self._options.slot, at=at, newest=format_lsn(newest), run=BACKFILL)
        elif slot.confirmed_lsn > newest:
            raise SlotLost(SlotState.MOVED, self._options, f"from {format_lsn(newest)} to {at}", at=at)
        change = change_between(kept.note, slot.publication)
        if change.lost:
            raise SlotLost(SlotState.PUBLICATION_CHANGED, self._options, change.lost, at=at)
        if change.widened:
            log.warning("publication_widened", slot=self._options.slot, publication=self._options.publication)


def source_of(system: str, slot: str) -> str:
    """Return a unique name of a slot of a server. It is short, since every round carries it."""
    return f"pg:{blake2s(f'{system}.{slot}'.encode(), digest_size=5).hexdigest()}"


@asynccontextmanager
async def accept_slot_after(options: ReplicationOptions, log_settings: LogSettings) -> AsyncIterator[None]:
    """Store the slot's offset as ours after the block, which backfills the rounds before that offset from the table.

    If the block fails, the slot still counts as moved, so that the backfill is repeated. A slot that another process
    reads, or that cannot be read, is not accepted.

    Raises:
        LogError: The log cannot be used until an operator acts.
    """
    found = await _read_free_slot(options)
    yield
    if found is not None and found[1].active_pid is None:
        system, slot = found
        async with LogOffsets[WalOffset](log_settings) as offsets:
            await OffsetCheck(offsets, options).accept(system, slot)


async def _read_free_slot(options: ReplicationOptions) -> tuple[str, Slot] | None:
    try:
        link = await ReplicationConnection.connect(options)
        try:
            (system,) = await link.query("IDENTIFY_SYSTEM", options.connect_timeout_s)
            return system["systemid"] or "", await check_slot(link, options)
        finally:
            await link.close()
    except (SlotLost, StreamLost) as error:
        log.warning("slot_not_looked_at", slot=options.slot, error=str(error))
        return None


def _lsn(offset: str) -> int:
    try:
        return int(offset, 16)
    except ValueError:
        return 0
