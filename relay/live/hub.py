"""Write every round of the log to every link that is subscribed to it: encode once, write to many, wait for none.

Owns the order in which rounds are written; `relay.live.channels` which links get them. Rounds come from the feed in log
order; bytes go to transports. Does not know NATS, HTTP or credentials, nor how a link is ended. Awaits nothing.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

import structlog

from relay.live.bounds import Bounds, Gap, GapReason
from relay.live.channels import Channel, Channels, Subscription
from relay.live.compression.comments import Comments
from relay.live.compression.shared_stream import Write
from relay.live.item import Item
from relay.live.link import CloseReason, Link
from relay.live.ring import Ring
from relay.live.sending.sends import Sends, Unsent, choose_sends, rest_of
from roundlog.entry import LogEntry
from rounds import Cursor

log = structlog.get_logger()

_NO_EPOCH: Final = "0"
_SLICE_BYTES: Final = 128 << 10
"""Log bytes handled per loop turn. Under load, so many bytes are one write; sockets can drain between slices."""
_EMPTIED_S: Final = 8.0
"""A client that takes what its link may hold unsent in this time keeps up with a backlog: 128 KB/s, by default."""
_BACKLOG_S: Final = 120.0
"""The longest time after a stall in which rounds may be a backlog."""
_BACKLOG_LEAST_S: Final = 5.0
_FEW_OF: Final = 8
"""One link in so many is not waited for."""
_AGAIN_S: Final = 0.02
_SETTLED_PER_TURN: Final = 500
"""Channels and accounts whose use is counted in one turn: 0.3 ms."""
_LINKS_AT_ONCE: Final = 256
"""Links that are sent to before other threads may run: 1 ms."""
_BEHIND_ROUNDS: Final = 10_000
"""A backlog of more rounds than this should not grow: the log has them."""


class Generation(NamedTuple):
    """A period in which what was read of the log stays true: until it is rebuilt or loses its tail."""

    epoch: str
    losses: int  # how often the log is known to have lost its tail


@dataclass(slots=True)
class HubStats:
    """Counters since the start of this process."""

    rounds: int = 0
    deliveries: int = 0
    invalid: int = 0


class Hub:
    """Connects the rounds and the links of a process. Used on one event loop; not thread-safe."""

    def __init__(self, ring: Ring, *, unsent_bytes: int, sends: Sends | None = None) -> None:
        """Start empty.

        Args:
            ring: Keeps the newest rounds.
            unsent_bytes: Bytes waiting for one link before it is ended as slow.
            sends: How bytes are sent to links; None: in the fastest way that is installed.
        """
        self.stats = HubStats()
        self.ring = ring
        self.sends = sends or choose_sends()
        self.head = Cursor(_NO_EPOCH, 0)
        self.first = 1
        self.generation = Generation(_NO_EPOCH, 0)
        self.ends: list[int] = []
        """Where the log ended after each loss of its tail, oldest first."""
        self._unsent_bytes = unsent_bytes
        self._channels = Channels()
        self._backlog: deque[LogEntry] = deque()
        self._flush_due = False
        self._congested: list[Link] = []  # which the last slice has filled to more than half of their limit
        self._waits_until = 0.0  # loop time
        self._backlog_until = 0.0  # loop time
        self._advanced = asyncio.Event()

    # --- links -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._channels)

    @property
    def links(self) -> Iterable[Link]:
        return self._channels.links

    def add(self, link: Link, subscription: Subscription) -> Subscription:
        """Subscribe a link, or replace its subscription, from the next round on.

        Returns `subscription`, or the equal object of other links: keep that one, so that 10,000 links share it.
        """
        if link.outlet is None:
            link.outlet = self.sends.outlet(link.transport)
        subscription = self._channels.add(link, subscription)
        if link.stream is not None and link.stream.comments is None and (channel := self._channels.of(link)):
            link.stream.comments = Comments(partial(self._comment, channel))
        return subscription

    def settle_usage(self) -> Iterator[None]:
        """Count what was written to links for their accounts, in slices; yields after each one."""
        settled = 0
        for tally in self._channels.tallies:
            settled += tally.settle() + 1
            if settled >= _SETTLED_PER_TURN:
                settled = 0
                yield

    def remove(self, link: Link) -> None:
        """Unsubscribe a link; ignore a link that is not subscribed."""
        self._channels.remove(link)
        link.close_outlet()

    @property
    def watched(self) -> Collection[str]:
        """The games that links are subscribed to live, and their corrections; a view, which changes with them."""
        return self._channels.watched

    def on_watched(self, call: Callable[[], None]) -> None:
        """Call `call` each time that a game is watched that was not."""
        self._channels.on_watched = call

    # --- rounds ------------------------------------------------------------------------------------------------

    @property
    def bounds(self) -> Bounds:
        """What the log is known to hold."""
        return Bounds(self.head.epoch, self.first, self.head.sequence)

    def begin(self, bounds: Bounds, newest: Iterable[LogEntry] = ()) -> None:
        """Start with a log that holds `bounds`; its next rounds are published. `newest` is the last round of each game.

        When it is another log than before, or shorter than what was published of it, links that use cursors get a gap.
        """
        while self._backlog:
            self._flush()
        before, self.head, self.first = self.head, bounds.at(bounds.head), bounds.first
        self.ring.begin(bounds.head, [Item(bounds.epoch, entry) for entry in newest])
        if before.epoch != bounds.epoch:
            self.ends.clear()
            gap = Gap(before, bounds.at(bounds.first - 1), GapReason.REBUILT)
        elif before.sequence > bounds.head:
            self.ends.append(bounds.head)
            gap = Gap(self.head, before, GapReason.AHEAD)
        else:
            return
        self.generation = Generation(bounds.epoch, len(self.ends))
        for link in self.links if before.epoch != _NO_EPOCH else ():
            if link.receives_events:
                link.send_event(gap.event())

    async def wait_past(self, sequence: int, *, within_s: float) -> None:
        """Wait until a round after `sequence` was published, or until `within_s` is over."""
        deadline = asyncio.get_running_loop().time() + within_s
        try:
            async with asyncio.timeout_at(deadline):
                while self.head.sequence <= sequence:
                    await self._advanced.wait()
        except TimeoutError:
            pass

    def publish(self, entries: Iterable[LogEntry]) -> None:
        """Take rounds in log order, and write them in one write per link.

        The first ones in a turn of the loop are written at once; what else comes in that turn follows in the next one,
        together. A long backlog is written in slices, one per turn, so that sockets drain in between.
        """
        self._backlog.extend(entries)
        if not self._flush_due:
            self._flush_due = True
            self._flush_when_taken()

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._hand_on()
        except Exception as error:  # noqa: BLE001 - reported; it is no fault of the caller, which reads the log
            loop.call_exception_handler({"message": "rounds were not written", "exception": error})
        finally:
            loop.call_soon(self._flush_rest)

    def _flush_rest(self) -> None:
        if self._backlog:
            self._flush_when_taken()
        else:
            self._flush_due = False

    def expect_backlog(self, stalled_s: float) -> None:
        """Write what was stored in the last `stalled_s` seconds, and comes now, as fast as links take it.

        When many have not taken what they got, the next write waits for them, as long as a client of 128 KB/s may
        take: they would all be ended as slow. A few that do not read are not waited for, and in live rounds nobody is.
        """
        self._backlog_until = asyncio.get_running_loop().time() + min(2 * stalled_s, _BACKLOG_S) + _BACKLOG_LEAST_S

    def _flush_when_taken(self) -> None:
        if self._congested and self._is_waited_for():
            asyncio.get_running_loop().call_later(_AGAIN_S, self._flush_when_taken)
        else:
            self._flush()

    def _is_waited_for(self) -> bool:
        """Whether many links have not taken what was written to them, and may still do so."""
        half = self._unsent_bytes // 2
        self._congested = [
            link for link in self._congested if link.ended is None and link.transport.get_write_buffer_size() > half
        ]
        if len(self._congested) * _FEW_OF <= len(self):
            return False
        return asyncio.get_running_loop().time() < min(self._waits_until, self._backlog_until)

    @property
    def is_behind(self) -> bool:
        """Whether so many rounds wait to be written that more should be read from the log later."""
        return len(self._backlog) > _BEHIND_ROUNDS

    async def caught_up(self) -> None:
        """Wait while `is_behind`."""
        while self.is_behind:
            await self._advanced.wait()

    def _hand_on(self) -> None:
        """Write a slice of the backlog. A round or a link that fails is logged and affects no other.

        First to the links that get every round. Each of the others may have a filter of its own: they delay each other.
        """
        taken, items = self._take()
        channels = self._channels
        self._congested.clear()
        for channels_of in (lambda item: channels.plain(item.game), channels.matching):
            dirty: list[Channel] = []
            for item in items:
                try:
                    for channel in channels_of(item):
                        if not channel.pending:
                            dirty.append(channel)
                        channel.pending.append(item.rendered(channel.form))
                except Exception:
                    log.exception("round_failed", game=item.game, cursor=item.cursor)
            for channel in dirty:
                self._write(channel)
        if self._congested:
            self._waits_until = asyncio.get_running_loop().time() + _EMPTIED_S * taken / self._unsent_bytes
        # Wake all that wait for the head to move, and be ready for the next wait.
        self._advanced.set()
        self._advanced.clear()

    def _take(self) -> tuple[int, list[Item]]:
        """Put a slice of the backlog into the ring; return its bytes, and those of its rounds that any link may get."""
        items = list[Item]()
        epoch, sequence, backlog, taken = self.head.epoch, self.head.sequence, self._backlog, 0
        append, watched = self.ring.append, self._channels.watched
        while backlog and taken < _SLICE_BYTES:
            entry = backlog.popleft()
            taken, sequence = taken + len(entry.data), entry.sequence
            item = Item(epoch, entry)
            try:
                append(item)
                if item.game not in watched:
                    continue
                if item.valid:
                    self.stats.rounds += 1
                    items.append(item)
                else:
                    self.stats.invalid += 1
            except Exception:
                log.exception("round_failed", game=item.game, cursor=item.cursor)
        self.head = Cursor(epoch, sequence)
        return taken, items

    def _write(self, channel: Channel) -> None:
        """Write the pending bytes of a channel, in one write per link."""
        pending, channel.pending = channel.pending, []
        if writes := self._writes(channel, pending):
            self.stats.deliveries += len(pending) * len(channel.links)
            channel.count(pending, writes)
        for links, data in writes:
            self._write_to(list(links), data)

    def _comment(self, channel: Channel, comment: bytes) -> None:
        """Write what comes beside rounds to all links of a channel."""
        if channel.links:
            for links, data in self._writes(channel, [comment]):
                self._write_to(list(links), data)

    def _writes(self, channel: Channel, rendered: list[bytes]) -> list[Write[Link]]:
        """Make the writes of a channel; when that fails, cut its links, which lack these bytes, and return none."""
        try:
            return channel.writes(rendered)
        except Exception:
            log.exception("rounds_failed", rounds=len(rendered), links=len(channel.links))
            for link in list(channel.links):
                link.cut(CloseReason.FAILED)
            return []

    def _write_to(self, links: list[Link], data: Any) -> None:
        limit = self._unsent_bytes
        half = limit // 2
        for begin in range(0, len(links), _LINKS_AT_ONCE):
            for link, sent in self._send(links, begin, data):
                try:
                    if sent and link.outlet is not None:
                        link.outlet.transport.write(rest_of(data, sent))
                    else:
                        link.transport.write(data)
                    unsent = link.transport.get_write_buffer_size()
                    if unsent > half:
                        if unsent > limit:
                            link.end(CloseReason.SLOW)
                        else:
                            self._congested.append(link)
                except Exception:
                    log.exception("link_failed", link=link.id)
                    link.cut(CloseReason.FAILED)

    def _send(self, links: list[Link], begin: int, data: Any) -> Unsent:
        """Send to some links at once; return those that have to be written to, with how many bytes they have got."""
        end = begin + _LINKS_AT_ONCE
        try:
            return self.sends.send(links, begin, end, data)
        except Exception:  # such as MemoryError: nobody knows which of them got the bytes
            some = links[begin:end]
            log.exception("rounds_failed", links=len(some))
            for link in some:
                if link.outlet is not None and link.outlet.transport is not None:
                    link.outlet.transport.abort()  # other streams of the connection must not follow a part of a frame
                link.cut(CloseReason.FAILED)
            return ()
