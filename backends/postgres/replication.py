"""The backend `postgres-replication`: rounds from the write-ahead log, milliseconds after their commit.

Owns the life of the stream: connecting, standing by while another process reads the slot, telling the server how far we
are, and beginning again after every loss. What frames mean is in `backends.postgres.capture`, what can be wrong with a
slot in `backends.postgres.slot`. How it behaves, and why: docs/postgres-replication.md
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import urlsplit

import structlog
from psycopg.errors import Diagnostic

from backends.backlog import Backlog
from backends.backoff import Backoff, spread
from backends.contract import BackendContext, Places, PlaceTaken, SourceError
from backends.postgres.capture import Capture, Item, TableRenamed, WalPosition
from backends.postgres.cover import cover
from backends.postgres.link import Link, ServerError, StreamLost
from backends.postgres.options import quote_identifier, quote_literal
from backends.postgres.pgoutput import InvalidMessage
from backends.postgres.proof import Proof
from backends.postgres.replication_care import ReplicationCare
from backends.postgres.slot import (
    ReplicationOptions,
    Slot,
    SlotLost,
    SlotState,
    check_slot,
    check_source,
    create_missing,
)
from backends.postgres.statements import statement
from backends.postgres.wal import format_lsn, parse_lsn, status_update
from backends.tasks import ended

log = structlog.get_logger()

_FIRST_PAUSE_S: Final = 0.05
_STANDBY_LOOK_S: Final = 0.1
_CONFIRM_S: Final = 0.1
_TICKS: Final = 4
"""Status messages within ``sender_timeout_s``."""
_LEAVE_S: Final = 0.5
"""A stream that nobody reads for so long, while nothing gets confirmed either, is left. See `_leave_if_stuck`."""
_HURRIES: Final = 5
_HURRY_S: Final = 0.25

_CANCEL_S: Final = 0.1

_NO_ROLE: Final = re.compile(r"\bwal ?sender\b", re.IGNORECASE)

_SLOT_ACTIVE: Final = "55006"
_NOT_IN_STATE: Final = "55000"
_UNDEFINED: Final = "42704"
_PUBLICATION_SKIPPED: Final = "skipped loading publication"


@dataclass(frozen=True, slots=True)
class ReplicationStatus:
    """How capture is doing, for metrics and health."""

    state: SlotState
    received_lsn: int
    confirmed_lsn: int
    """What the server was told last."""
    last_commit_ms: int
    """When the newest transaction received was committed, Unix milliseconds; 0: none yet."""
    reconnects: int


class PostgresReplication:
    """Reads one table through one slot. Implements `backends.contract.Backend` with `WalPosition`."""

    def __init__(self, options: Mapping[str, object], context: BackendContext) -> None:
        self._options = ReplicationOptions.read(options)
        self._capture = Capture(self._options, context.catalogue)
        self._log = log.bind(slot=self._options.slot, database=self._options.shown_dsn)
        self._link: Link | None = None
        self._state = SlotState.CONNECTING
        self._history: tuple[str, str] | None = None  # the server's system id and timeline
        self._told = 0  # the highest LSN confirmed to the server in this history
        self._proof: Proof | None = None
        self._covered = 0  # up to here the place may move although no round says so
        self._publication: str | None = None  # which one we read with, see `Slot.publication`
        self._shared = False  # whether another process has read the slot since
        self._own_pid = 0  # of our former connection
        self._suspect: ServerError | None = None  # what the server ended the last stream with
        self._reconnects = 0
        self._confirmed_at = 0.0
        self._began_at = 0.0
        self._telling: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._hurries = 0
        self._hurried_at = 0.0

    @property
    def status(self) -> ReplicationStatus:
        """How it is doing now."""
        capture = self._capture
        return ReplicationStatus(
            self._state, capture.received_lsn, self._told, capture.last_commit_ms, self._reconnects
        )

    # --- the contract -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Check the source, and make what is missing if the options say so. See `Backend.open`."""
        try:
            await self._prepare()
        except StreamLost as error:
            raise SourceError(f"{error}{self._advice(error)}") from error
        except SlotLost as error:
            self._state = error.state
            raise
        heartbeat = asyncio.create_task(self._beat(), name="postgres-heartbeat")
        try:
            yield
        finally:
            await ended(heartbeat, again_s=_CANCEL_S)
            await self._close()

    async def read(self) -> AsyncIterator[Sequence[Item]]:
        """Yield rounds as they are committed; never ends. See `Backend.read`."""
        backoff = Backoff(_FIRST_PAUSE_S, self._options.retry_max_s)
        while True:
            try:
                link = await self._begin()
                async with self._kept_alive(link):
                    while True:
                        items, reply_requested = self._capture.feed(await link.receive())
                        if reply_requested:
                            self._answer(link)
                        if items:
                            self._leave_after(_LEAVE_S)
                            try:
                                yield items
                            finally:
                                self._stay()
            except InvalidMessage as error:
                raise SourceError(f"{self._options.shown_dsn} sent what is not understood: {error}") from error
            except (StreamLost, PlaceTaken, TableRenamed) as error:
                if await self._on_lost(error):
                    backoff.reset()
            except SlotLost as error:
                self._state = error.state
                raise
            await asyncio.sleep(backoff.next_s())

    def confirm(self, position: WalPosition) -> None:
        """Take note that everything up to `position` is stored; the server hears of it within a tenth of a second."""
        self._capture.confirm(position)
        loop = asyncio.get_running_loop()
        self._confirmed_at = loop.time()
        if self._telling is None and self._link is not None:
            self._telling = loop.call_later(_CONFIRM_S, self._tell_now)

    def place(self, position: WalPosition) -> bytes | None:
        """Write a position for the log. See `HasPlaces`."""
        return None if self._proof is None else self._proof.place(position)

    def attach(self, places: Places[WalPosition]) -> None:
        """Take what the log remembers of our slot. See `HasPlaces`."""
        self._proof = Proof(places, self._options)

    def measuring(self) -> AbstractAsyncContextManager[Callable[[], Awaitable[Backlog]]]:
        """Ask the server how much it keeps for us. See `backends.backlog.HasBacklog`."""
        return ReplicationCare(self._options.given).measuring()

    # --- beginning ----------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        options = self._options
        link = await Link.connect(options)
        try:
            await check_source(link, options)
            if options.create and (lsn := await create_missing(link, options)) is not None:
                self._log.warning("slot_created", lsn=format_lsn(lsn), publication=options.publication)
            await check_slot(link, options)
        finally:
            await link.close()

    async def _begin(self) -> Link:
        """Connect, wait until the slot is free, and start the stream."""
        options = self._options
        self._state = SlotState.CONNECTING
        timeout = f"{round(options.sender_timeout_s * 1000)}"
        link = await Link.connect(options, settings={"wal_sender_timeout": timeout})
        try:
            link.on_notice(lambda notice: self._on_notice(link, notice))
            # What is there is asked over another connection: a session that has seen the table as it is now decodes
            # rows from before a change of it by the new columns, and fails, or worse.
            look = await Link.connect(options, replication=False)
            try:
                await self._start(link, look)
            finally:
                await look.close()
        except BaseException:
            await link.close()
            raise
        self._link = link
        self._own_pid = link.pid
        self._began_at = self._confirmed_at = asyncio.get_running_loop().time()
        self._state = SlotState.STREAMING
        self._log.info("stream_started", from_lsn=format_lsn(self._capture.start_lsn), server_process=link.pid)
        return link

    async def _start(self, link: Link, look: Link) -> None:
        options, capture = self._options, self._capture
        while True:
            slot = await self._free_slot(look)
            await self._follow_history(link, slot)
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

    async def _free_slot(self, link: Link) -> Slot:
        """Wait, however long, until nobody reads the slot: we are the hot standby."""
        options = self._options
        waited = False
        while (slot := await check_slot(link, options)).holder is not None:
            # Our own former connection holds it too, until the server has noticed that it is gone.
            self._shared |= slot.holder != self._own_pid
            if not waited:
                waited = True
                self._state = SlotState.STANDBY
                self._log.info("slot_awaited", holder=slot.holder)
            await asyncio.sleep(spread(_STANDBY_LOOK_S))
        suspect, self._suspect = self._suspect, None
        if suspect is not None and suspect.sqlstate == _UNDEFINED:
            # Slot and publication stand, and yet the stream found one missing: the publication, at an earlier time.
            raise SlotLost(SlotState.PUBLICATION_LATE, options)
        if suspect is not None:
            raise SlotLost(SlotState.INVALIDATED, options, suspect.message)
        return slot

    async def _follow_history(self, link: Link, slot: Slot) -> None:
        """Decide where to start: where we were, unless the server's history is another or the slot was moved on.

        Raises:
            SlotLost: The slot is further than the log and we know of, or was read with another publication.
        """
        capture = self._capture
        (system,) = await link.query("IDENTIFY_SYSTEM", self._options.connect_timeout_s)
        history = (system["systemid"] or "", system["timeline"] or "")
        is_ours = history == self._history and parse_lsn(system["xlogpos"] or "0/0") >= capture.start_lsn
        if is_ours and self._publication not in (None, slot.publication):
            raise SlotLost(SlotState.PUBLICATION_CHANGED, self._options, at=format_lsn(slot.confirmed_lsn))
        if not is_ours or slot.confirmed_lsn > self._told:
            proven = await self._prove(system["systemid"] or "", slot)
            if is_ours:
                if not (proven or self._shared):
                    detail = f"from {format_lsn(self._told)} to {format_lsn(slot.confirmed_lsn)}"
                    raise SlotLost(SlotState.MOVED, self._options, detail, at=format_lsn(slot.confirmed_lsn))
                self._log.info("slot_moved_on", by_bytes=slot.confirmed_lsn - self._told)
                capture.skip_to(slot.confirmed_lsn)
                self._told = self._covered = slot.confirmed_lsn
            else:
                self._begin_history(history, slot)
        self._publication = slot.publication
        self._shared = False

    def _begin_history(self, history: tuple[str, str], slot: Slot) -> None:
        if self._history is not None:
            # A failover, or a restored backup: what we saw beyond the slot's place may not have survived. The
            # rounds between come again, and those that did survive are recognised in the log.
            self._log.warning("source_changed", at=format_lsn(slot.confirmed_lsn), was=format_lsn(self._told))
        self._capture.begin_history(slot.confirmed_lsn)
        self._history, self._told, self._covered = history, slot.confirmed_lsn, slot.confirmed_lsn

    async def _prove(self, system: str, slot: Slot) -> bool:
        """Hold the slot against the log, and learn which rounds it yields again; whether the log knows the slot."""
        return self._proof is not None and await self._proof.of_slot(system, slot)

    # --- keeping in touch ---------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _kept_alive(self, link: Link) -> AsyncIterator[None]:
        """Send status on a timer of its own: the server must hear from us however long a batch takes."""
        timer = asyncio.create_task(self._keep_alive(link), name="postgres-status")
        publication = self._publication or ""
        keep = partial(self._keep, link, publication)
        covering = cover(link, self._options, publication, due=self._due, keep=keep)
        moving = asyncio.create_task(covering, name="postgres-cover")
        try:
            yield
        finally:
            await ended(timer, moving, again_s=_CANCEL_S)

    async def _keep_alive(self, link: Link) -> None:
        timeout_s = self._options.sender_timeout_s
        try:
            while True:
                self._tell(link, want_reply=True)
                await asyncio.sleep(timeout_s / _TICKS)
                if link.silent_s > timeout_s:
                    raise StreamLost(f"the server has been silent for {link.silent_s:.1f} s")
        except StreamLost as error:
            link.fail(error)

    def _due(self) -> int | None:
        """Return how far the place could move if it were sure that nothing was kept from us; None: no further."""
        place = self._capture.confirmed_lsn
        return place if place > self._safe_lsn else None

    async def _keep(self, link: Link, publication: str, place: int) -> None:
        if self._proof is not None:
            # Beside the log, and first: after a restart it would look as if somebody had moved the slot.
            await self._proof.keep(place, publication)
        self._covered = max(self._covered, place)
        self._tell(link)

    @property
    def _safe_lsn(self) -> int:
        """Up to where the server may forget, and every process after us can tell that it was we who said so."""
        capture = self._capture
        stored = capture.stored_lsn if self._proof is None else self._proof.stored_lsn(capture.generation)
        return max(self._told, min(capture.confirmed_lsn, max(self._covered, stored)))

    def _tell(self, link: Link, *, want_reply: bool = False) -> None:
        link.send(self._status(want_reply=want_reply))
        self._told = self._safe_lsn

    def _tell_now(self) -> None:
        self._telling = None
        if self._link is not None:
            try:
                self._tell(self._link)
            except StreamLost as error:
                self._link.fail(error)

    def _status(self, *, want_reply: bool = False) -> bytes:
        capture = self._capture
        return status_update(
            received=capture.received_lsn,
            confirmed=self._safe_lsn,
            unix_us=time.time_ns() // 1000,
            want_reply=want_reply,
        )

    def _answer(self, link: Link) -> None:
        """Reply to a server that asks; leave one that asks again and again.

        A server that shuts down waits for us to confirm all it sent, and asks in a tight loop. What is not safe cannot
        be confirmed, so without leaving, its shutdown would last until the broker is back.
        """
        now = asyncio.get_running_loop().time()
        self._hurries = self._hurries + 1 if now - self._hurried_at < _HURRY_S else 0
        self._hurried_at = now
        self._tell(link)
        if self._hurries >= _HURRIES:
            self._hurries = 0
            if not self._capture.idle or self._safe_lsn < self._capture.confirmed_lsn:
                raise StreamLost("the server is shutting down")

    # --- leaving ------------------------------------------------------------------------------------------------

    def _leave_after(self, delay_s: float) -> None:
        self._leaving = asyncio.get_running_loop().call_later(delay_s, self._leave_if_stuck)

    def _stay(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def _leave_if_stuck(self) -> None:
        """Let go of the slot while the log takes nothing.

        We do not read then, so we would not see the server shut down, and it would wait for us. The next stream goes on
        where this one stopped, and meanwhile another process may do better.
        """
        quiet_s = asyncio.get_running_loop().time() - self._confirmed_at
        if quiet_s < _LEAVE_S:
            self._leave_after(_LEAVE_S - quiet_s)
        elif self._closing is None:
            self._state = SlotState.LEFT
            self._log.warning("stream_left", reason="nothing could be stored", quiet_s=round(quiet_s, 1))
            self._closing = asyncio.create_task(self._let_go(), name="postgres-leave")

    async def _close(self) -> None:
        """Leave the stream, telling the server a last time how far we are."""
        if self._closing is not None:
            await asyncio.wait([self._closing])
            self._closing = None
        await self._let_go()

    async def _let_go(self) -> None:
        link, self._link = self._link, None
        self._stay()
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if link is not None:
            last = self._status()
            self._told = self._safe_lsn
            await link.close(last)

    async def _on_lost(self, error: StreamLost | PlaceTaken | TableRenamed) -> bool:
        """Clear up after a stream; return whether it had lasted, so that the next attempt need not wait long."""
        if isinstance(error, ServerError) and error.sqlstate in (_UNDEFINED, _NOT_IN_STATE):
            self._suspect = error
        age_s = asyncio.get_running_loop().time() - self._began_at
        lasted = self._link is not None and age_s > self._options.retry_max_s
        await self._close()
        self._state = SlotState.CONNECTING
        self._reconnects += 1
        self._log.warning("stream_lost", error=str(error))
        return lasted

    def _on_notice(self, link: Link, notice: Diagnostic) -> None:
        """From PostgreSQL 18 on, rows of a publication that is not there yet are passed over with a mere warning."""
        message = notice.message_primary or ""
        if message.startswith(_PUBLICATION_SKIPPED):
            link.fail(ServerError(_UNDEFINED, message))

    def _advice(self, error: StreamLost) -> str:
        user = urlsplit(self._options.dsn.get_secret_value()).username
        return (
            f"; run: ALTER ROLE {quote_identifier(user)} REPLICATION;" if user and _NO_ROLE.search(str(error)) else ""
        )

    async def _beat(self) -> None:
        """Write heartbeats, if wanted, over a connection of its own. Losing it loses nothing."""
        every_s, timeout_s = self._options.heartbeat_s, self._options.connect_timeout_s
        while every_s:
            try:
                link = await Link.connect(self._options, replication=False)
                try:
                    while True:
                        await link.query(statement("emit_heartbeat"), timeout_s)
                        await asyncio.sleep(every_s)
                finally:
                    await link.close()
            except StreamLost as error:
                self._log.warning("heartbeat_failed", error=str(error))
            await asyncio.sleep(every_s)
