"""Shares: who is shed for whom."""

from collections import Counter
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from relay.admission.strangers import FRESH_S, Share

NOW: Final = 100.0


class Connection:
    """A connection that leaves its share when it is shed, as a real one does when it is closed."""

    def __init__(self, share: Share, address: str, *, opened_at: float = 0.0) -> None:
        self.address, self.idle_since = address, opened_at
        self.is_open = True
        self._share = share
        share.enter(self)

    def shed(self) -> None:
        self.is_open = False
        self._share.leave(self)


def opened(share: Share, *addresses: str) -> list[Connection]:
    return [Connection(share, address) for address in addresses]


def test_oldest_of_the_largest_holder_is_shed() -> None:
    """An address with one connection keeps it, however old it is."""
    share = Share(4)
    connections = opened(share, "b", "a", "a", "a", "c")

    assert [each.is_open for each in connections] == [True, False, True, True, True]
    assert (share.count, share.shed) == (4, 1)


def test_one_address_for_all_sheds_the_oldest() -> None:
    """Behind a load balancer; the newest always finds a place."""
    share = Share(2)

    assert [each.is_open for each in opened(share, *"aaaaa")] == [False, False, False, True, True]


def test_connection_that_is_served_is_not_shed() -> None:
    """Until it rests; then it is the newest of its address."""
    share = Share(2)
    first, second = opened(share, "a", "a")
    share.work(first)
    third, *_ = opened(share, "a")
    share.work(third)
    share.rest(first)
    fourth, *_ = opened(share, "a")

    assert [each.is_open for each in (first, second, third, fourth)] == [False, False, True, True]


def test_newest_is_shed_when_all_are_served() -> None:
    """The share is a bound, also when nobody is idle."""
    share = Share(2)
    served = opened(share, "a", "a")
    for each in served:
        share.work(each)
    newest, *_ = opened(share, "b")

    assert not newest.is_open
    assert all(each.is_open for each in served)


def test_fresh_connection_keeps_its_place() -> None:
    """A full share has room for one more only when the one to be shed has had the time for its request."""
    share = Share(1)
    assert share.has_room(NOW)
    assert not share.has_room(NOW, coming=1)
    Connection(share, "a", opened_at=NOW)

    assert not share.has_room(NOW)
    assert share.has_room(NOW + 2 * FRESH_S)
    assert not share.has_room(NOW + 2 * FRESH_S, coming=1)


def test_share_of_nobody_has_room_for_nobody() -> None:
    """Without an idle member there is none to shed."""
    assert not Share(0).has_room(NOW)
    assert not Share(0).shed_one()


@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from(["enter", "leave", "work", "rest"]), st.sampled_from("abc")), max_size=80),
)
def test_share_is_never_exceeded(most: int, moves: list[tuple[str, str]]) -> None:
    """Whatever comes and goes; and who is shed is of an address with the most idle connections."""
    share, members, idle = Share(most), list[Connection](), set[Connection]()
    for move, address in moves:
        held = Counter(each.address for each in idle)
        if move == "enter":
            entered = Connection(share, address)
            members.append(entered)
            idle.add(entered)
        elif of_address := [each for each in members if each.address == address]:
            {"leave": share.leave, "work": share.work, "rest": share.rest}[move](of_address[0])
            (idle.add if move == "rest" else idle.discard)(of_address[0])
            if move == "leave":
                members.remove(of_address[0])
        for gone in [each for each in members if not each.is_open]:
            assert held[gone.address] == max(held.values(), default=0)
            members.remove(gone)
            idle.discard(gone)
        assert share.count == len(members) <= most
