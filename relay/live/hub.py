"""Write every round of the log to every link that is subscribed to it: encode once, write to many, wait for none.

Owns which link is subscribed to what, and the order in which rounds are written. Rounds come from the feed in log
order; bytes go to transports. Does not know NATS, HTTP or credentials, nor how a link is ended. Awaits nothing.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

import structlog

from relay.live.bounds import Bounds, Gap, GapReason
from relay.live.encode import Form
from relay.live.item import Item
from relay.live.link import CloseReason, Link
from relay.live.members import Members
from relay.live.ring import Ring
from roundlog.entry import LogEntry
from rounds import Cursor, Filter

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
_BEHIND_ROUNDS: Final = 10_000
"""A backlog of more rounds than this should not grow: the log has them."""


class Generation(NamedTuple):
    """A period in which what was read of the log stays true: until it is rebuilt or loses its tail."""

    epoch: str
    losses: int  # how often the log is known to have lost its tail


class Subscription(NamedTuple):
    """What a link subscribed to: rounds of these games that match this filter."""

    games: frozenset[str]
    filter: Filter

    @classmethod
    def nothing(cls) -> Self:
        return cls(frozenset(), Filter())


class _FilterInUse:
    """A filter of at least one channel. Runs once per round, for all its channels, and is never compared by value."""

    __slots__ = ("_item", "_matches", "channels", "filter")

    def __init__(self, filter_: Filter) -> None:
        self.filter = filter_
        self.channels = 0
        self._item: Item | None = None  # the round that it ran on last
        self._matches = False

    def matches(self, item: Item) -> bool:
        """Whether a valid round passes."""
        if self._item is not item:
            self._matches = item.matches(self.filter)
            self._item = item
        return self._matches


class Channel:
    """All links with the same subscription and form. The same bytes are written to them."""

    __slots__ = ("filter", "form", "key", "links", "pending", "subscription")

    def __init__(self, subscription: Subscription, filter_: _FilterInUse, key: "_ChannelKey") -> None:
        self.subscription = subscription
        self.filter = None if subscription.filter.is_empty else filter_  # None: every round of the games matches
        self.key = key
        self.form = key[2]
        self.links: Members[Link] = Members()
        self.pending: list[bytes] = []


_ChannelKey = tuple[frozenset[str], _FilterInUse, Form]


@dataclass(slots=True)
class HubStats:
    """Counters since the start of this process."""

    rounds: int = 0
    deliveries: int = 0
    invalid: int = 0


class Hub:
    """Connects the rounds and the links of a process. Used on one event loop; not thread-safe."""

    def __init__(self, ring: Ring, *, unsent_bytes: int) -> None:
        """Start empty.

        Args:
            ring: Keeps the newest rounds.
            unsent_bytes: Bytes waiting for one link before it is ended as slow.
        """
        self.stats = HubStats()
        self.ring = ring
        self.head = Cursor(_NO_EPOCH, 0)
        self.first = 1
        self.generation = Generation(_NO_EPOCH, 0)
        self.ends: list[int] = []
        """Where the log ended after each loss of its tail, oldest first."""
        self._unsent_bytes = unsent_bytes
        self._channels: dict[_ChannelKey, Channel] = {}
        self._filters: dict[Filter, _FilterInUse] = {}
        self._by_game: dict[str, Members[Channel]] = {}
        self._channel_of: dict[Link, Channel] = {}
        self._backlog: deque[LogEntry] = deque()
        self._flush_due = False
        self._congested: list[Link] = []  # which the last slice has filled to more than half of their limit
        self._waits_until = 0.0  # loop time
        self._backlog_until = 0.0  # loop time
        self._advanced = asyncio.Event()

    # --- links -------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._channel_of)

    @property
    def links(self) -> Iterable[Link]:
        return tuple(self._channel_of)

    def add(self, link: Link, subscription: Subscription) -> Subscription:
        """Subscribe a link, or replace its subscription, from the next round on.

        Returns `subscription`, or the equal object of other links: keep that one, so that 10,000 links share it.
        """
        self.remove(link)
        filter_ = self._filters.get(subscription.filter) or _FilterInUse(subscription.filter)
        key = (subscription.games, filter_, link.form)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._open(Channel(subscription, filter_, key))
        channel.links.add(link)
        self._channel_of[link] = channel
        return channel.subscription

    def remove(self, link: Link) -> None:
        """Unsubscribe a link; ignore a link that is not subscribed."""
        channel = self._channel_of.pop(link, None)
        if channel is None:
            return
        channel.links.discard(link)
        if not channel.links:
            self._close(channel)

    def _open(self, channel: Channel) -> Channel:
        games, filter_, _ = channel.key
        self._channels[channel.key] = channel
        if not filter_.channels:
            self._filters[filter_.filter] = filter_
        filter_.channels += 1
        for game in games:
            self._by_game.setdefault(game, Members()).add(channel)
        return channel

    def _close(self, channel: Channel) -> None:
        games, filter_, _ = channel.key
        del self._channels[channel.key]
        filter_.channels -= 1
        if not filter_.channels:
            del self._filters[filter_.filter]
        for game in games:
            channels = self._by_game[game]
            channels.discard(channel)
            if not channels:
                del self._by_game[game]

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
        """Take rounds in log order. They are written in the next loop turn, those of one turn in one write per link.

        A long backlog is written in slices, one per turn, so that sockets drain in between.
        """
        self._backlog.extend(entries)
        if not self._flush_due:
            self._flush_due = True
            asyncio.get_running_loop().call_soon(self._flush_when_taken)

    def _flush(self) -> None:
        try:
            self._hand_on()
        finally:
            self._flush_due = bool(self._backlog)
            if self._flush_due:
                asyncio.get_running_loop().call_soon(self._flush_when_taken)

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
        """Write a slice of the backlog. A round or a link that fails is logged and affects no other."""
        dirty: list[Channel] = []
        epoch, sequence, backlog, taken = self.head.epoch, self.head.sequence, self._backlog, 0
        while backlog and taken < _SLICE_BYTES:
            entry = backlog.popleft()
            taken, sequence = taken + len(entry.data), entry.sequence
            try:
                self._route(Item(epoch, entry), dirty)
            except Exception:
                log.exception("round_failed", game=entry.game, cursor=str(Cursor(epoch, sequence)))
        self.head = Cursor(epoch, sequence)
        self._congested.clear()
        for channel in dirty:
            self._write(channel)
        if self._congested:
            self._waits_until = asyncio.get_running_loop().time() + _EMPTIED_S * taken / self._unsent_bytes
        # Wake all that wait for the head to move, and be ready for the next wait.
        self._advanced.set()
        self._advanced.clear()

    def _route(self, item: Item, dirty: list[Channel]) -> None:
        """Put one round into the ring, and into the pending bytes of each channel that it matches."""
        self.ring.append(item)
        channels = self._by_game.get(item.game)
        if channels is None:
            return
        if not item.valid:
            self.stats.invalid += 1
            return
        self.stats.rounds += 1
        for channel in channels:
            if channel.filter is not None and not channel.filter.matches(item):
                continue
            if not channel.pending:
                dirty.append(channel)
            channel.pending.append(item.rendered(channel.form))

    def _write(self, channel: Channel) -> None:
        """Write the pending bytes of a channel, in one write per link."""
        pending, channel.pending = channel.pending, []
        links, limit = list(channel.links), self._unsent_bytes
        half = limit // 2
        try:
            data = channel.form.join(pending)
        except Exception:
            log.exception("rounds_failed", rounds=len(pending), links=len(links))
            for link in links:
                link.cut(CloseReason.FAILED)
            return
        self.stats.deliveries += len(pending) * len(links)
        for link in links:
            transport = link.transport
            try:
                transport.write(data)
                unsent = transport.get_write_buffer_size()
                if unsent > half:
                    if unsent > limit:
                        link.end(CloseReason.SLOW)
                    else:
                        self._congested.append(link)
            except Exception:
                log.exception("link_failed", link=link.id)
                link.cut(CloseReason.FAILED)
