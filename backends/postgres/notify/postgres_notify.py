"""The backend `postgres-notify`: rounds read from the tables themselves, where logical replication is not available.

Owns the reader's loop over all tables: polling as the guarantee, notifications as the hint, the order of rows of one
turn, the standby while another process reads, and when our offsets are written. What one table yields is decided in
`backends.postgres.notify.table_reader`. See docs/postgres-notify.md
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import asyncpg
import structlog

from backends.backlog import Backlog
from backends.contract import BackendContext, SourceError, SourceOffsets, SourceUnavailable
from backends.postgres.database import ConnectionLost
from backends.postgres.feed.row_feed import RowFeed
from backends.postgres.game_tables import games_of
from backends.postgres.notify.notify_admin import NotifyAdmin
from backends.postgres.notify.notify_offsets import NotifyOffsets
from backends.postgres.notify.notify_options import NotifyOptions
from backends.postgres.notify.notify_session import NotifySession
from backends.postgres.notify.table_offset import Flow, NotifyOffset
from backends.postgres.notify.table_queries import TableQueries
from backends.postgres.notify.table_reader import Found, Item, TableReader
from roundlog.backoff import Backoff
from roundlog.tasks import cancel_and_wait, raise_if_cancelled

log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.05
_HOLE_POLL_S: Final = 0.2
_KEEP_S: Final = 0.5
_HEARTBEAT_S: Final = 2.0
_LEAVE_S: Final = 2.0
_LOG_S: Final = 5.0
"""How long the locks are held while the log is not available, before anything is read."""


class NotifyState(StrEnum):
    """What the reader does. Logs, status and metrics use the same word."""

    CONNECTING = "connecting"
    STANDBY = "standby"  # another process reads
    READING = "reading"
    LEFT = "left"  # nothing could be stored; another process may read


@dataclass(frozen=True, slots=True)
class NotifyStatus:
    """The state of capture, for metrics and health. Ids of several tables are added up."""

    state: NotifyState
    newest: int
    """The newest id read."""
    safe: int
    """Every row up to this id is stored in the log."""
    reconnects: int
    unfinished_rows: int = 0
    """Number of rows that were read and are not finished."""
    given_up_rows: int = 0
    """Number of unfinished rows that are not read again, since there were more than ``unfinished_rows``."""


class _LogAway(Exception):
    """The log is not available to this process, so it must not keep others from reading."""


class PostgresNotify:
    """Reads tables in the order of their ids. Implements `backends.contract.Backend` with `NotifyOffset`."""

    def __init__(self, options: Mapping[str, object], context: BackendContext) -> None:
        given = NotifyOptions.read(options)
        self._options = given.reading
        self._catalogue = context.catalogue
        self._feed = RowFeed(given, context.catalogue) if given.feed else None
        self._games = games_of(given, context.catalogue) if self._feed is None else self._feed.games
        self._flow = Flow()
        self._readers = [
            TableReader(self._options, table, index, self._flow) for index, table in enumerate(self._options.all_tables)
        ]
        self._offsets: list[NotifyOffsets] = []
        self._state = NotifyState.CONNECTING
        self._session: NotifySession | None = None
        self._has_moved = asyncio.Event()
        self._reconnects = 0
        self._warned: set[str] = set()
        tables = ", ".join(reader.table.source for reader in self._readers)
        self._log = log.bind(table=tables, database=self._options.shown_dsn)
        if given.without_effect:
            self._log.warning("source_imperfect", reason=given.without_effect)

    @property
    def status(self) -> NotifyStatus:
        """The state now."""
        offsets = [reader.offset for reader in self._readers]
        return NotifyStatus(
            self._state,
            sum(offset.frontier.top for offset in offsets),
            sum(offset.safe for offset in offsets),
            self._reconnects,
            sum(len(offset.unfinished) for offset in offsets),
            sum(offset.unfinished.given_up for offset in offsets),
        )

    # --- the contract -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Check the source, and store where a first start begins. See `Backend.open`."""
        if self._feed is not None:
            await self._feed.open()
        try:
            session = await self._connect()
        except ConnectionLost as error:
            raise SourceUnavailable(f"{self._options.shown_dsn} cannot be reached: {error}") from error
        try:
            for reader, queries in zip(self._readers, session.tables, strict=True):
                await reader.make_offset(session, queries)
        except ConnectionLost as error:
            raise SourceUnavailable(f"the connection to {self._options.shown_dsn} was lost: {error}") from error
        finally:
            await session.close()
        feeding = asyncio.create_task(self._feed.keep(leads=lambda: self.leads)) if self._feed is not None else None
        try:
            yield
        finally:
            if feeding is not None:
                await cancel_and_wait(feeding)
            await self._leave()

    async def read(self) -> AsyncIterator[Sequence[Item]]:
        """Yield rows as they are committed; never ends. See `Backend.read`."""
        backoff = Backoff(_FIRST_PAUSE_S, self._options.retry_max_s)
        while True:
            try:
                session = self._session = await self._connect()
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
                if self._offsets:
                    await self._offsets[0].wait_for_log()
            except SourceError as error:
                if isinstance(error.__cause__, asyncpg.UndefinedColumnError) and self._state is NotifyState.READING:
                    await self._drop()
                    with suppress(ConnectionLost):  # raises the sentence that names the option of the column
                        await (await self._connect()).close()
                raise
            except ConnectionLost as error:
                raise_if_cancelled()
                self._reconnects += 1
                self._log.warning("source_lost", error=str(error))
                self._state = NotifyState.CONNECTING
            await self._drop()
            await asyncio.sleep(backoff.next_s())

    def confirm(self, offset: NotifyOffset) -> None:
        """Record that everything up to `offset` is stored; it is written to the server within half a second."""
        self._flow.confirm(offset)
        self._has_moved.set()

    def offset_text(self, offset: NotifyOffset) -> bytes | None:
        """Write an offset for the log. See `HasOffsets`."""
        return self._offsets[offset.table].offset_text(offset.safe) if self._offsets else None

    def attach(self, offsets: SourceOffsets[NotifyOffset]) -> None:
        """Take the offsets that the log stores about our tables. See `HasOffsets`."""
        self._offsets = [NotifyOffsets(offsets, self._options, reader.table) for reader in self._readers]

    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]:
        """Measure how many rows are above our offsets. See `backends.backlog.HasBacklog`."""
        return NotifyAdmin(self._options.given).measuring()

    @property
    def leads(self) -> bool:
        """Whether this process holds the locks of the reader. See `HasStandby`."""
        return self._session is not None and self._state is NotifyState.READING

    async def step_down(self) -> None:
        """Release the locks of the reader; the next one begins at the stored offsets. See `HasStandby`."""
        await self._leave()
        # Offsets of what was read until now are not confirmed any more.
        self._flow.forget()
        for reader in self._readers:
            reader.reset()
        self._has_moved.clear()
        self._state = NotifyState.LEFT

    # --- beginning ----------------------------------------------------------------------------------------------

    async def _connect(self) -> NotifySession:
        feed = None if self._feed is None else self._feed.tables
        return await NotifySession.connect(self._options, self._catalogue, games=self._games, feed=feed)

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
        for reader, queries in zip(self._readers, session.tables, strict=True):
            await reader.begin(session, queries, self._offsets[reader.index] if self._offsets else None)
        self._state = NotifyState.READING
        for reader in self._readers:
            frontier = reader.offset.frontier
            reader.log.info("reading_started", after=frontier.safe, newest=frontier.top)

    async def _check_log(self) -> None:
        """Raise `_LogAway` if the log is not available: another process should have the locks."""
        if self._offsets:
            try:
                async with asyncio.timeout(_LOG_S):
                    await self._offsets[0].wait_for_log()
            except TimeoutError:
                raise _LogAway from None

    # --- scanning -----------------------------------------------------------------------------------------------

    async def _scan_loop(self, session: NotifySession) -> AsyncGenerator[Sequence[Item], None]:
        """Scan all tables, yield new rows, update the holes, wait; until the connection breaks."""
        options, pairs = self._options, list(zip(self._readers, session.tables, strict=True))
        # Tables share a batch, so that a backlog in one of them does not delay the others.
        limit = max(1, options.batch_rows // len(pairs))
        while True:
            for reader, queries in pairs:
                await reader.look_at(queries, session)
            async with session.snapshot():
                scans = [await reader.scan(queries, limit) for reader, queries in pairs]
            taken = [reader.take(scan, queries) for (reader, queries), scan in zip(pairs, scans, strict=True)]
            if found := [row for rows, _ in taken for row in rows]:
                yield self._items(found, session.tables)
            is_busy = any(is_cut for _, is_cut in taken)
            for reader, queries in pairs:
                is_busy |= await reader.close_holes(queries)
            if is_busy:
                continue
            for reader in self._readers:
                reader.offset.mark_all_yielded()
            if any(reader.has_moved for reader in self._readers):
                self._has_moved.set()
            has_holes = any(reader.offset.frontier.has_holes for reader in self._readers)
            await session.wait(min(options.poll_s, _HOLE_POLL_S) if has_holes else options.poll_s)

    def _items(self, found: list[Found], tables: Sequence[TableQueries]) -> list[Item]:
        """Make the items of one turn, in the order of their commits if they need not be in that of their ids."""
        if len(tables) > 1 or tables[0].is_updated:
            found.sort(key=lambda row: row.committed)
        if len(tables) == 1:
            (reader,) = self._readers
            own_offsets = reader.offset.offsets_of([row.number for row in found], self._flow.numbers(len(found)))
            return [reader.item_of(row, offset, tables[0]) for row, offset in zip(found, own_offsets, strict=True)]
        numbers = self._flow.numbers(len(found))
        offsets: dict[int, NotifyOffset] = {}
        for reader in self._readers:
            own = [index for index, row in enumerate(found) if row.reader is reader]
            ids, counts = [found[index].number for index in own], [numbers[index] for index in own]
            offsets.update(zip(own, reader.offset.offsets_of(ids, counts), strict=True))
        return [row.reader.item_of(row, offsets[index], tables[row.reader.index]) for index, row in enumerate(found)]

    # --- keeping our offsets -------------------------------------------------------------------------------------

    async def _keep(self, session: NotifySession) -> None:
        """Write our offsets when they have advanced, else a heartbeat."""
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
        kept = [await reader.keep(session) for reader in self._readers]
        if not any(kept):
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
