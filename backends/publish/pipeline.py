"""Drive the window of rounds through one connection after another: send, take acks, send again, confirm.

Owns when to send, when to stop, when to give up a connection and when to confirm to the source. What is sent next, and
on which condition, is decided in `backends.publish.window.dispatch`; what may be confirmed and what is sent again in
`backends.publish.window.acks`. Knows neither how rounds are read nor how connections are made.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Generic, NamedTuple, TypeVar

import structlog

from backends.contract import Rejected
from backends.publish.clock import boot_s
from backends.publish.duplicates import Duplicate
from backends.publish.lease import Lease, LeaseOver
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.window.acks import Entry, Lag, Stats, Window
from backends.publish.window.dispatch import Dispatch
from roundlog.backoff import Backoff
from roundlog.client.codes import ErrorCode, NatsStatus
from roundlog.client.connection import Connection
from roundlog.log_errors import LogError, LogUnavailable
from roundlog.publish.answers import Acks, ErrorAck
from roundlog.publish.fast_batch import UNCLEAR
from roundlog.publish.hpub import HEADER_ROOM
from roundlog.publish.publish_connection import PublishConnection, open_publish_connection
from roundlog.stream import LogInfo
from roundlog.tasks import raise_if_cancelled

log = structlog.get_logger()

P = TypeVar("P")
Compare = Callable[[bool], Awaitable[Mapping[bytes, int] | None]]
"""Settles what the log has; returns the sequence of each subject's newest round before that, None: not known.

