"""The backend `postgres-replication`: rounds from the write-ahead log, milliseconds after their commit.

Owns the backend contract, the state for metrics, and reconnecting after every loss. How a stream begins is in
`stream_start`, its status messages and its end in `replication_stream`, where it continues in `slot_offset`. How it
behaves, and why: docs/postgres-replication.md
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import structlog

from backends.backlog import Backlog
from backends.contract import BackendContext, OffsetTaken, SourceError, SourceOffsets
from backends.postgres.database import ConnectionLost
from backends.postgres.feed.row_feed import RowFeed
from backends.postgres.game_tables import games_of, load_games
from backends.postgres.mapping.game_slugs import GameSlugs
from backends.postgres.replication.capture import Capture, ColumnMissing, TableRenamed, WalItem, WalOffset
from backends.postgres.replication.protocol.pgoutput import InvalidMessage
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.protocol.wal import format_lsn
from backends.postgres.replication.publication.publication_faults import PublicationFault
from backends.postgres.replication.publication.publication_note import change_between
from backends.postgres.replication.replication_admin import ReplicationAdmin
from backends.postgres.replication.replication_stream import ReplicationStream
from backends.postgres.replication.rows.row_reader import Counters, OldRowMissing
from backends.postgres.replication.setup import ensure_slot
from backends.postgres.replication.slot import ReplicationOptions, SlotLost, SlotState, check_slot, renewal_sql
from backends.postgres.replication.slot_heartbeat import write_heartbeats
from backends.postgres.replication.slot_offset import SlotOffset
from backends.postgres.replication.stream_start import StreamStart
from roundlog.backoff import Backoff
from roundlog.tasks import cancel_and_wait, raise_if_cancelled

log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.05
_CANCEL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class ReplicationStatus:
    """The state of capture, for metrics and health."""

    state: SlotState
    received_lsn: int
    confirmed_lsn: int
    """The last LSN reported to the server."""
    last_commit_ms: int
    """When the newest transaction received was committed, Unix milliseconds; 0: none yet."""
    reconnects: int
    unfinished: int = 0
    """Rows that were inserted unfinished; an UPDATE may make rounds of them."""
    others: int = 0
    """Rows that ``rows_when`` says are no rounds, or that are voided before they were finished."""
    reopened: int = 0
    """Rounds that were taken back or reopened, and are not corrected in the log."""


class PostgresReplication:
    """Reads one table through one slot. Implements `backends.contract.Backend` with `WalOffset`."""

    def __init__(self, options: Mapping[str, object], context: BackendContext) -> None:
        given = ReplicationOptions.read(options)
        self._options = given.reading
        self._log = log.bind(**self._options.log_fields)
        if given.without_effect:
            self._log.warning("source_imperfect", reason=given.without_effect)
        self._context = context
        self._feed = RowFeed(given, context.catalogue) if given.feed else None
        self._games = games_of(given, context.catalogue) if self._feed is None else self._feed.games
        if given.message_prefix:
            self._games.setdefault(given.source, GameSlugs(given, context.catalogue))
        self._counted = Counters()
        self._begin_capture()
        self._stream: ReplicationStream | None = None
        self._state = SlotState.CONNECTING
        self._reconnects = 0

    @property
    def status(self) -> ReplicationStatus:
        """The state now."""
        capture = self._capture
        counted = self._counted
        return ReplicationStatus(
            self._state,
            capture.received_lsn,
            self._offset.reported_lsn,
            capture.last_commit_ms,
            self._reconnects,
            counted.unfinished,
            counted.other,
            counted.reopened,
        )

    # --- the contract -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Check the source, and create what is missing if the options say so. See `Backend.open`."""
        if self._feed is not None:
            await self._feed.open()
        try:
            await ensure_slot(self._options)
        except SlotLost as error:
            self._set_state(error.state)
            raise
        heartbeat = asyncio.create_task(write_heartbeats(self._options, lambda: self.leads), name="postgres-heartbeat")
        tasks = [heartbeat]
        if self._feed is not None:
            keep = self._feed.keep(leads=lambda: self.leads, stored_lsn=lambda: self._offset.reported_lsn)
            tasks.append(asyncio.create_task(keep, name="postgres-feed"))
        try:
            yield
        finally:
            await cancel_and_wait(*tasks, again_s=_CANCEL_S)
            await self._close()

    async def read(self) -> AsyncIterator[Sequence[WalItem]]:
        """Yield rounds as they are committed; never ends. See `Backend.read`."""
        backoff = Backoff(_FIRST_PAUSE_S, self._options.retry_max_s)
        while True:
            try:
                stream = await self._begin()
                async with stream.kept_alive():
                    while True:
                        if items := await stream.receive():
                            with stream.leaving_if_stuck():
                                yield items
            except OldRowMissing as error:
                self._set_state(SlotState.TABLE_NOT_PUBLISHED)
                raise SlotLost(
                    SlotState.TABLE_NOT_PUBLISHED, self._options, fault=_identity_fault(error, self._options)
                ) from error
            except ColumnMissing as error:
                raise await self._why_missing(error) from error
            except InvalidMessage as error:
                raise SourceError(f"{self._options.shown_dsn} sent an unknown message: {error}") from error
            except (StreamLost, OffsetTaken, TableRenamed) as error:
                raise_if_cancelled()
                if self._stream is not None and self._stream.lasted_s > self._options.retry_max_s:
                    backoff.reset()
                await self._on_lost(error)
            except SlotLost as error:
                self._set_state(error.state)
                raise
            await asyncio.sleep(backoff.next_s())

    def confirm(self, offset: WalOffset) -> None:
        """Record that everything up to `offset` is stored; it is reported to the server within 0.1 s."""
        self._capture.confirm(offset)
        if self._stream is not None:
            self._stream.confirmed()

    def offset_text(self, offset: WalOffset) -> bytes | None:
        """Write an offset for the log. See `HasOffsets`."""
        return self._offset.offset_text(offset)

    def attach(self, offsets: SourceOffsets[WalOffset]) -> None:
        """Take the offsets that the log stores about our slot. See `HasOffsets`."""
        self._offset.attach(offsets)

    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]:
        """Measure how much WAL the server keeps for us. See `backends.backlog.HasBacklog`."""
        return ReplicationAdmin(self._options.given).measuring()

    # --- standbys -----------------------------------------------------------------------------------------------

    @property
    def leads(self) -> bool:
        """Whether this process reads the slot. See `HasStandby`."""
        return self._stream is not None

    async def step_down(self) -> None:
        """Free the slot; the next stream begins at the slot's offset. See `HasStandby`."""
        await self._close()
        self._begin_capture()
        self._set_state(SlotState.LEFT)

    def _begin_capture(self) -> None:
        feed = None if self._feed is None else self._feed.tables
        self._capture = Capture(self._options, self._context.catalogue, self._games, self._counted, feed)
        self._offset = SlotOffset(self._capture, self._options, self._unread_since if self._feed is not None else None)
        self._start = StreamStart(
            self._capture, self._offset, self._options, on_standby=partial(self._set_state, SlotState.STANDBY)
        )

    # --- one stream after another -------------------------------------------------------------------------------

    async def _begin(self) -> ReplicationStream:
        self._set_state(SlotState.CONNECTING)
        await self._read_games()
        link = await self._start.begin()
        self._stream = ReplicationStream(
            link,
            self._capture,
            self._offset,
            self._options,
            on_left=partial(self._set_state, SlotState.LEFT),
            read_games=self._read_games,
            look_up=self._start.look_up if self._options.all_tables else None,
        )
        self._set_state(SlotState.STREAMING)
        return self._stream

    async def _read_games(self) -> None:
        try:
            await load_games(self._options, self._games.values())
        except ConnectionLost as error:
            raise StreamLost(f"the table of games cannot be read: {error}") from error

    async def _unread_since(self) -> datetime | None:
        if self._feed is None:
            return None
        try:
            return await self._feed.unread_since()
        except ConnectionLost as error:
            raise StreamLost(f"the feed cannot be read: {error}") from error

    async def _why_missing(self, error: ColumnMissing) -> SourceError:
        """Return the error for a column that was not sent: perhaps the publication has left it out for a while."""
        try:
            link = await ReplicationConnection.connect(self._options, replication=False)
            try:
                slot = await check_slot(link, self._options)
            finally:
                await link.close()
        except SlotLost as lost:
            self._set_state(lost.state)
            return lost
        except StreamLost:
            return error
        lost_rows = change_between(self._offset.publication, slot.publication).lost
        if not lost_rows:
            return error
        self._set_state(SlotState.PUBLICATION_CHANGED)
        at = format_lsn(slot.confirmed_lsn)
        return SlotLost(SlotState.PUBLICATION_CHANGED, self._options, lost_rows, at=at)

    async def _on_lost(self, error: StreamLost | OffsetTaken | TableRenamed) -> None:
        self._start.ended_by(error)
        await self._close()
        self._set_state(SlotState.CONNECTING)
        self._reconnects += 1
        self._log.warning("stream_lost", error=str(error))

    async def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            await stream.close()

    def _set_state(self, state: SlotState) -> None:
        self._state = state


def _identity_fault(error: OldRowMissing, options: ReplicationOptions) -> PublicationFault:
    """Say what to run: what was written without the old rows cannot be read, so the slot has to begin after it."""
    run = f"ALTER TABLE {error.quoted_table} REPLICA IDENTITY FULL; {renewal_sql(options)}"
    return PublicationFault(f"{error}, so whether its round was finished before is not known", run)
