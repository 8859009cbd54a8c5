"""The backend `postgres-notify`: rounds read from the table itself, for where logical replication may not be had.

Owns the life of the reader: polling as the guarantee, wake-ups as the hint, standing by while another process reads,
and keeping our place. Which rows are new is decided in `backends.postgres.frontier`. See docs/postgres-notify.md
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

import msgspec
import structlog

from backends.backlog import Backlog
from backends.backoff import Backoff
from backends.contract import BackendContext, Captured, Places, Rejected, SourceError
from backends.postgres.frontier import MAX_ID, MIN_ID, Frontier
from backends.postgres.mapping import FIELDS, RowMapper
from backends.postgres.notify_care import NotifyCare
from backends.postgres.notify_options import NotifyOptions
from backends.postgres.notify_places import NotifyPlaces
from backends.postgres.notify_session import ConnectionLost, Session
from rounds import InvalidRound, Round

log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.05
_HOLE_POLL_S: Final = 0.2
_LOOK_BACK_S: Final = 30.0
_KEEP_S: Final = 0.5
_BEAT_S: Final = 2.0
_GOODBYE_S: Final = 2.0
_HELD_BACK: Final = "a transaction that has inserted rows stays open; see pg_stat_activity for the oldest xact_start"


class NotifyPosition(NamedTuple):
    """A place in the table. Positions grow."""

    number: int
    """How many rows were read by this process up to here."""
    safe: int
    """Every row up to this id was read at or before this position."""


Item = Captured[NotifyPosition] | Rejected[NotifyPosition]


class NotifyState(StrEnum):
    """What the reader does. The same word in logs, status and metrics."""

    CONNECTING = "connecting"
    STANDBY = "standby"  # another process reads; we wait
    READING = "reading"


@dataclass(frozen=True, slots=True)
class NotifyStatus:
    """How capture is doing, for metrics and health."""

    state: NotifyState
    newest: int
    """The newest id read."""
    safe: int
    """Every row up to this id is stored in the log."""
    reconnects: int


class PostgresNotify:
    """Reads one table by its growing ids. Implements `backends.contract.Backend` with `NotifyPosition`."""

    def __init__(self, options: Mapping[str, object], context: BackendContext) -> None:
        self._options = NotifyOptions.read(options)
        self._mapper = RowMapper(context.catalogue, self._options.table)
        self._log = log.bind(table=self._options.source, database=self._options.shown_dsn)
        self._state = NotifyState.CONNECTING
        self._session: Session | None = None
        self._frontier: Frontier | None = None
        self._began_at: int | None = None  # the newest id at a first start "now"
        self._absorb_to: int | None = (
            None  # rows up to this that the first scan finds were there before a first start "now"
        )
        self._places: NotifyPlaces | None = None
        self._read = 0  # rows yielded
        self._safe_yielded = 0
        self._confirmed = NotifyPosition(0, 0)
        self._kept = 0  # what the server knows
        self._dirty = asyncio.Event()
        self._reconnects = 0
        self._warned: set[str] = set()
        self._held_back = False

    @property
    def status(self) -> NotifyStatus:
        """How it is doing now."""
        newest = self._frontier.top if self._frontier else 0
        return NotifyStatus(self._state, newest, self._place(), self._reconnects)

    # --- the contract -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """See that the source can be used, and mark where a first start begins. See `Backend.open`."""
        try:
            session = await Session.connect(self._options)
        except ConnectionLost as error:
            raise SourceError(f"{self._options.shown_dsn} cannot be reached: {error}") from error
        try:
            if await session.position() is None:
                await self._make_place(session)
        except ConnectionLost as error:
            raise SourceError(f"{self._options.shown_dsn} was lost: {error}") from error
        finally:
            await session.close()
        try:
            yield
        finally:
            await self._leave()

    async def read(self) -> AsyncIterator[Sequence[Item]]:
        """Yield rows as they are committed; never ends. See `Backend.read`."""
        backoff = Backoff(_FIRST_PAUSE_S, self._options.retry_max_s)
        while True:
            try:
                session = self._session = await Session.connect(self._options)
                await self._begin(session)
                backoff.reset()
                keeper = asyncio.create_task(self._keep(session), name="postgres-keeper")
                try:
                    async with aclosing(self._follow(session)) as batches:
                        async for items in batches:
                            yield items
                finally:
                    keeper.cancel()
                    await asyncio.wait([keeper])
            except ConnectionLost as error:
                self._reconnects += 1
                self._log.warning("source_lost", error=str(error))
                self._state = NotifyState.CONNECTING
            await self._drop()
            await asyncio.sleep(backoff.next_s())

    def confirm(self, position: NotifyPosition) -> None:
        """Take note that everything up to `position` is stored; the server hears of it within half a second."""
        self._confirmed = max(self._confirmed, position)
        self._dirty.set()

    def place(self, position: NotifyPosition) -> bytes | None:
        """Write a position for the log. See `HasPlaces`."""
        return None if self._places is None else self._places.place(position.safe)

    def attach(self, places: Places[NotifyPosition]) -> None:
        """Take what the log remembers of our table. See `HasPlaces`."""
        self._places = NotifyPlaces(places, self._options)

    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]:
        """Ask the server how many rows are beyond our place. See `backends.backlog.HasBacklog`."""
        return NotifyCare(self._options.given).measuring()

    # --- beginning ----------------------------------------------------------------------------------------------

    async def _begin(self, session: Session) -> None:
        """Wait until nobody else reads, and find out where to go on."""
        for warning in session.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                self._log.warning("source_imperfect", reason=warning)
        while not await session.lead():
            if self._state is not NotifyState.STANDBY:
                self._state = NotifyState.STANDBY
                self._log.info("leader_awaited", consumer=self._options.consumer)
        place = await session.position()
        if place is None:
            raise SourceError(f"our place in stream_relay.positions on {self._options.shown_dsn} is gone; start again")
        lowest, safe = place
        if self._frontier is None or safe > max(self._kept, self._frontier.safe):
            # The first time, or another process has read on meanwhile.
            if self._places is not None:
                is_first = self._options.start == "now" and lowest == safe
                begins = await self._places.begin(session, safe, is_first=is_first)
                if begins < safe:
                    safe = lowest = begins
                    self._began_at = self._absorb_to = None
            self._frontier = Frontier(safe, lowest=lowest, lookback=self._options.lookback_ids)
        self._kept = safe
        self._frontier.forget_holders()
        self._state = NotifyState.READING
        self._log.info("reading_started", after=self._frontier.safe, newest=self._frontier.top)

    async def _make_place(self, session: Session) -> None:
        """Decide where the very first start begins."""
        oldest, newest = await session.extent()
        # Sequences start at 1; a table that has gone lower goes on from there.
        beginning = 0 if oldest is None else min(0, oldest - 1)
        if self._options.start == "beginning":
            await session.begin(beginning)
        # Some id below the newest may yet be committed, so we begin lower, and pass over what is there already.
        elif await session.begin(max(beginning, (newest or 0) - self._options.lookback_ids)):
            self._began_at = self._absorb_to = newest

    # --- following ----------------------------------------------------------------------------------------------

    async def _follow(self, session: Session) -> AsyncGenerator[Sequence[Item], None]:
        """Scan, give out what is new, see about holes, wait; until the connection breaks."""
        options, frontier = self._options, self._frontier
        if frontier is None:
            raise AssertionError("begun")
        now = asyncio.get_running_loop().time
        look_back_at = 0.0
        while True:
            look_back = now() >= look_back_at
            may_advance = self._may_advance(frontier)
            limit = options.batch_rows
            rows = await session.scan(frontier.spans(look_back=look_back, new=may_advance), limit)
            is_cut = len(rows) == limit
            news = set(frontier.see((row["place"] for row in rows), up_to=rows[-1]["place"] if is_cut else MAX_ID))
            if look_back and not is_cut:
                look_back_at = now() + _LOOK_BACK_S
            wanted = [row for row in rows if row["place"] in news and not self._is_absorbed(row["place"])]
            if not is_cut:
                self._absorb_to = None
            if wanted:
                yield self._items(wanted, frontier, session.has_game_type)
            decided = frontier.has_holes and frontier.judge(await session.writers())
            if is_cut or decided:
                continue
            self._absorb_to = None
            self._safe_yielded = max(self._safe_yielded, frontier.safe)
            if self._place() > self._kept:
                self._dirty.set()
            await session.wait(min(options.poll_s, _HOLE_POLL_S) if frontier.has_holes else options.poll_s)

    def _is_absorbed(self, place: int) -> bool:
        return self._absorb_to is not None and place <= self._absorb_to

    def _may_advance(self, frontier: Frontier) -> bool:
        may = frontier.ahead <= self._options.ahead_rows
        if self._held_back == may:
            self._held_back = not may
            if not may:
                self._log.warning("reading_held_back", safe=frontier.safe, newest=frontier.top, reason=_HELD_BACK)
        return may

    def _items(self, rows: list[Any], frontier: Frontier, has_game_type: bool) -> list[Item]:
        items: list[Item] = []
        for row in rows:
            self._read += 1
            self._safe_yielded = max(self._safe_yielded, min(row["place"], frontier.safe))
            position = NotifyPosition(self._read, self._safe_yielded)
            try:
                items.append(Captured(round_of(row, self._mapper, has_game_type=has_game_type), position))
            except InvalidRound as error:
                items.append(self._mapper.reject([row[field] for field in FIELDS], str(error), position))
        return items

    # --- keeping our place --------------------------------------------------------------------------------------

    def _place(self) -> int:
        """Up to where everything is stored; what died or was passed over counts once all that was read is."""
        if self._confirmed.number == self._read and self._frontier is not None and self._absorb_to is None:
            return max(self._kept, self._frontier.safe)
        return max(self._kept, self._confirmed.safe)

    async def _keep(self, session: Session) -> None:
        """Write our place when it has moved, and let the server hear of us in any case."""
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_BEAT_S):
                        await self._dirty.wait()
                self._dirty.clear()
                await self._keep_now(session)
                await asyncio.sleep(_KEEP_S)
        except (ConnectionLost, SourceError) as error:
            session.fail(str(error))

    async def _keep_now(self, session: Session) -> None:
        place = self._place()
        if place > self._kept:
            # Beyond the rows that a first start passed over, they need not be told from new ones any more.
            lowest = self._began_at if self._began_at is not None and place >= self._began_at else MIN_ID
            await session.keep(place, lowest)
            self._kept = place
        else:
            await session.beat()

    async def _leave(self) -> None:
        session = self._session
        if session is None:
            return
        try:
            async with asyncio.timeout(_GOODBYE_S):
                await self._keep_now(session)
        except (ConnectionLost, SourceError, TimeoutError) as error:
            self._log.warning("place_not_kept", error=str(error) or type(error).__name__)
        await self._drop()

    async def _drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()


def round_of(row: Any, mapper: RowMapper, *, has_game_type: bool) -> Round:
    """Make a round of a row that one of our queries found; raise `InvalidRound` when it is none.

    Where commit times are not kept, the end of the round stands for its commit: the same at every reading.
    """
    values = [row[field] for field in FIELDS]
    if not has_game_type:
        values[FIELDS.index("game_type")] = None  # the query named another column in its place
    committed_ms = row["committed_ms"]
    round_ = mapper.to_round(values, committed_ms or 0)
    if committed_ms is not None:
        return round_
    return msgspec.structs.replace(round_, timestamp=max(0, int(round_.finished.timestamp() * 1000)))
