"""The backend `postgres-notify`: rounds read from the table itself, where logical replication is not available.

Owns the reader's loop: polling as the guarantee, notifications as the hint, the standby while another process reads,
and when our offset is written. Which rows are yielded, and up to which id all of them are stored, is decided in
`backends.postgres.notify.table_offset`. See docs/postgres-notify.md
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import structlog

from backends.backlog import Backlog
from backends.contract import BackendContext, Captured, Rejected, SourceError, SourceOffsets, SourceUnavailable
from backends.postgres.database import ConnectionLost
from backends.postgres.mapping.table_mapper import TableMapper, item_of
from backends.postgres.notify.frontier import Frontier
from backends.postgres.notify.notify_admin import NotifyAdmin
from backends.postgres.notify.notify_offsets import NotifyOffsets
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.notify.notify_session import NotifySession
from backends.postgres.notify.table_offset import NotifyOffset, TableOffset
from roundlog.backoff import Backoff
from roundlog.tasks import cancel_and_wait, raise_if_cancelled

log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.05
_HOLE_POLL_S: Final = 0.2
_LOOK_BACK_S: Final = 30.0
_KEEP_S: Final = 0.5
_HEARTBEAT_S: Final = 2.0
_LEAVE_S: Final = 2.0
_LOG_S: Final = 5.0
"""How long the lock is held while the log is not available, before anything is read."""
_HELD_BACK: Final = "a transaction that has inserted rows stays open; see pg_stat_activity for the oldest xact_start"

_Item = Captured[NotifyOffset] | Rejected[NotifyOffset]


class NotifyState(StrEnum):
    """What the reader does. Logs, status and metrics use the same word."""

    CONNECTING = "connecting"
    STANDBY = "standby"  # another process reads
    READING = "reading"
    LEFT = "left"  # nothing could be stored; another process may read


@dataclass(frozen=True, slots=True)
class NotifyStatus:
    """The state of capture, for metrics and health."""

    state: NotifyState
    newest: int
    """The newest id read."""
    safe: int
    """Every row up to this id is stored in the log."""
    reconnects: int


class _LogAway(Exception):
    """The log is not available to this process, so it must not keep others from reading."""


class PostgresNotify:
    """Reads one table in the order of its ids. Implements `backends.contract.Backend` with `NotifyOffset`."""

    def __init__(self, options: Mapping[str, object], context: BackendContext) -> None:
        self._options = NotifyOptions.read(options)
        self._catalogue = context.catalogue
        self._log = log.bind(table=self._options.source, database=self._options.shown_dsn)
        self._state = NotifyState.CONNECTING
        self._session: NotifySession | None = None
        self._offset = TableOffset(lookback_ids=self._options.lookback_ids)
        self._offsets: NotifyOffsets | None = None
        self._has_moved = asyncio.Event()
        self._reconnects = 0
        self._warned: set[str] = set()
        self._is_held_back = False

    @property
    def status(self) -> NotifyStatus:
        """The state now."""
        return NotifyStatus(self._state, self._offset.frontier.top, self._offset.safe, self._reconnects)

    # --- the contract -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Check the source, and store where a first start begins. See `Backend.open`."""
        try:
            session = await NotifySession.connect(self._options, self._catalogue)
        except ConnectionLost as error:
            raise SourceUnavailable(f"{self._options.shown_dsn} cannot be reached: {error}") from error
        try:
            if await session.offset() is None:
                await self._make_offset(session)
        except ConnectionLost as error:
            raise SourceUnavailable(f"the connection to {self._options.shown_dsn} was lost: {error}") from error
        finally:
            await session.close()
        try:
            yield
        finally:
            await self._leave()

    async def read(self) -> AsyncIterator[Sequence[_Item]]:
        """Yield rows as they are committed; never ends. See `Backend.read`."""
        backoff = Backoff(_FIRST_PAUSE_S, self._options.retry_max_s)
        while True:
            try:
                session = self._session = await NotifySession.connect(self._options, self._catalogue)
                await self._begin(session)
                backoff.reset()
                keeper = asyncio.create_task(self._keep(session), name="postgres-keeper")
                try:
                    async with aclosing(self._scan_loop(session)) as batches:
                        async for items in batches:
                            yield items
                finally:
                    await cancel_and_wait(keeper)
            except _LogAway:
                await self._drop()
                self._state = NotifyState.LEFT
                self._log.warning("reading_left", reason="the log is not available")
                if self._offsets is not None:
                    await self._offsets.wait_for_log()
            except ConnectionLost as error:
                raise_if_cancelled()
                self._reconnects += 1
                self._log.warning("source_lost", error=str(error))
                self._state = NotifyState.CONNECTING
            await self._drop()
            await asyncio.sleep(backoff.next_s())

    def confirm(self, offset: NotifyOffset) -> None:
        """Record that everything up to `offset` is stored; it is written to the server within half a second."""
        self._offset.confirm(offset)
        self._has_moved.set()

    def offset_text(self, offset: NotifyOffset) -> bytes | None:
        """Write an offset for the log. See `HasOffsets`."""
        return None if self._offsets is None else self._offsets.offset_text(offset.safe)

    def attach(self, offsets: SourceOffsets[NotifyOffset]) -> None:
        """Take the offsets that the log stores about our table. See `HasOffsets`."""
        self._offsets = NotifyOffsets(offsets, self._options)

    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]:
        """Measure how many rows are above our offset. See `backends.backlog.HasBacklog`."""
        return NotifyAdmin(self._options.given).measuring()

    @property
    def leads(self) -> bool:
        """Whether this process holds the lock of the reader. See `HasStandby`."""
        return self._session is not None and self._state is NotifyState.READING

    async def step_down(self) -> None:
        """Release the lock of the reader; the next one begins at the stored offset. See `HasStandby`."""
        await self._leave()
        self._offset = TableOffset(lookback_ids=self._options.lookback_ids)
        self._has_moved.clear()
        self._state = NotifyState.LEFT

    # --- beginning ----------------------------------------------------------------------------------------------

    async def _begin(self, session: NotifySession) -> None:
        """Wait until no other process reads, and determine where to start."""
        for warning in session.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._log.warning("source_imperfect", reason=warning)
        while not await session.lead():
            if self._state is not NotifyState.STANDBY:
                self._state = NotifyState.STANDBY
                self._log.info("leader_awaited", consumer=self._options.consumer)
        await self._check_log()
        offset = await session.offset()
        if offset is None:
            raise SourceError(
                f"our offset in stream_relay.positions on {self._options.shown_dsn} was deleted; start ingest again"
            )
        lowest, safe = offset
        if self._offset.is_behind(safe):
            if self._offsets is not None:
                is_first = self._options.start == "now" and lowest == safe
                begins = await self._offsets.begin(session, safe, is_first=is_first)
                if begins < safe:
                    safe = lowest = begins
                    self._offset.skip_existing(None)
            self._offset.begin(safe, lowest=lowest)
        self._offset.kept = safe
        frontier = self._offset.frontier
        frontier.forget_writers()
        self._state = NotifyState.READING
        self._log.info("reading_started", after=frontier.safe, newest=frontier.top)

    async def _check_log(self) -> None:
        """Raise `_LogAway` if the log is not available: another process should have the lock."""
        if self._offsets is not None:
            try:
                async with asyncio.timeout(_LOG_S):
                    await self._offsets.wait_for_log()
            except TimeoutError:
                raise _LogAway from None

    async def _make_offset(self, session: NotifySession) -> None:
        """Store the offset of a first start."""
        oldest, newest = await session.extent()
        # Sequences start at 1; a table may have lower ids.
        beginning = 0 if oldest is None else min(0, oldest - 1)
        if self._options.start == "beginning":
            await session.begin(beginning)
        # Ids below the newest may be committed later, so begin lower, and skip the rows that exist already.
        elif await session.begin(max(beginning, (newest or 0) - self._options.lookback_ids)):
            self._offset.skip_existing(newest)

    # --- scanning -----------------------------------------------------------------------------------------------

    async def _scan_loop(self, session: NotifySession) -> AsyncGenerator[Sequence[_Item], None]:
        """Scan, yield new rows, update the holes, wait; until the connection breaks."""
        options, offset = self._options, self._offset
        frontier = offset.frontier
        now = asyncio.get_running_loop().time
        look_back_at = 0.0
        while True:
            look_back = now() >= look_back_at
            may_advance = self._may_advance(frontier)
            limit = options.batch_rows
            rows = await session.scan(frontier.spans(look_back=look_back, new=may_advance), limit)
            is_cut = len(rows) == limit
            news = offset.record_scan([row["row_offset"] for row in rows], is_cut=is_cut)
            if look_back and not is_cut:
                look_back_at = now() + _LOOK_BACK_S
            if news:
                yield self._items([row for row in rows if row["row_offset"] in news], session.mapper)
            can_close = frontier.has_holes and frontier.update_writers(await session.writers())
            if is_cut or can_close:
                continue
            offset.mark_all_yielded()
            if offset.safe > offset.kept:
                self._has_moved.set()
            await session.wait(min(options.poll_s, _HOLE_POLL_S) if frontier.has_holes else options.poll_s)

    def _may_advance(self, frontier: Frontier) -> bool:
        may = frontier.ahead <= self._options.ahead_rows
        if self._is_held_back == may:
            self._is_held_back = not may
            if not may:
                self._log.warning("reading_held_back", safe=frontier.safe, newest=frontier.top, reason=_HELD_BACK)
        return may

    def _items(self, rows: list[Any], mapper: TableMapper) -> list[_Item]:
        return [item_of(row, mapper, self._offset.next_offset(row["row_offset"])) for row in rows]

    # --- keeping our offset --------------------------------------------------------------------------------------

    async def _keep(self, session: NotifySession) -> None:
        """Write our offset when it has advanced, else a heartbeat."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_HEARTBEAT_S):
                        await self._has_moved.wait()
                self._has_moved.clear()
                await self._keep_now(session)
                await asyncio.sleep(_KEEP_S)
        except (ConnectionLost, SourceError) as error:
            session.fail(str(error))

    async def _keep_now(self, session: NotifySession) -> None:
        safe, lowest = self._offset.safe, self._offset.lowest
        if safe > self._offset.kept:
            await session.keep(safe, lowest)
            self._offset.kept = safe
        else:
            await session.heartbeat()

    async def _leave(self) -> None:
        session = self._session
        if session is None:
            return
        try:
            async with asyncio.timeout(_LEAVE_S):
                await self._keep_now(session)
        except (ConnectionLost, SourceError, TimeoutError) as error:
            self._log.warning("offset_not_kept", error=str(error) or type(error).__name__)
        await self._drop()

    async def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()
