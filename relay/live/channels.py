"""Which links get the same bytes: channels, by subscription and form.

Owns what a subscription is, and which channels a game has. Adding, changing and removing a link costs the same however
many there are, and however different. Does not know rounds.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator
from itertools import chain
from typing import Final, NamedTuple, Self, TypeVar

from relay.live.compression.shared_stream import SharedStream, WindowedForm, Windows, Write
from relay.live.encode import Form
from relay.live.item import Item
from relay.live.link import Link
from relay.live.matching.filter_index import FilterIndex
from relay.live.members import Members
from relay.usage.tally import Tally
from rounds import Filter
from rounds.filter import Facts
from rounds.subjects import with_corrections

_T = TypeVar("_T", bound=Hashable)

_FEW: Final = 8
"""Filters of a game that are run without asking the index, which costs as much as running eight."""


class Subscription(NamedTuple):
    """What a link subscribed to: rounds of these games that match this filter.

    Corrections of a game stand in `games` under a name of their own, see `rounds.subjects.corrections_of`. They come
    whether or not they match: the client may have got the round as it was.
    """

    games: frozenset[str]
    filter: Filter

    @classmethod
    def nothing(cls) -> Self:
        return cls(frozenset(), Filter())

    def with_corrections(self) -> Self:
        """Return the subscription that also has the corrections of its games."""
        return self._replace(games=with_corrections(self.games))


class _FilterInUse:
    """A filter of at least one channel. Runs once per round, for all its channels, and is never compared by value."""

    __slots__ = ("_facts", "_matches", "channels", "filter")

    def __init__(self, filter_: Filter) -> None:
        self.filter = filter_
        self.channels = 0
        self._facts: Facts | None = None  # of the round that it ran on last
        self._matches = False

    def matches(self, facts: Facts) -> bool:
        """Whether a round passes."""
        if self._facts is not facts:
            self._matches = self.filter.matches(facts)
            self._facts = facts
        return self._matches


class _FilteredGames:
    """The channels of the same games that have a filter, by it: a channel costs as much for many games as for one."""

    __slots__ = ("_channels", "_index", "games")

    def __init__(self, games: frozenset[str]) -> None:
        self.games = games
        self._channels: dict[_FilterInUse, dict[Channel, None]] = {}  # those of a filter have different forms: few
        self._index: FilterIndex[_FilterInUse] = FilterIndex()

    def __len__(self) -> int:
        return len(self._channels)

    def __iter__(self) -> Iterator["Channel"]:
        return chain.from_iterable(self._channels.values())

    def add(self, channel: "Channel") -> None:
        filter_ = channel.key[1]
        channels = self._channels.get(filter_)
        if channels is None:
            channels = self._channels[filter_] = {}
            self._index.add(filter_.filter, filter_)
        channels[channel] = None

    def discard(self, channel: "Channel") -> None:
        filter_ = channel.key[1]
        channels = self._channels[filter_]
        del channels[channel]
        if not channels:
            del self._channels[filter_]
            self._index.discard(filter_.filter, filter_)

    def matching(self, facts: Facts) -> list["Channel"]:
        """Return the channels whose filter a round passes. Only filters that may match are run."""
        found: list[Channel] = []
        channels = self._channels
        for filter_ in channels if len(channels) <= _FEW else self._index.candidates(facts):
            if filter_.matches(facts):
                found += channels[filter_]
        return found


class Channel:
    """All links with the same subscription and form. The same bytes are written to them."""

    __slots__ = ("form", "has_filter", "key", "links", "pending", "stream", "subscription", "tally")

    def __init__(self, subscription: Subscription, filter_: _FilterInUse, key: "_ChannelKey", windows: Windows) -> None:
        self.subscription = subscription
        self.has_filter = not subscription.filter.is_empty  # else every round of the games matches
        self.key = key
        self.form = key[2]
        self.links: Members[Link] = Members()
        self.pending: list[bytes] = []
        self.tally = Tally()
        self.stream: SharedStream[Link] | None = (
            SharedStream(self.form, windows) if isinstance(self.form, WindowedForm) else None
        )

    def add(self, link: Link) -> None:
        """Add a link."""
        self.links.add(link)
        self.tally.join(link.account)
        if self.stream is not None:
            self.stream.join(link)
            link.share(self.stream)

    def remove(self, link: Link) -> None:
        """Remove a link that was added."""
        self.links.discard(link)
        self.tally.leave(link.account)
        if self.stream is not None:
            link.share(None)
            self.stream.leave(link)

    def count(self, rendered: list[bytes], writes: list[Write[Link]]) -> None:
        """Count rounds that are written, for the accounts of the links; as if none of them was compressed."""
        self.tally.rounds += len(rendered)
        form = self.form
        plain = form.plain_bytes(rendered) if isinstance(form, WindowedForm) else len(writes[0].data)
        self.tally.bytes += plain

    def writes(self, rendered: list[bytes]) -> list[Write[Link]]:
        """Make the writes of some rounds: the first for most of the links."""
        links = list(self.links)
        if self.stream is None:
            return [Write(links, self.form.join(rendered))]
        return self.stream.writes(rendered, links)


_ChannelKey = tuple[frozenset[str], _FilterInUse, Form]


class Channels:
    """The channels of a process, and which link is in which."""

    def __init__(self) -> None:
        self._channels: dict[_ChannelKey, Channel] = {}
        self._filters: dict[Filter, _FilterInUse] = {}
        self._plain: dict[str, Members[Channel]] = {}
        self._filtered: dict[frozenset[str], _FilteredGames] = {}
        self._filtered_of: dict[str, Members[_FilteredGames]] = {}
        self._channel_of: dict[Link, Channel] = {}
        self._windows = Windows()
        self._channels_of: dict[str, int] = {}  # how many each game has
        self.on_watched: Callable[[], None] = _ignore
        """Called when links subscribe to a game that had none."""

    def __len__(self) -> int:
        return len(self._channel_of)

    @property
    def links(self) -> Iterable[Link]:
        return tuple(self._channel_of)

    def has(self, game: str) -> bool:
        """Say whether any link is subscribed to a game."""
        return game in self._channels_of

    @property
    def watched(self) -> Collection[str]:
        """The games that links are subscribed to, and their corrections; a view, which changes with them."""
        return self._channels_of.keys()

    def plain(self, game: str) -> Iterable[Channel]:
        """Return the channels that get every round of a game."""
        return self._plain.get(game, ())

    def matching(self, item: Item) -> Iterable[Channel]:
        """Return the channels whose filter a round of their game passes; a correction passes each."""
        filtered = self._filtered_of.get(item.game)
        if filtered is None:
            return ()
        facts = item.facts
        return chain.from_iterable(filtered if facts is None else [games.matching(facts) for games in filtered])

    def of(self, link: Link) -> Channel | None:
        """Return the channel of a link; None when it is in none."""
        return self._channel_of.get(link)

    @property
    def tallies(self) -> list[Tally]:
        """Return what was written to each channel."""
        return [channel.tally for channel in self._channels.values()]

    def add(self, link: Link, subscription: Subscription) -> Subscription:
        """Put a link into the channel of its subscription and form, and out of the one that it was in.

        Returns `subscription`, or the equal object of other links.
        """
        self.remove(link)
        filter_ = self._filters.get(subscription.filter) or _FilterInUse(subscription.filter)
        key = (subscription.games, filter_, link.form)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._open(Channel(subscription, filter_, key, self._windows))
        channel.add(link)
        self._channel_of[link] = channel
        return channel.subscription

    def remove(self, link: Link) -> None:
        """Take a link out of its channel; ignore a link that is in none."""
        channel = self._channel_of.pop(link, None)
        if channel is None:
            return
        channel.remove(link)
        if not channel.links:
            self._close(channel)

    def _open(self, channel: Channel) -> Channel:
        games, filter_, _ = channel.key
        self._channels[channel.key] = channel
        if not filter_.channels:
            self._filters[filter_.filter] = filter_
        filter_.channels += 1
        if channel.has_filter:
            self._filtered_as(channel.subscription.games).add(channel)
        else:
            for game in games:
                members = self._plain.get(game)
                if members is None:
                    members = self._plain[game] = Members()
                members.add(channel)
        before = len(self._channels_of)
        for game in games:
            self._channels_of[game] = self._channels_of.get(game, 0) + 1
        if len(self._channels_of) > before:
            self.on_watched()
        return channel

    def _filtered_as(self, games: frozenset[str]) -> _FilteredGames:
        filtered = self._filtered.get(games)
        if filtered is None:
            filtered = self._filtered[games] = _FilteredGames(games)
            for game in games:
                self._filtered_of.setdefault(game, Members()).add(filtered)
        return filtered

    def _close(self, channel: Channel) -> None:
        games, filter_, _ = channel.key
        del self._channels[channel.key]
        filter_.channels -= 1
        if not filter_.channels:
            del self._filters[filter_.filter]
        if channel.has_filter:
            filtered = self._filtered[games]
            filtered.discard(channel)
            if not filtered:
                del self._filtered[games]
                _discard(self._filtered_of, games, filtered)
        else:
            _discard(self._plain, games, channel)
        for game in games:
            self._channels_of[game] -= 1
            if not self._channels_of[game]:
                del self._channels_of[game]


def _discard(by_game: dict[str, Members[_T]], games: Iterable[str], member: _T) -> None:
    for game in games:
        members = by_game[game]
        members.discard(member)
        if not members:
            del by_game[game]


def _ignore() -> None:
    pass
