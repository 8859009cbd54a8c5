"""One stream of a slot: read it, tell the server how far we are, and let go of it when that is better for all.

Owns the status messages, when they are sent, and when a stream is left although it works. Knows neither how a stream
begins nor what comes after it. What frames mean is in `capture`, what the server may be told in
`slot_offset`. How it behaves, and why: docs/postgres-replication.md
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog

from backends.postgres.replication.capture import Capture, Item
from backends.postgres.replication.protocol.connection import ReplicationConnection, StreamLost
from backends.postgres.replication.protocol.wal import status_update
from backends.postgres.replication.publication_watch import cover
from backends.postgres.replication.slot import ReplicationOptions
from backends.postgres.replication.slot_offset import SlotOffset
from roundlog.tasks import ended

log = structlog.get_logger()

_CONFIRM_S: Final = 0.1
_TICKS: Final = 4
"""Status messages within ``sender_timeout_s``."""
_LEAVE_S: Final = 0.5
"""A stream that nobody reads for so long, while nothing gets confirmed either, is left. See `_leave_if_stuck`."""
_HURRIES: Final = 5
_HURRY_S: Final = 0.25
_CANCEL_S: Final = 0.1


class ReplicationStream:
    """Made when the server has begun to send; `close` it whatever happened."""

    def __init__(
        self,
        link: ReplicationConnection,
        capture: Capture,
        offset: SlotOffset,
        options: ReplicationOptions,
        *,
        on_left: Callable[[], None],
    ) -> None:
        """Take over `link`, on which the stream runs; `on_left` is called when the stream is left by itself."""
        self._link = link
        self._capture = capture
        self._place = offset
        self._options = options
        self._on_left = on_left
        self._log = log.bind(**options.log_fields)
        self._now = asyncio.get_running_loop().time
        self._began_at = self._confirmed_at = self._now()
        self._is_closed = False
        self._telling: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._hurries = 0
        self._hurried_at = 0.0

    @property
    def lasted_s(self) -> float:
        """For how long it has been there; 0 once it was left or closed."""
        return 0.0 if self._is_closed else self._now() - self._began_at

    async def receive(self) -> list[Item]:
        """Return what came next, perhaps nothing; waits however long.

        Raises:
            StreamLost: It ended, was left, or should not be gone on with.
            InvalidMessage, ColumnMissing, TableRenamed: As `Capture.feed`.
        """
        items, reply_requested = self._capture.feed(await self._link.receive())
        if reply_requested:
            self._answer()
        return items

    @contextmanager
    def given_out(self) -> Iterator[None]:
        """Leave the stream if this block, in which others have what was received, lasts while the log takes nothing."""
        self._leave_after(_LEAVE_S)
        try:
            yield
        finally:
            self._stay()

    def confirmed(self) -> None:
        """Take note that `capture` was told of something stored; the server hears of it within a tenth of a second."""
        self._confirmed_at = self._now()
        if self._telling is None and not self._is_closed:
            self._telling = asyncio.get_running_loop().call_later(_CONFIRM_S, self._tell_now)

    # --- telling ------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send status on a timer of its own: the server must hear from us however long a batch takes."""
        timer = asyncio.create_task(self._keep_alive(), name="postgres-status")
        covering = cover(self._link, self._options, self._place.publication, due=self._place.due, keep=self._move_to)
        moving = asyncio.create_task(covering, name="postgres-cover")
        try:
            yield
        finally:
            await ended(timer, moving, again_s=_CANCEL_S)

    async def _keep_alive(self) -> None:
        link, timeout_s = self._link, self._options.sender_timeout_s
        try:
            while True:
                self._tell(want_reply=True)
                await asyncio.sleep(timeout_s / _TICKS)
                if link.silent_s > timeout_s:
                    raise StreamLost(f"the server has been silent for {link.silent_s:.1f} s")
        except StreamLost as error:
            link.fail(error)

    async def _move_to(self, lsn: int) -> None:
        await self._place.move_to(lsn)
        self._tell()

    def _tell(self, *, want_reply: bool = False) -> None:
        self._link.send(self._report(want_reply=want_reply))
        self._place.told()

    def _tell_now(self) -> None:
        self._telling = None
        try:
            self._tell()
        except StreamLost as error:
            self._link.fail(error)

    def _report(self, *, want_reply: bool = False) -> bytes:
        return status_update(
            received=self._capture.received_lsn,
            confirmed=self._place.safe_lsn,
            unix_us=time.time_ns() // 1000,
            want_reply=want_reply,
        )

    def _answer(self) -> None:
        """Reply to a server that asks; leave one that asks again and again.

        A server that shuts down waits for us to confirm all it sent, and asks in a tight loop. What is not safe cannot
        be confirmed, so without leaving, its shutdown would last until the broker is back.
        """
        now = self._now()
        self._hurries = self._hurries + 1 if now - self._hurried_at < _HURRY_S else 0
        self._hurried_at = now
        self._tell()
        if self._hurries >= _HURRIES:
            self._hurries = 0
            if not self._place.is_settled:
                raise StreamLost("the server is shutting down")

    # --- leaving ------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Leave the stream, telling the server a last time how far we are."""
        if self._closing is not None:
            await asyncio.wait([self._closing])
        await self._let_go()

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
        quiet_s = self._now() - self._confirmed_at
        if quiet_s < _LEAVE_S:
            self._leave_after(_LEAVE_S - quiet_s)
        elif self._closing is None:
            self._log.warning("stream_left", reason="nothing could be stored", quiet_s=round(quiet_s, 1))
            self._closing = asyncio.create_task(self._let_go(), name="postgres-leave")
            self._on_left()

    async def _let_go(self) -> None:
        self._stay()
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if not self._is_closed:
            self._is_closed = True
            last = self._report()
            self._place.told()
            await self._link.close(last)
