"""Read one stream of a slot, report our offset to the server, and close the stream while the log stores nothing.

Owns the status messages, when they are sent, and when a working stream is closed. Does not know how a stream begins or
what comes after it. What frames mean is in `capture`, what may be reported in `slot_offset`. How it behaves, and why:
docs/postgres-replication.md
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import structlog

from backends.postgres.replication.capture import Capture, WalItem
from backends.postgres.replication.protocol.replication_connection import StreamLost
from backends.postgres.replication.protocol.replication_link import ReplicationLink
from backends.postgres.replication.protocol.wal import status_update
from backends.postgres.replication.publication_watch import PublicationWatch
from backends.postgres.replication.slot import ReplicationOptions
from backends.postgres.replication.slot_offset import SlotOffset
from roundlog.tasks import cancel_and_wait

log = structlog.get_logger()

_CONFIRM_S: Final = 0.1
_STATUSES: Final = 4
"""Status messages within ``sender_timeout_s``."""
_LEAVE_S: Final = 0.5
"""The stream is closed when a batch and all confirmations have been pending for so long. See `_leave_if_stuck`."""
_HURRIED_REQUESTS: Final = 5
_HURRY_S: Final = 0.25
_CANCEL_S: Final = 0.1


class ReplicationStream:
    """A stream that the server has started. Call `close` when done, also after an error."""

    def __init__(
        self,
        link: ReplicationLink,
        capture: Capture,
        offset: SlotOffset,
        options: ReplicationOptions,
        *,
        on_left: Callable[[], None],
        read_games: Callable[[], Awaitable[None]] | None = None,
        look_up: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """Take over `link`, on which the stream runs.

        Args:
            link: The connection.
            capture: What frames mean.
            offset: What may be reported.
            options: The timeouts, and what is watched.
            on_left: Called when the stream closes itself.
            read_games: Reads the tables of games again; called for a key that is not known.
            look_up: Reads the tables again if the table with this oid is a child of one; called for one not known.
        """
        self._link = link
        self._capture = capture
        self._offset = offset
        self._options = options
        self._on_left = on_left
        self._read_games = read_games
        self._look_up = look_up
        capture.asks_for_tables = look_up is not None
        self._log = log.bind(**options.log_fields)
        self._now = asyncio.get_running_loop().time
        self._began_at = self._confirmed_at = self._now()
        self._is_closed = False
        self._status_timer: asyncio.TimerHandle | None = None
        self._leave_timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._hurried_requests = 0
        self._requested_at = 0.0

    @property
    def lasted_s(self) -> float:
        """The age of the stream; 0 once it is closed."""
        return 0.0 if self._is_closed else self._now() - self._began_at

    async def receive(self) -> list[WalItem]:
        """Wait for frames without limit, or for what has to be looked up; return their items, perhaps none.

        Items are returned before anything else is awaited or raised: they count as yielded.

        Raises:
            StreamLost: The stream ended, was closed, or has failed.
            InvalidMessage, ColumnMissing, TableRenamed: See `Capture.feed`.
        """
        capture, frames = self._capture, list[bytes]()
        if capture.unknown_game is not None and self._read_games is not None:
            await self._read_games()
        elif capture.unknown_table is not None and self._look_up is not None:
            await self._look_up(capture.unknown_table)
        elif not capture.will_raise:
            frames = await self._link.receive()
        items, reply_requested = capture.feed(frames)
        if reply_requested:
            try:
                self._reply()
            except StreamLost as error:
                if not items:
                    raise
                self._link.fail(error)
        return items

    @contextmanager
    def leaving_if_stuck(self) -> Iterator[None]:
        """Run the block that publishes what was received; close the stream if the log stores nothing meanwhile."""
        self._leave_after(_LEAVE_S)
        try:
            yield
        finally:
            self._cancel_leave()

    def confirmed(self) -> None:
        """Schedule a status message, after `capture` was given a confirmation. It is sent within 0.1 s."""
        self._confirmed_at = self._now()
        if self._status_timer is None and not self._is_closed:
            self._status_timer = asyncio.get_running_loop().call_later(_CONFIRM_S, self._send_scheduled_status)

    # --- status messages ----------------------------------------------------------------------------------------

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send status messages on a timer, since a batch may take longer than the server's timeout."""
        timer = asyncio.create_task(self._keep_alive(), name="postgres-status")
        watch = PublicationWatch(self._link, self._options, self._offset, on_checked=self._on_checked)
        watching = asyncio.create_task(watch.run(), name="postgres-publication-watch")
        try:
            yield
        finally:
            await cancel_and_wait(timer, watching, again_s=_CANCEL_S)
            await watch.check_at_end()

    async def _keep_alive(self) -> None:
        link, timeout_s = self._link, self._options.sender_timeout_s
        try:
            while True:
                self._send_status(want_reply=True)
                await asyncio.sleep(timeout_s / _STATUSES)
                if link.silent_s > timeout_s:
                    raise StreamLost(f"the server has been silent for {link.silent_s:.1f} s")
        except StreamLost as error:
            link.fail(error)

    async def _on_checked(self, empty_wal_end: int | None) -> None:
        if empty_wal_end is not None:
            await self._offset.advance_to(empty_wal_end)
        self._send_status()

    def _send_status(self, *, want_reply: bool = False) -> None:
        self._link.send(self._status(want_reply=want_reply))
        self._offset.mark_reported()

    def _send_scheduled_status(self) -> None:
        self._status_timer = None
        try:
            self._send_status()
        except StreamLost as error:
            self._link.fail(error)

    def _status(self, *, want_reply: bool = False) -> bytes:
        return status_update(
            received=self._capture.received_lsn,
            confirmed=self._offset.safe_lsn,
            unix_us=time.time_ns() // 1000,
            want_reply=want_reply,
        )

    def _reply(self) -> None:
        """Reply to the server; raise `StreamLost` if it requests replies in a tight loop and cannot get them all.

        A server that shuts down waits until we confirm all that it sent, and requests replies in a loop. Rounds that
        are not stored cannot be confirmed, so its shutdown would last until the log is available again.
        """
        now = self._now()
        self._hurried_requests = self._hurried_requests + 1 if now - self._requested_at < _HURRY_S else 0
        self._requested_at = now
        self._send_status()
        if self._hurried_requests >= _HURRIED_REQUESTS:
            self._hurried_requests = 0
            if not self._offset.is_settled:
                raise StreamLost("the server is shutting down")

    # --- closing ------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Send a last status message and close the stream."""
        if self._closing is not None:
            await asyncio.wait([self._closing])
        await self._close_link()

    def _leave_after(self, delay_s: float) -> None:
        self._leave_timer = asyncio.get_running_loop().call_later(delay_s, self._leave_if_stuck)

    def _cancel_leave(self) -> None:
        if self._leave_timer is not None:
            self._leave_timer.cancel()
            self._leave_timer = None

    def _leave_if_stuck(self) -> None:
        """Close the stream while the log stores nothing.

        We read no frames then, so we would not notice that the server shuts down, and it would wait for us. Another
        process may read the slot meanwhile; our next stream continues at the same offset.
        """
        quiet_s = self._now() - self._confirmed_at
        if quiet_s < _LEAVE_S:
            self._leave_after(_LEAVE_S - quiet_s)
        elif self._closing is None:
            self._log.warning("stream_left", reason="nothing could be stored", quiet_s=round(quiet_s, 1))
            self._closing = asyncio.create_task(self._close_link(), name="postgres-leave")
            self._on_left()

    async def _close_link(self) -> None:
        self._cancel_leave()
        if self._status_timer is not None:
            self._status_timer.cancel()
            self._status_timer = None
        if not self._is_closed:
            self._is_closed = True
            last = self._status()
            self._offset.mark_reported()
            await self._link.close(last)
