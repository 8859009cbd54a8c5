"""Track the offset in one slot: where a stream of it begins, and up to where the server may remove WAL.

Owns the rule that an offset is in the log before it is reported to the server, and what happens when the slot was moved
or the server's history changed. Knows nothing of connections: `replication_stream` reports to the server. What the
offset of a round means is in `capture`. Why: docs/adr/0011-the-log-is-the-checkpoint.md
"""

from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from backends.contract import SourceOffsets
from backends.postgres.replication.capture import Capture, WalOffset
from backends.postgres.replication.offset_check import OffsetCheck
from backends.postgres.replication.protocol.replication_connection import Record
from backends.postgres.replication.protocol.wal import format_lsn, parse_lsn
from backends.postgres.replication.publication.publication_note import change_between
from backends.postgres.replication.slot import ReplicationOptions, Slot, SlotLost, SlotState

log = structlog.get_logger()


class SlotOffset:
    """How far one process has read one slot, over any number of streams and servers."""

    def __init__(
        self,
        capture: Capture,
        options: ReplicationOptions,
        unread_since: Callable[[], Awaitable[datetime | None]] | None = None,
    ) -> None:
        """Prepare for one slot; `unread_since` as for `OffsetCheck`."""
        self._unread_since = unread_since
        self._capture = capture
        self._options = options
        self._log = log.bind(**options.log_fields)
        self._offset_check: OffsetCheck | None = None
        self._history: tuple[str, str] | None = None  # the server's system id and timeline
        self._empty_lsn = 0  # up to here the offset may advance over WAL without rounds
        self._publication: str | None = None  # what the slot is read with, see `Slot.publication`
        self._published_lsn: int | None = None  # up to here the publication sent all rows; None: nobody checks
        self._is_shared = False  # whether another process has read the slot since our last stream
        self._reported_lsn = 0

    @property
    def publication(self) -> str:
        """The publication and table that the slot is read with, as `Slot.publication`; empty: it was not read yet."""
        return self._publication or ""

    # --- the log ------------------------------------------------------------------------------------------------

    def attach(self, offsets: SourceOffsets[WalOffset]) -> None:
        """Take the offsets that the log stores about our slot."""
        self._offset_check = OffsetCheck(offsets, self._options, self._unread_since)

    def offset_text(self, offset: WalOffset) -> bytes | None:
        """Write an offset as a round carries it into the log; None: no log is attached."""
        return None if self._offset_check is None else self._offset_check.offset_text(offset)

    # --- where a stream begins ----------------------------------------------------------------------------------

    def mark_shared(self) -> None:
        """Record that another process reads the slot: it may store rounds, and advance the slot past our offset."""
        self._is_shared = True

    async def choose_start(self, system: Record, slot: Slot) -> None:
        """Decide where to start: at our offset, or at the slot's if the server's history changed or it has advanced.

        Args:
            system: The server's answer to ``IDENTIFY_SYSTEM``.
            slot: The slot as it is now, read by no process.

        Raises:
            SlotLost: The slot is ahead of the log and of us, or was read with another publication.
            OffsetTaken: Another process has started to read it.
        """
        capture, at = self._capture, slot.confirmed_lsn
        history = (system["systemid"] or "", system["timeline"] or "")
        is_ours = history == self._history and parse_lsn(system["xlogpos"] or "0/0") >= capture.start_lsn
        if is_ours and (lost := change_between(self._publication or slot.publication, slot.publication).lost):
            raise SlotLost(SlotState.PUBLICATION_CHANGED, self._options, lost, at=format_lsn(at))
        if not is_ours or at > self._reported_lsn or self._is_shared:
            # Compare the slot with the log, and recall which rounds the slot yields again: another process may have
            # stored some of them and not have advanced the slot.
            is_known = self._offset_check is not None and await self._offset_check.check(history[0], slot)
            if not is_ours:
                self._begin_history(history, at)
            elif at > self._reported_lsn:
                if not (is_known or self._is_shared):
                    detail = f"from {format_lsn(self._reported_lsn)} to {format_lsn(at)}"
                    raise SlotLost(SlotState.MOVED, self._options, detail, at=format_lsn(at))
                self._log.info("slot_moved_on", by_bytes=at - self._reported_lsn)
                capture.skip_to(at)
                self._reported_lsn = self._empty_lsn = at
        self._publication = slot.publication
        self._is_shared = False

    def _begin_history(self, history: tuple[str, str], at: int) -> None:
        if self._history is not None:
            # A failover, or a restored backup: rounds above the slot's offset may not have survived. Those that did are
            # read again, and recognised in the log.
            self._log.warning("source_changed", at=format_lsn(at), was=format_lsn(self._reported_lsn))
        self._capture.begin_history(at)
        self._history, self._reported_lsn, self._empty_lsn = history, at, at
        self._published_lsn = None

    # --- what may be reported -----------------------------------------------------------------------------------

    @property
    def safe_lsn(self) -> int:
        """Up to where the server may remove WAL: every later process finds in the log that we reported it."""
        safe = min(self._capture.confirmed_lsn, self._kept_lsn)
        return max(self._reported_lsn, safe if self._published_lsn is None else min(safe, self._published_lsn))

    @property
    def _kept_lsn(self) -> int:
        """Up to where the log has our offset."""
        capture = self._capture
        stored = capture.stored_lsn if self._offset_check is None else self._offset_check.stored_lsn(capture.generation)
        return max(self._empty_lsn, stored)

    @property
    def is_settled(self) -> bool:
        """Whether the server may remove all WAL that it has sent."""
        return self._capture.idle and self.safe_lsn >= self._capture.confirmed_lsn

    @property
    def reported_lsn(self) -> int:
        """The highest LSN that was reported to the server in this history."""
        return self._reported_lsn

    def mark_reported(self) -> None:
        """Record that `safe_lsn` was reported to the server."""
        self._reported_lsn = self.safe_lsn

    # --- whether the publication sends all rows -----------------------------------------------------------------

    @property
    def received_lsn(self) -> int:
        """How far the WAL has been received."""
        return self._capture.received_lsn

    def begin_watch(self) -> None:
        """Confirm nothing from now on before `mark_published` was called for it."""
        self._published_lsn = max(self._published_lsn or 0, self._reported_lsn)

    @property
    def needs_check(self) -> bool:
        """Whether something could be confirmed that was received after the last check."""
        return self._capture.confirmed_lsn > self.safe_lsn

    def mark_published(self, lsn: int, publication: str) -> None:
        """Record that the publication sent all rows up to `lsn`, and what it is now, see `Slot.publication`."""
        self._published_lsn = max(self._published_lsn or 0, lsn)
        self._publication = publication

    def empty_wal_end(self) -> int | None:
        """Return the LSN up to which the server sent no more rounds; None: the log has an offset there already."""
        end = self._capture.confirmed_lsn
        return end if end > max(self._reported_lsn, self._kept_lsn) else None

    async def advance_to(self, lsn: int) -> None:
        """Advance to an LSN of `empty_wal_end`, after the publication was checked.

        Raises:
            OffsetTaken: Another process has started to read the slot.
        """
        if self._offset_check is not None:
            # In the log first: otherwise a restart would find the slot ahead of the log, as if it had been moved.
            await self._offset_check.keep(lsn, self.publication)
        self._empty_lsn = max(self._empty_lsn, lsn)