Called with whether everything that was sent has had a clear answer, so that what is found is of another process.
"""
HeldOf = Callable[[Mapping[int, Duplicate]], Awaitable[set[int]]]
"""Returns the numbers of those that the log holds; see `backends.publish.duplicates.held_of`."""
Rejects = Callable[[Rejected[Any]], Awaitable[None]]
"""Takes an item that cannot become a round. Its offset is confirmed to the source after this has returned."""

RAW_BYTES: Final = 64 << 10
_ERROR_PAUSE_S: Final = (0.01, 2.0)
_LOG_ERRORS_S: Final = 10.0
_LONGEST_ACK_WAIT_S: Final = 30.0
_CONDITIONS: Final = (
    ErrorCode.WRONG_LAST_MSG_ID,
    ErrorCode.WRONG_LAST_SEQUENCE,
    ErrorCode.WRONG_LAST_SEQUENCE_IN_PROCESS,
    UNCLEAR,
)
_MISSING: Final = -2
"""The code of an error ack: the server takes the round for stored, and the log does not hold it."""
_MOST_DOUBLINGS: Final = 16
"""Enough to reach the bound from a millisecond. Without a limit, a thousand attempts would overflow."""


class Carried(NamedTuple):
    """What the next pipeline continues after this process let another one read."""

    stats: Stats
    unacked_connections: int
    """Connections in a row without any ack."""


class Pipeline(Generic[P]):
    """Publishes the window over all connections of one publisher."""

    def __init__(
        self,
        settings: PublisherSettings,
        *,
        confirm: Callable[[P], None],
        rejects: Rejects,
        acked: Callable[[P], None] | None = None,
        carried: Carried | None = None,
    ) -> None:
        """Prepare; `carried` is of the pipeline before it, which was abandoned with all of its rounds."""
        carried = carried or Carried(Stats(), 0)
        self.window: Window[P] = Window(max_count=settings.max_in_flight, max_bytes=settings.max_in_flight_bytes)
        self.stats = carried.stats
        self.head = 0
        """The newest sequence of the log in an ack."""
        self.moved_at = boot_s()
        """When the oldest round was settled last, or was added to an empty window, in seconds of `boot_s`."""
        self.lease = Lease()
        self._settings = settings
        self._confirm = confirm
        self._acked = acked
        self._rejects = rejects
        self._lag: Lag[P] = Lag(settings.confirm_lag_s)
        self._dispatch = Dispatch(self.window)
        self._error_acks: dict[int, ErrorAck] = {}
        self._duplicates: dict[int, Duplicate] = {}  # to be looked up in the log
        self._compare: Compare | None = None
        self._held_of: HeldOf | None = None
        self._backoff = Backoff(*_ERROR_PAUSE_S)
        self._log_errors_at = 0.0
        self._progress_at = 0.0
        self._unacked_connections = carried.unacked_connections
        self._connection = 0
        self._publishing: PublishConnection | None = None
        self._is_abandoned = False
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._now = asyncio.get_running_loop().time

    @property
    def carried(self) -> Carried:
        """What a pipeline continues that takes over from this one."""
        stats = replace(self.stats, handed_over=self.stats.handed_over + 1)
        return Carried(stats, self._unacked_connections + 1)  # as for a lost connection

    async def add(self, entry: Entry[P]) -> None:
        """Append a round, or a settled entry; wait while the window is full."""
        await self.room()
        self.window.add(entry)

    def begin_batch(self, now: float) -> None:
        """Take note, before entries are added, that the oldest of them waits from `now` on."""
        if not len(self.window):
            self.moved_at = now

    async def room(self) -> None:
        """Wait while the window is full."""
        while not self.window.has_room:
            self._room.clear()
            self._wake.set()
            await self._room.wait()

    def abandon(self) -> None:
        """Send nothing from now on; discard what is not on the wire yet."""
        self._is_abandoned = True
        if self._publishing is not None:
            self._publishing.abort()

    def wake(self) -> None:
        """Check for new entries, the end of the reader, and a lost connection."""
        self._wake.set()

    def lost(self) -> None:
        """Record the loss of the connection; what was in flight is sent again."""
        self._connection += 1  # late answers of the old one are ignored
        self._unacked_connections += 1  # until the next has an ack
        self._error_acks.clear()
        self._duplicates.clear()
        self._dispatch.rewind()
        self._confirm_settled()

    async def reject(self, item: Rejected[P]) -> None:
        """Pass an item to `rejects`."""
        await self._rejects(item)
        self.stats.rejected += 1

    async def run(
        self,
        connection: Connection,
        info: LogInfo,
        reader: asyncio.Task[None],
        *,
        newest: Mapping[bytes, int] | None = None,
        compare: Compare | None = None,
        held_of: HeldOf | None = None,
        compared_at: float = math.inf,
    ) -> None:
        """Publish over this connection until `reader` has ended and everything is settled.

        When cancelled, or when the reader failed, waits at most ``leave_s`` for what is in flight.

        Args:
            connection: A fresh connection. What is unsettled was compared with the log since it was made.
            info: The log.
            reader: Adds entries until it ends.
            newest: For a replicated log: the sequence of each subject's newest round, read before the comparison.
            compare: Settles what the log has; called when nothing is in flight.
            held_of: Looks duplicates up in the log; None: what the server takes for stored is stored.
            compared_at: When the comparison began.

        Raises:
            LogUnavailable: The connection cannot be used any more. Call `lost`, then `run` with another.
        """
        number = self._connection
        self._dispatch.begin(info, newest)
        self._compare, self._held_of = compare, held_of
        self.lease.begin(info.duplicate_window_s, compared_at)
        publishing = await open_publish_connection(
            connection,
            info,
            on_acks=partial(self._on_acks, number),
            on_error_ack=partial(self._on_error_ack, number),
        )
        publishing.drop_unsent(self.lease.length_s)
        self._publishing = publishing
        limit = min(size for size in (connection.max_payload, info.max_message_bytes) if size > 0) - HEADER_ROOM
        self._progress_at = self._now()
        try:
            while not reader.done():
                await self._turn(publishing, limit)
            await self._finish(publishing, limit, self._settings.leave_s if reader.exception() is not None else None)
        except asyncio.CancelledError:
            reader.cancel()
            if not self._is_abandoned:
                await self._settle(publishing)
            raise
        except LogUnavailable:
            publishing.abort()
            raise
        finally:
            self._publishing = None
            self._confirm_settled()

    async def _turn(self, publishing: PublishConnection, limit: int) -> None:
        """Do the next step; wait when there is none."""
        raise_if_cancelled()
        self._wake.clear()
        self._confirm_settled()
        if not publishing.is_open:
            raise LogUnavailable("the connection to NATS was lost")
        self._check_lease([])
        if self._duplicates:
            await self._look_up_duplicates()
            return
        if self._error_acks:
            if not self.window.unanswered:
                await self._handle_error_acks()
                return
        elif late := self._dispatch.late(self._now() - self._ack_wait_s):
            await self._send(publishing, limit, late)
            return
        else:
            # After a connection without an ack, one round is sent, and the rest once it is acked: an overloaded server
            # still has all that was sent before, and more would prolong the overload.
            now, one_at_a_time = self._now(), self._unacked_connections > 0
            if self._dispatch.may_send(now, one_at_a_time=one_at_a_time):
                await self._send(publishing, limit, self._dispatch.take(now, one_at_a_time=one_at_a_time))
                return
        await self._wait()

    async def _finish(self, publishing: PublishConnection, limit: int, within_s: float | None) -> None:
        """Publish the rest of the window after the end of the source; give up after `within_s`."""
        leaving = asyncio.timeout(within_s)
        try:
            async with leaving:
                while len(self.window):
                    await self._turn(publishing, limit)
        except TimeoutError:
            if not leaving.expired():  # raised by `confirm` or `rejects`
                raise
            log.warning("left_unacked", in_flight=len(self.window))

    async def _settle(self, publishing: PublishConnection) -> None:
        """Wait at most ``leave_s`` for answers to what was sent; send nothing."""
        try:
            async with asyncio.timeout(self._settings.leave_s):
                while self.window.unanswered and publishing.is_open:
                    self._wake.clear()
                    if self._duplicates:
                        await self._look_up_duplicates()
                    else:
                        await self._wake.wait()
        except (TimeoutError, LogError):
            log.warning("left_unacked", in_flight=len(self.window))

    # --- sending ------------------------------------------------------------------------------------------------

    async def _send(self, publishing: PublishConnection, limit: int, taken: list[tuple[int, Entry[P]]]) -> None:
        """Send entries that were handed out.

        Raises:
            LogUnavailable: The connection cannot be used, or another process may have stored them meanwhile.
        """
        if self.window.unanswered == len(taken):
            self._progress_at = self._now()
        self._check_lease(taken)
        accepted = [one for one in taken if len(one[1].data) <= limit]
        self.stats.resent += sum(1 for _, entry in accepted if entry.attempts > 1)
        publishes = self._dispatch.publishes(accepted, self._now())
        if publishes:
            try:
                async with asyncio.timeout(self._settings.ack_timeout_s):
                    if self._dispatch.is_batch and len(publishes) > 1:
                        await publishing.send_batch(publishes, head=self.head)
                    else:
                        await publishing.send(publishes)
            except TimeoutError as error:
                raise LogUnavailable(f"NATS took nothing for {self._settings.ack_timeout_s:g} s") from error
        for number, entry in taken:
            if len(entry.data) > limit:
                await self._reject_entry(number, f"the log takes {limit}")

    def _check_lease(self, taken: list[tuple[int, Entry[P]]]) -> None:
        # In the order of the source the first is the oldest; lanes hand out others before it.
        checked = taken if self.window.lanes is not None else taken[:1]
        try:
            self.lease.check(boot_s(), [entry.checked_at for _, entry in checked])
        except LeaseOver as error:
            raise LogUnavailable(str(error)) from error

    async def _reject_entry(self, number: int, limit: str) -> None:
        entry = self.window.entry(number)
        reason = f"round has {len(entry.data)} bytes; {limit}"
        await self.reject(Rejected(entry.msg_id.decode(), reason, entry.data[:RAW_BYTES], entry.offset))
        self.window.settle([number])

    async def _handle_error_acks(self) -> None:
        """Handle the oldest error ack, once everything is answered; send again from there."""
        number = self.window.first_failed
        error_acks, self._error_acks = self._error_acks, {}
        if number is None:
            return
        if missing := [of for of, error_ack in error_acks.items() if error_ack.code == _MISSING]:
            for of in missing:
                self.window.entry(of).missing += 1
            log.warning("rounds_missing_from_log", rounds=len(missing), action="published again")
            self._dispatch.rewind()
            return
        code, reason = error_acks[number].code, error_acks[number].reason
        if code == ErrorCode.MESSAGE_TOO_LARGE:
            await self._reject_entry(number, f"the stream refuses it: {reason}")
        elif code in _CONDITIONS:
            self._dispatch.rewind()
            await self._compare_again(code)
            return
        elif code in (NatsStatus.UNAVAILABLE, ErrorCode.BATCHES_NOT_ALLOWED):
            raise LogUnavailable(reason)  # the next connection looks at the stream again
        else:
            if self._now() >= self._log_errors_at:  # an overloaded server sends many a second
                self._log_errors_at = self._now() + _LOG_ERRORS_S
                log.warning("publish_refused", code=code, reason=reason, in_flight=len(self.window))
            await asyncio.sleep(self._backoff.next_s())
        self._dispatch.rewind()

    async def _compare_again(self, code: int) -> None:
        """Look what the log has: it has a round that is not ours, or one that was stored before, as a duplicate."""
        if code in (ErrorCode.WRONG_LAST_MSG_ID, UNCLEAR):
            self._dispatch.disturbed(self._now())
        else:
            await asyncio.sleep(self._backoff.next_s())
        if self._compare is not None:
            self._dispatch.compared(await self._compare(code != UNCLEAR))

    async def _look_up_duplicates(self) -> None:
        """Settle the duplicates that the log holds. The others fail, and are sent again."""
        duplicates, self._duplicates = self._duplicates, {}
        held = set(duplicates) if self._held_of is None else await self._held_of(duplicates)
        settled = []
        for number in duplicates:
            entry = self.window.in_flight(number)
            if entry is None or entry.settled:
                continue  # answered once more meanwhile
            if number in held and entry.correction is None:
                settled.append(number)
            elif self.window.fail(number):
                # The log may hold another correction of the same round under this id.
                code, reason = (UNCLEAR, "its id is in use") if number in held else (_MISSING, "it was deleted")
                self._error_acks[number] = ErrorAck(number, code, reason)
        self.stats.duplicates += self.window.settle(settled)
        self._progress_at = self._now()

    # --- answers ------------------------------------------------------------------------------------------------

    def _on_acks(self, connection: int, acks: Acks) -> None:
        if connection != self._connection:
            return
        window = self.window
        oldest = window.oldest
        self._unacked_connections = 0
        self._backoff.reset()
        self.head = max(self.head, acks.sequence)
        stored, duplicates = acks.parted()
        self._dispatch.acked(stored)
        count = window.settle(stored.numbers, stored=True)
        for number, sequence in duplicates:
            entry = window.in_flight(number)
            if entry is not None and not entry.settled:
                self._duplicates[number] = Duplicate(entry.msg_id, sequence)
        if window.lanes is not None or window.oldest != oldest:
            # In a log of one replica acks come in order: while the oldest has none, others are no progress.
            self._progress_at = self._now()
        self.stats.acked += count
        self._wake.set()

    def _on_error_ack(self, connection: int, error_ack: ErrorAck) -> None:
        if connection == self._connection and self.window.fail(error_ack.number):
            self._progress_at = self._now()
            self._error_acks[error_ack.number] = error_ack
            self._wake.set()

    def _confirm_settled(self) -> None:
        """Confirm the offset up to which everything is settled, and wake the reader when there is room."""
        offset = self.window.offset()
        if offset is not None:
            self.moved_at = boot_s()
            if self._acked is not None:
                self._acked(offset)
            self._lag.hold(offset, self._now())
        due = self._lag.release(self._now())
        if due is not None:
            self._confirm(due)
        if self.window.has_room:
            self._room.set()

    @property
    def _ack_wait_s(self) -> float:
        """How long to wait for an ack: doubled after each connection without one, up to a bound."""
        return min(
            self._settings.ack_timeout_s * 2.0 ** min(self._unacked_connections, _MOST_DOUBLINGS),
            max(_LONGEST_ACK_WAIT_S, self._settings.ack_timeout_s),
        )

    async def _wait(self) -> None:
        """Wait for an event, at most until the next deadline.

        Raises:
            LogUnavailable: No answer for ``ack_timeout_s``, or longer when that has happened before.
        """
        ack_wait_s, lanes = self._ack_wait_s, self.window.lanes
        silent_at = self._progress_at + ack_wait_s if self.window.unanswered else None
        late_at = None if lanes is None or lanes.longest_unanswered is None else lanes.longest_unanswered + ack_wait_s
        deadlines = [at for at in (silent_at, late_at, self._lag.next_due) if at is not None]
        try:
            async with asyncio.timeout_at(min(deadlines, default=None)):
                await self._wake.wait()
        except TimeoutError as error:
            if silent_at is not None and self._now() >= silent_at:
                raise LogUnavailable(f"NATS acked nothing for {ack_wait_s:g} s") from error
