"""Keep our offset in one slot: where a stream of it begins, and up to where the server may forget.

Owns the rule that the server is told of no offset that the log does not know first, and what becomes of our offset when
the slot was moved or the server's history is another. Knows nothing of connections: see `stream` for
who tells the server. What a round's offset means is in `capture`.
Why: docs/adr/0011-the-log-is-the-checkpoint.md
"""

import structlog

from backends.contract import SourceOffsets
from backends.postgres.replication.capture import Capture, WalOffset
from backends.postgres.replication.offset_check import OffsetCheck
from backends.postgres.replication.protocol.connection import Record
from backends.postgres.replication.protocol.wal import format_lsn, parse_lsn
from backends.postgres.replication.slot import ReplicationOptions, Slot, SlotLost, SlotState

log = structlog.get_logger()


class SlotOffset:
    """How far one process is with one slot, over any number of streams and servers."""

    def __init__(self, capture: Capture, options: ReplicationOptions) -> None:
        self._capture = capture
        self._options = options
        self._log = log.bind(**options.log_fields)
        self._offset_check: OffsetCheck | None = None
        self._history: tuple[str, str] | None = None  # the server's system id and timeline
        self._covered = 0  # up to here the offset may move although no round says so
        self._publication: str | None = None  # which one we read with, see `Slot.publication`
        self._shared = False  # whether another process has read the slot since
        self._told_lsn = 0

    @property
    def publication(self) -> str:
        """Which publication and table the slot is read with, as `Slot.publication`; empty: it was not read yet."""
        return self._publication or ""

    # --- the log ------------------------------------------------------------------------------------------------

    def attach(self, offsets: SourceOffsets[WalOffset]) -> None:
        """Take what the log remembers of our slot."""
        self._offset_check = OffsetCheck(offsets, self._options)

    def written(self, offset: WalOffset) -> bytes | None:
        """Write an offset as a round carries it into the log; None: there is nothing that would remember it."""
        return None if self._offset_check is None else self._offset_check.offset_text(offset)

    # --- where a stream begins ----------------------------------------------------------------------------------

    def another_reads(self) -> None:
        """Another process was seen to read the slot: it may be further than we know when it is free again."""
        self._shared = True

    async def follow(self, system: Record, slot: Slot) -> None:
        """Decide where to start: where we were, unless the server's history is another or the slot was moved on.

        Args:
            system: What the server answered to ``IDENTIFY_SYSTEM``.
            slot: The slot as it is now, read by nobody.

        Raises:
            SlotLost: The slot is further than the log and we know of, or was read with another publication.
            OffsetTaken: Another process reads it by now.
        """
        capture, at = self._capture, slot.confirmed_lsn
        history = (system["systemid"] or "", system["timeline"] or "")
        is_ours = history == self._history and parse_lsn(system["xlogpos"] or "0/0") >= capture.start_lsn
        if is_ours and self._publication not in (None, slot.publication):
            raise SlotLost(SlotState.PUBLICATION_CHANGED, self._options, at=format_lsn(at))
        if not is_ours or at > self._told_lsn:
            # Hold the slot against the log, and learn which rounds it yields again.
            proven = self._offset_check is not None and await self._offset_check.of_slot(history[0], slot)
            if not is_ours:
                self._begin_history(history, at)
            elif proven or self._shared:
                self._log.info("slot_moved_on", by_bytes=at - self._told_lsn)
                capture.skip_to(at)
                self._told_lsn = self._covered = at
            else:
                detail = f"from {format_lsn(self._told_lsn)} to {format_lsn(at)}"
                raise SlotLost(SlotState.MOVED, self._options, detail, at=format_lsn(at))
        self._publication = slot.publication
        self._shared = False

    def _begin_history(self, history: tuple[str, str], at: int) -> None:
        if self._history is not None:
            # A failover, or a restored backup: what we saw beyond the slot's offset may not have survived. The
            # rounds between come again, and those that did survive are recognised in the log.
            self._log.warning("source_changed", at=format_lsn(at), was=format_lsn(self._told_lsn))
        self._capture.begin_history(at)
        self._history, self._told_lsn, self._covered = history, at, at

    # --- what may be told ---------------------------------------------------------------------------------------

    @property
    def safe_lsn(self) -> int:
        """Up to where the server may forget, and every process after us can tell that it was we who said so."""
        capture = self._capture
        stored = capture.stored_lsn if self._offset_check is None else self._offset_check.stored_lsn(capture.generation)
        return max(self._told_lsn, min(capture.confirmed_lsn, max(self._covered, stored)))

    @property
    def is_settled(self) -> bool:
        """Whether the server may forget all that it has sent."""
        return self._capture.idle and self.safe_lsn >= self._capture.confirmed_lsn

    @property
    def told_lsn(self) -> int:
        """The highest LSN that the server was told in this history."""
        return self._told_lsn

    def told(self) -> None:
        """Take note that the server was told of `safe_lsn`."""
        self._told_lsn = self.safe_lsn

    def due(self) -> int | None:
        """Return how far the offset could move if it were sure that nothing was kept from us; None: no further."""
        offset = self._capture.confirmed_lsn
        return offset if offset > self.safe_lsn else None

    async def move_to(self, lsn: int) -> None:
        """Let the offset move to an LSN that `due` named: nothing was kept from us before it.

        Raises:
            OffsetTaken: Another process reads the slot by now.
        """
        if self._offset_check is not None:
            # Beside the log, and first: after a restart it would look as if somebody had moved the slot.
            await self._offset_check.keep(lsn, self.publication)
        self._covered = max(self._covered, lsn)
