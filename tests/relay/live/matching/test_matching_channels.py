"""Channels with filters: a round comes to those whose filter it passes, however many there are."""

import random

from relay.live.channels import Channels, Subscription
from relay.live.item import Item
from roundlog.entry import LogEntry
from rounds import Filter
from tests.relay.conftest import make_round
from tests.relay.live.recording_link import RecordingLink

_GAMES = (frozenset({"crash"}), frozenset({"crash", "dice"}), frozenset({"dice"}))


def random_filter(chance: random.Random) -> Filter:
    low, high = sorted(chance.sample(range(30), 2))
    return Filter.build(
        min_point=str(low) if chance.random() < 0.6 else None,
        max_point=str(high) if chance.random() < 0.6 else None,
        colors=chance.sample(["red", "black"], chance.choice([0, 0, 1, 2])),
    )


def item(game: str, sequence: int, extras: str) -> Item:
    return Item("k1", LogEntry(sequence, game, make_round(game, sequence, extras=extras).to_json()))


async def test_channels_that_match_are_those_that_a_plain_loop_finds() -> None:
    """While hundreds of links come and go: many filters are found by the index, few are run one by one."""
    chance, channels, links = random.Random(5), Channels(), dict[RecordingLink, Subscription]()
    for step in range(600):
        link = RecordingLink()
        links[link] = Subscription(chance.choice(_GAMES), random_filter(chance))
        channels.add(link, links[link])
        if step > 200 or step % 3 == 0:
            for gone in chance.sample(list(links), min(len(links), 2)):
                channels.remove(gone)
                del links[gone]
        if step % 10:
            continue
        game = chance.choice(["crash", "dice"])
        color = chance.choice(["red", "black", "white"])
        extras = f'{{"point":"{chance.randrange(30)}.5","color":"{color}"}}'
        round_ = item(game, step + 1, extras)
        found = [*channels.plain(game), *channels.matching(round_)]
        assert len(found) == len(set(found))
        assert {link for channel in found for link in channel.links} == {
            link for link, wanted in links.items() if game in wanted.games and round_.matches(wanted.filter)
        }
    for link in links:
        channels.remove(link)
    assert (channels._filtered, channels._filtered_of, channels._plain, channels._channels_of) == ({}, {}, {}, {})


async def test_games_that_are_watched_are_named_when_they_are_new() -> None:
    """Once for each link that watches a game that none did; not for a further link, nor for one that leaves."""
    channels, calls, first, second = Channels(), list[set[str]](), RecordingLink(), RecordingLink()
    channels.on_watched = lambda: calls.append(set(channels.watched))
    channels.add(first, Subscription(frozenset({"crash"}), Filter()))
    channels.add(second, Subscription(frozenset({"crash"}), Filter.build(min_point="2")))
    channels.add(second, Subscription(frozenset({"crash", "dice"}), Filter()))
    channels.remove(second)
    channels.remove(first)

    assert calls == [{"crash"}, {"crash", "dice"}]
    assert not channels.watched
