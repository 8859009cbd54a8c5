"""Decide which rounds of the window are sent next, in which way, and on which condition.

A log of one replica gets rounds in the order of the source, each on the condition that the round before it was stored.
A log of several replicas gets one round per game at a time, or one batch at a time where it allows batches; the first
round of each game has the condition that no other process has stored rounds of that game.

Pure: no I/O, no clock. The rules of order are in `backends.publish.window.order`; what may be confirmed and what is
sent again is decided in `backends.publish.window.acks`.
Why: docs/adr/0003-own-publish-pipeline.md, 0021-late-rounds-are-refused.md and 0023-fast-ingest-batches.md
"""

from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from backends.publish.window.acks import Entry, Window
from backends.publish.window.order import Fence, Lanes, Suspension
from roundlog.log_errors import LogUnavailable
from roundlog.publish.answers import Acks
from roundlog.publish.hpub import Publish
from roundlog.stream import LogInfo
from rounds.subjects import resent_id

P = TypeVar("P")

_WRITE_BYTES: Final = 256 << 10
_MOST_SENT: Final = 3


class Dispatch(Generic[P]):
    """What is sent of one window, over all connections of one publisher. Times are those of one monotonic clock."""

    def __init__(self, window: Window[P]) -> None:
        self._window = window
        self._suspension = Suspension()  # of conditions in a log of one replica, else of batches
        self._fence: Fence | None = None  # of a replicated log
        self._batches = False  # whether the log takes batches
        self._sent_before = 0  # entries with smaller numbers may have been sent, and must not be sent in a batch
        self._previous: bytes | None = None  # the id sent last, for the condition of the next; None: no condition

    def begin(self, info: LogInfo, newest: Mapping[bytes, int] | None) -> None:
        """Start with a connection to this log, while nothing is handed out.

        Args:
            info: The log.
            newest: For a replicated log: the sequence of each subject's newest round, None: they are not known.
        """
        self._fence = Fence(newest) if info.replicas > 1 else None
        self._batches = info.replicas > 1 and info.allows_batches
        self._window.lanes = Lanes() if info.replicas > 1 else None

    def may_send(self, now: float, *, one_at_a_time: bool) -> bool:
        """Whether something may be sent. Chooses between lanes and batches whenever nothing is in flight."""
        window = self._window
        if not window.queued:
            return False
        if self._batches and window.is_idle:
            window.lanes = None if self._batch_is_next(now) else Lanes()
        if not window.unanswered:
            return True
        if one_at_a_time:
            return False
        if window.lanes is None:
            return not self._batches
        return window.lanes.ready or not self._batch_is_next(now)

    def take(self, now: float, *, one_at_a_time: bool) -> list[tuple[int, Entry[P]]]:
        """Hand out what is sent next, with the numbers. Call it when `may_send` is true."""
        upto = self._sent_before if self._window.lanes is not None and self._may_batch(now) else None
        return self._window.take(1 if one_at_a_time else _WRITE_BYTES, upto=upto)

    def publishes(self, taken: list[tuple[int, Entry[P]]], now: float) -> list[Publish]:
        """Return what is written for entries that were handed out, each with its condition."""
        lanes = self._window.lanes
        chained = self._fence is None and self._suspension.is_over(now)
        fenced: set[bytes] = set()
        publishes = []
        for number, entry in taken:
            expected = self._previous if chained else None
            after = None
            if self._fence is not None and entry.subject not in fenced:
                after = self._fence.after(entry.subject)
                fenced.add(entry.subject)  # in a batch the first of a game is the condition for the others
            if lanes is not None:
                lanes.sent(number, now)
            msg_id = resent_id(entry.msg_id, entry.missing) if entry.missing else entry.msg_id
            publishes.append(Publish(entry.subject, number, msg_id, expected, entry.offset_header, entry.data, after))
            self._previous = msg_id
        return publishes

    @property
    def is_batch(self) -> bool:
        """Whether what `take` handed out last is written as one batch, if it is more than one round."""
        return self._batches and self._window.lanes is None

    def late(self, sent_before: float) -> list[tuple[int, Entry[P]]]:
        """Hand out again what has had no answer since `sent_before`, of a replicated log: a lost ack stops its game.

        Raises:
            LogUnavailable: One was sent several times and has no answer.
        """
        lanes = self._window.lanes
        if lanes is None:
            return []
        late = [(number, self._window.entry(number)) for number in lanes.late(sent_before)]
        for number, entry in late:
            if lanes.times_sent(number) >= _MOST_SENT:
                raise LogUnavailable(f"NATS did not answer for {entry.msg_id.decode()}, sent {_MOST_SENT} times")
            entry.attempts += 1
        return late

    def acked(self, acks: Acks) -> None:
        """Record the sequences of rounds that were stored, before the window settles them."""
        if self._fence is None:
            return
        for number, sequence in acks.each():
            entry = self._window.in_flight(number)
            if entry is not None:
                self._fence.stored(entry.subject, sequence)

    def rewind(self) -> None:
        """Put everything that was handed out and is not settled back into the queue; see `Window.rewind`."""
        self._previous = None
        self._sent_before = self._window.handed_out
        self._window.rewind()

    def disturbed(self, now: float) -> None:
        """Record that a condition of order, or a batch, failed: do without for a while."""
        self._suspension.disturbed(now)

    def compared(self, newest: Mapping[bytes, int] | None) -> None:
        """Record each subject's newest round in the log, as read by a comparison; None: not known."""
        if self._fence is not None:
            self._fence = Fence(newest)

    def _batch_is_next(self, now: float) -> bool:
        """Whether the next entries of the queue are to be sent in a batch."""
        return self._may_batch(now) and self._window.handed_out >= self._sent_before

    def _may_batch(self, now: float) -> bool:
        return self._batches and self._suspension.is_over(now)
