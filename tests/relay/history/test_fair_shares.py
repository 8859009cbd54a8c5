"""Few may hold something at a time: the others wait for their turns, and one that leaves changes nothing."""

import asyncio

import pytest

from relay.history.reading.budget import Budget
from relay.history.reading.fair_shares import Claim, FairShares
from relay.history.reading.payer import Payer
from tests.resume.replay_rig import turns

CROWD, OTHER = Payer("crowd"), Payer("other")


class Readers:
    """Tasks that hold a share until the test ends them; `order` is who got one."""

    def __init__(self, shares: FairShares) -> None:
        self.shares = shares
        self.order: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self._ends: dict[str, asyncio.Event] = {}

    def start(self, name: str, claim: Claim, cost: float = 1.0) -> None:
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, claim, cost))

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await turns(4)

    async def _hold(self, name: str, claim: Claim, cost: float) -> None:
        async with self.shares.turn(claim, cost=cost, within_s=60) as turn:
            self.order.append(f"{name} {turn.payer.key_id}")
            await self._ends[name].wait()


@pytest.fixture
async def readers() -> Readers:
    """Ten readers of one key for one place: the first holds it."""
    readers = Readers(FairShares(1, most=1))
    for number in range(10):
        readers.start(f"crowd{number}", Claim(CROWD))
    await turns(2)
    assert readers.order == ["crowd0 crowd"]
    return readers


async def test_place_goes_to_the_payer_whose_turn_it_is(readers: Readers) -> None:
    """Not to the one who waits longest."""
    readers.start("other", Claim(OTHER))
    await turns(2)
    await readers.end("crowd0")

    assert readers.order[1:] == ["other other"]


async def test_one_that_leaves_while_it_waits_costs_nothing(readers: Readers) -> None:
    """Its place goes to the next one; and its key has lost no turn."""
    readers.start("gone", Claim(OTHER), cost=1000)
    readers.start("other", Claim(OTHER))
    await turns(2)
    readers.tasks["gone"].cancel()
    await turns(2)
    await readers.end("crowd0")

    assert readers.order[1:] == ["other other"]


async def test_one_that_leaves_when_its_turn_has_come_passes_it_on(readers: Readers) -> None:
    """It is cancelled after the place was given to it and before it runs."""
    readers.start("gone", Claim(OTHER), cost=1000)
    readers.start("other", Claim(OTHER))
    await turns(2)
    readers.shares.give(CROWD)  # the place of crowd0, taken from it
    readers.tasks["gone"].cancel()
    await turns(4)

    assert readers.order[1:] == ["other other"]
    assert readers.shares.free == 0


async def test_one_that_leaves_as_its_turn_comes_passes_it_on(readers: Readers) -> None:
    """It is cancelled before the place is given to it, and has not run since: one client leaves with many calls."""
    readers.start("gone", Claim(OTHER), cost=1000)
    readers.start("other", Claim(OTHER))
    await turns(2)
    readers.tasks["gone"].cancel()
    readers.shares.give(CROWD)  # the place of crowd0, taken from it
    await turns(4)

    assert readers.order[1:] == ["other other"]
    assert readers.shares.free == 0


async def test_all_that_hold_and_wait_leave_at_once(readers: Readers) -> None:
    """All places are free afterwards, for any key."""
    for task in readers.tasks.values():
        task.cancel()
    await turns(4)

    assert readers.shares.free == 1
    readers.start("later", Claim(CROWD))
    await turns(2)
    assert readers.order[1:] == ["later crowd"]


async def test_wait_that_two_keys_share_ends_at_the_first_turn_of_either(readers: Readers) -> None:
    """A reader that wants what a crowd has asked for does not wait behind the crowd. The one whose turn it was pays."""
    claim = Claim(CROWD)
    readers.start("shared", claim)
    await turns(2)
    claim.join(OTHER)
    await readers.end("crowd0")
    assert readers.order[1:] == ["shared other"]

    await readers.end("shared")
    assert readers.order[2:] == ["crowd1 crowd"]


