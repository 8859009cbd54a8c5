"""What a link costs the hub when it comes, changes and leaves, however many there are and however different."""

import gc
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Final

import pytest

from relay.live.bounds import Bounds
from relay.live.channels import Subscription
from relay.live.hub import Hub
from relay.live.members import Members
from relay.live.ring import Ring
from rounds import Filter
from rounds.filter import Facts
from tests.relay.live.recording_link import RecordingLink
from tests.relay.live.test_hub import entry, turn

FEW, MANY = 500, 4000
GAMES: Final = frozenset({"crash", *(f"game-{number}" for number in range(13))})
HASH_MODULUS: Final = (1 << 61) - 1
"""Python gives integers that differ by it the same hash."""

Kind = Callable[[int], str]
KINDS: Final[dict[str, Kind]] = {
    "same": lambda _: "2.50",
    "distinct": str,
    "same hash": lambda number: str(number * HASH_MODULUS + 7),
}


def new_hub() -> Hub:
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1000)
    hub.begin(Bounds("k1", 1, 0))
    return hub


def subscriptions(kind: str, count: int) -> list[Subscription]:
    return [Subscription(GAMES, Filter.build(min_point=KINDS[kind](number))) for number in range(count)]


def cost_s(kind: str, count: int) -> list[float]:
    """Return the CPU time of one link's arrival, change and leave, in this order; the newest leaves first."""
    hub, wanted = new_hub(), subscriptions(kind, count)
    links = [RecordingLink() for _ in wanted]
    fewer = [each._replace(games=GAMES - {"crash"}) for each in wanted]
    times = [time.process_time()]
    for subscribed in (wanted, fewer):
        for link, each in zip(links, subscribed, strict=True):
            hub.add(link, each)
        times.append(time.process_time())
    for link in reversed(links):
        hub.remove(link)
    times.append(time.process_time())
    return [(end - begin) / count for begin, end in pairwise(times)]


@pytest.mark.parametrize("kind", KINDS)
async def test_cost_of_a_link_does_not_grow_with_their_number(kind: str) -> None:
    """It used to be eight times as much for eight times as many links with different filters."""
    gc.disable()  # it visits all objects of the process, whose number is not the hub's
    try:
        few = [min(each) for each in zip(*(cost_s(kind, FEW) for _ in range(5)), strict=True)]
        many = [min(each) for each in zip(*(cost_s(kind, MANY) for _ in range(2)), strict=True)]
    finally:
        gc.enable()

    ratios = [most / least for most, least in zip(many, few, strict=True)]
    assert max(ratios) < 3, ratios


async def test_filters_are_not_compared_when_a_link_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters are looked up by hash: at most one comparison for each of the lookups of a link."""
    hub, wanted = new_hub(), subscriptions("same hash", 200)
    links = [RecordingLink() for _ in wanted]
    for link, each in zip(links, wanted, strict=True):
        hub.add(link, each)
    compared = 0
    equal = Filter.__eq__

    def counted(self: Filter, other: object) -> bool:
        nonlocal compared
        compared += 1
        return equal(self, other)

    monkeypatch.setattr(Filter, "__eq__", counted)
    for link in reversed(links):
        hub.remove(link)

    assert compared <= len(links)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Filter]:
    """The filters that have run, in order."""
    run: list[Filter] = []
    matches = Filter.matches

    def counted(self: Filter, facts: Facts) -> bool:
        run.append(self)
        return matches(self, facts)

    monkeypatch.setattr(Filter, "matches", counted)
    return run


async def test_links_that_have_left_cost_a_round_nothing(runs: list[Filter]) -> None:
    """Their filters do not run."""
    hub, wanted = new_hub(), subscriptions("distinct", 100)
    links = [RecordingLink() for _ in wanted]
    for link, each in zip(links, wanted, strict=True):
        hub.add(link, each)
    for link in links[1:]:
        hub.remove(link)

    hub.publish([entry(1)])
    await turn()

    assert runs == [wanted[0].filter]
    assert len(links[0].recorder.writes) == 1


async def test_filter_runs_once_per_round_however_many_links_share_it(runs: list[Filter]) -> None:
    """Links of other games share it too, and a bound that is written in another way is the same filter."""
    hub = new_hub()
    for games in (GAMES, frozenset({"crash"}), frozenset({"crash", "game-1"})):
        for text in ("2.5", "2.50"):
            hub.add(RecordingLink(), Subscription(games, Filter.build(min_point=text)))

    hub.publish([entry(1), entry(2)])
    await turn()

    assert len(runs) == 2


def test_members_keep_their_order_and_give_memory_back() -> None:
    """A set of many that has few is as small as one that never had many."""
    members: Members[int] = Members()
    for number in range(MANY):
        members.add(number)
    for number in range(3, MANY):
        members.discard(number)
        members.discard(number)

    assert list(members) == [0, 1, 2]
    assert len(members) == 3
    members.add(MANY)
    assert list(members) == [0, 1, 2, MANY]
    assert sys.getsizeof(members._members) < 10_000, "the dict holds no places of the removed"
