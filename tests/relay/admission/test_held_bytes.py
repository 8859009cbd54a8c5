"""Bytes that connections hold: bounded together, and who is closed for others."""

import pytest

from relay.admission import held_bytes
from relay.admission.held_bytes import LEAST_BYTES, HeldBytes
from tests.waiting import until

KB = 1 << 10


class Holding:
    """A connection that holds a number of bytes."""

    def __init__(self, address: str, size: int = 0) -> None:
        self.address = address
        self.size = size
        self.was_shed = False

    def held_bytes(self) -> int:
        return self.size

    def shed(self) -> None:
        self.was_shed = True


def hold(held: HeldBytes, address: str, *sizes: int) -> list[Holding]:
    holders = [Holding(address, size) for size in sizes]
    for holder in holders:
        held.look_at(holder)
    return holders


async def test_sum_of_what_is_held() -> None:
    """It follows each connection; little is not counted, and one that has left is not."""
    held = HeldBytes(1000 * KB)
    small, large = hold(held, "a", LEAST_BYTES - 1, 100 * KB)
    assert held.total == 100 * KB
    large.size = 60 * KB
    held.look_at(large)
    assert held.total == 60 * KB
    held.release(large)
    held.release(large)
    held.release(small)
    assert (held.total, held.shed) == (0, 0)


async def test_oldest_of_the_largest_address_is_closed() -> None:
    """Others with little stay, also when they began earlier."""
    held = HeldBytes(100 * KB)
    early, late = hold(held, "good", 10 * KB, 10 * KB)
    bad = hold(held, "bad", *[10 * KB] * 20)

    assert not any(one.was_shed for one in (early, late))
    assert [one.was_shed for one in bad] == [True] * held.shed + [False] * (20 - held.shed)
    assert held.total <= 100 * KB


async def test_many_addresses_are_closed_down_to_the_maximum() -> None:
    """The largest first, and no more than needed."""
    held = HeldBytes(100 * KB)
    small = [hold(held, f"s{number}", 5 * KB)[0] for number in range(10)]
    large = [hold(held, f"l{number}", 20 * KB)[0] for number in range(3)]

    assert held.total <= 100 * KB
    assert not any(one.was_shed for one in small)
    assert sum(one.was_shed for one in large) == held.shed == 1


async def test_one_that_holds_more_than_all_may_is_closed() -> None:
    """It is the largest."""
    held = HeldBytes(100 * KB)
    [other] = hold(held, "a", 50 * KB)
    [huge] = hold(held, "b", 200 * KB)

    assert (huge.was_shed, other.was_shed, held.total) == (True, False, 50 * KB)


async def test_what_was_taken_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an event: all are looked at, a few at a time, as long as there are any."""
    monkeypatch.setattr(held_bytes, "_LOOK_S", 0.0)
    monkeypatch.setattr(held_bytes, "_LOOKED_AT", 3)
    held = HeldBytes(1000 * KB)
    holders = hold(held, "a", *[10 * KB] * 10)
    for holder in holders[:9]:
        holder.size = 0
    await until(lambda: held.total == 10 * KB)
    holders[9].size = 0
    await until(lambda: held.total == 0)
    again = hold(held, "a", 10 * KB)  # the looks have ended meanwhile, and begin again
    again[0].size = 0
    await until(lambda: held.total == 0)
    assert held.shed == 0


async def test_same_connection_may_hold_again() -> None:
    """As with each of its requests."""
    held = HeldBytes(100 * KB)
    [one] = hold(held, "a", 50 * KB)
    for _ in range(10):
        one.size = 0
        held.look_at(one)
        one.size = 50 * KB
        held.look_at(one)
    assert (held.total, held.shed) == (50 * KB, 0)