async def test_wait_from_which_one_key_leaves_stays_in_the_turns_of_the_other(readers: Readers) -> None:
    """Nobody pays for what he does not want any more."""
    claim = Claim(CROWD)
    readers.start("shared", claim)
    await turns(2)
    claim.join(OTHER)
    claim.join(OTHER)
    claim.leave(OTHER)
    claim.leave(OTHER)
    for number in range(10):
        await readers.end(f"crowd{number}")

    assert readers.order[-1] == "shared crowd"
    assert len(readers.order) == 11


async def test_one_key_does_not_hold_every_place() -> None:
    """Another one finds a place without waiting; together they do not hold more than there are."""
    readers = Readers(FairShares(3, most=2))
    for number in range(5):
        readers.start(f"crowd{number}", Claim(CROWD))
    await turns(2)
    assert len(readers.order) == 2
    for number in range(3):
        readers.start(f"other{number}", Claim(OTHER))
    await turns(2)
    assert readers.order[2:] == ["other0 other"]

    await readers.end("crowd0")
    assert readers.order[3:] == ["other1 other"]
    await readers.end("other0")
    await readers.end("other1")
    assert readers.order[4:] == ["crowd2 crowd", "other2 other"]


async def test_wait_that_another_key_joins_gets_the_place_that_is_free_for_that_key() -> None:
    """The first key may hold no more; the other one finds a place."""
    readers, claim = Readers(FairShares(2, most=1)), Claim(CROWD)
    readers.start("crowd0", Claim(CROWD))
    readers.start("shared", claim)
    await turns(2)
    assert readers.order == ["crowd0 crowd"]
    claim.join(OTHER)
    await turns(2)

    assert readers.order[1:] == ["shared other"]


async def test_wait_has_a_deadline(readers: Readers) -> None:
    """The place is not taken for one that has given up."""
    with pytest.raises(TimeoutError):
        async with readers.shares.turn(Claim(OTHER), cost=1, within_s=0.001):
            pass
    await readers.end("crowd0")

    assert readers.order[1:] == ["crowd1 crowd"]


async def test_key_whose_clients_do_not_read_leaves_room_for_others() -> None:
    """It holds half of what all replays may hold; a second such key takes half of the rest, and a third finds some."""
    budget, third = Budget(1600), Payer("third")
    crowd = [asyncio.create_task(budget.take(100, CROWD)) for _ in range(20)]
    await turns(2)
    assert budget._free == 800
    assert budget.try_take(100, CROWD) == 0

    others = [asyncio.create_task(budget.take(100, OTHER)) for _ in range(20)]
    await turns(2)
    assert budget._free == 400
    assert await budget.take(100, third) == 100
    assert budget.try_take(100, third) == 100, "a page ahead"

    for _ in range(8):
        budget.give(100, CROWD)
    await turns(2)
    assert sum(task.done() for task in crowd) > 8
    for task in (*crowd, *others):
        task.cancel()


async def test_large_share_is_not_passed_for_ever_by_small_ones() -> None:
    """Its turn comes, and then others wait until there is enough for it."""
    budget, large = Budget(1000), Payer("large")
    held = [await budget.take(100, Payer(f"key-{number}")) for number in range(10)]
    assert held == [100] * 10
    waiting = asyncio.create_task(budget.take(900, large))
    await turns(2)
    small = [asyncio.create_task(budget.take(100, Payer(f"key-{number}"))) for number in range(10)]
    for number in range(10):
        await turns(2)
        assert not waiting.done() or number == 9
        budget.give(100, Payer(f"key-{number}"))
    await turns(2)

    assert waiting.done()
    assert sum(task.done() for task in small) == 1
    for task in small:
        task.cancel()


async def test_turn_that_is_free_sets_no_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each history takes one; only a wait has a deadline."""
    shares, deadlines = FairShares(1, most=1), list[float]()
    timeout = asyncio.timeout

    def noted(within_s: float) -> asyncio.Timeout:
        deadlines.append(within_s)
        return timeout(within_s)

    monkeypatch.setattr(asyncio, "timeout", noted)
    async with shares.turn(Claim(CROWD), cost=1.0, within_s=60):
        assert deadlines == []
        with pytest.raises(TimeoutError):
            async with shares.turn(Claim(OTHER), cost=1.0, within_s=0.01):
                pass
    assert deadlines == [0.01]
    assert shares.free == 1
