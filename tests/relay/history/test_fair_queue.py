"""Whose turn is next: each key gets the same, by cost and weight, whatever the number of its requests."""

from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.history.reading import fair_queue
from relay.history.reading.fair_queue import FairQueue
from relay.history.reading.payer import RELAY, Payer

Step = tuple[str, int, float]

PAYERS = [Payer("a"), Payer("b", weight=2.0), Payer("page", "192.0.2.1"), Payer("page", "192.0.2.2")]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "pop"]), st.integers(0, len(PAYERS) - 1), st.sampled_from([1.0, 5.0, 40.0])
    )
)


def filled(queue: FairQueue[int], *payers: Payer, each: int) -> FairQueue[int]:
    numbers = count()
    for payer in payers:
        for _ in range(each):
            queue.add(payer, next(numbers))
    return queue


def served(queue: FairQueue[int], turns: int, cost: float = 1.0) -> list[Payer]:
    popped = (queue.pop(cost) for _ in range(turns))
    return [found[0] for found in popped if found is not None]


def test_one_request_beside_a_crowd_is_next() -> None:
    """300 requests of one key wait, and many were served before: the first of another key waits for none of them."""
    crowd, other = Payer("crowd"), Payer("other")
    queue = filled(FairQueue(), crowd, each=300)
    served(queue, 100, cost=500)

    queue.add(other, 1000)

    assert queue.pop(500) == (other, 1000)


def test_keys_take_turns_by_cost() -> None:
    """One whose pages are four times as large gets a quarter of the turns."""
    large, small = Payer("large"), Payer("small")
    queue, rounds = filled(FairQueue(), large, small, each=2000), Counter[Payer]()
    turns = Counter[Payer]()
    for _ in range(1000):
        found = queue.pop(0.0)
        assert found is not None
        cost = 2000 if found[0] is large else 500
        queue.charge(found[0], cost)  # known when the page has come
        rounds[found[0]] += cost
        turns[found[0]] += 1

    assert abs(rounds[large] - rounds[small]) <= 2500
    assert 3.9 < turns[small] / turns[large] < 4.1


def test_weight_is_a_multiple_of_turns() -> None:
    plain, heavy = Payer("plain"), Payer("heavy", weight=3.0)
    queue = filled(FairQueue(), plain, heavy, each=400)

    turns = Counter(served(queue, 400))

    assert abs(turns[heavy] - 300) <= 2


def test_addresses_of_a_public_key_share_the_turns_of_their_key() -> None:
    """A page with 100 viewers does not get 100 times what a server gets; and one viewer gets what another gets."""
    server, viewers = Payer("server"), [Payer("page", f"192.0.2.{number}") for number in range(100)]
    queue = filled(FairQueue(), server, *viewers, each=100)
    for number in range(500):
        queue.add(viewers[0], 1_000_000 + number)

    turns = Counter(served(queue, 200))

    assert abs(turns[server] - 100) <= 1
    assert max(turns[viewer] for viewer in viewers) <= 2


def test_within_a_payer_first_come_first_served() -> None:
    queue = filled(FairQueue(), PAYERS[0], each=50)

    assert [queue.pop(1.0) for _ in range(50)] == [(PAYERS[0], number) for number in range(50)]
    assert queue.pop(1.0) is None


def test_head_start_is_spent_before_turns_are_taken() -> None:
    """A short resume is not slowed at all; a long one takes turns after that, and does not get another head start."""
    crowd, other = Payer("crowd"), Payer("other")
    queue = filled(FairQueue(head_start=10.0), crowd, each=500)
    served(queue, 100)
    for number in range(100):
        queue.add(other, 10_000 + number)

    turns = served(queue, 60)

    assert turns[:10] == [other] * 10
    assert 24 <= Counter(turns[10:])[other] <= 26


def test_head_start_comes_back_only_when_others_were_served() -> None:
    """A key that reads a little again and again gets half of all in the long run, and not more."""
    crowd, other = Payer("crowd"), Payer("other")
    queue, numbers = filled(FairQueue(head_start=10.0), crowd, each=1000), count(10_000)
    turns = Counter[Payer]()
    for _ in range(500):
        queue.add(other, next(numbers))
        turns.update(served(queue, 1))

    assert 245 <= turns[other] <= 260


@given(STEPS, st.floats(0, 100))
def test_requests_that_leave_have_no_effect(steps: list[Step], head_start: float) -> None:
    """Turns are the same as if requests that were given up had never come."""
    plain, crossed = FairQueue[int](head_start=head_start), FairQueue[int](head_start=head_start)
    for number, (what, index, cost) in enumerate(steps):
        if what == "add":
            crossed.add(PAYERS[index - 1], -number - 1)
            for queue in (plain, crossed):
                queue.add(PAYERS[index], number)
            crossed.add(PAYERS[index], -number - 1)
            crossed.remove(PAYERS[index - 1], -number - 1)
            crossed.remove(PAYERS[index], -number - 1)
        else:
            assert plain.first() == crossed.first()
            assert plain.pop(cost) == crossed.pop(cost)
        assert len(plain) == len(crossed)


@given(STEPS)
def test_every_request_gets_one_turn_in_the_order_of_its_payer(steps: list[Step]) -> None:
    """None is lost, none comes twice, and none overtakes another one of its payer."""
    queue, added, popped = FairQueue[int](), dict[Payer, list[int]](), dict[Payer, list[int]]()
    for number, (what, index, cost) in enumerate(steps):
        if what == "add":
            queue.add(PAYERS[index], number)
            added.setdefault(PAYERS[index], []).append(number)
        elif (found := queue.pop(cost)) is not None:
            popped.setdefault(found[0], []).append(found[1])
    while (found := queue.pop(1.0)) is not None:
        popped.setdefault(found[0], []).append(found[1])

    assert popped == added
    assert len(queue) == 0


@given(st.lists(st.tuples(st.floats(1, 100), st.booleans()), min_size=50, max_size=200))
def test_two_keys_that_wait_get_the_same(costs: list[tuple[float, bool]]) -> None:
    """At no time does one have more than the other by more than one turn of each (Goyal, Vin and Cheng, theorem 1)."""
    a, b = Payer("a"), Payer("b")
    queue, spent = filled(FairQueue(), a, b, each=len(costs)), Counter[Payer]()
    most = {a: 0.0, b: 0.0}
    for cost, is_late in costs:
        found = queue.pop(0.0 if is_late else cost)
        assert found is not None
        payer = found[0]
        if is_late:
            queue.charge(payer, cost)
        spent[payer] += cost  # type: ignore[assignment]
        most[payer] = max(most[payer], cost)
        assert abs(spent[a] - spent[b]) <= most[a] + most[b] + 1e-6


def test_cheap_work_is_not_starved() -> None:
    """However many payers wait, each gets its turn after one turn of every other one."""
    payers = [Payer(f"key-{number}") for number in range(50)]
    queue = filled(FairQueue(head_start=3.0), *payers, each=5)
    served(queue, 60, cost=1000.0)
    late = Payer("late")
    queue.add(late, 9999)

    assert late in served(queue, 51, cost=1000.0)


def test_key_that_is_suspended_keeps_its_place() -> None:
    """Others pass it; afterwards its requests come in their order."""
    a, b = Payer("a"), Payer("b")
    queue = filled(FairQueue(), a, b, each=3)
    queue.suspend(a)
    queue.add(a, 99)

    assert served(queue, 10) == [b, b, b]
    assert queue.first() is None
    assert len(queue) == 4
    queue.resume(a)
    assert [queue.pop(1.0) for _ in range(4)] == [(a, 0), (a, 1), (a, 2), (a, 99)]


def test_relay_waits_behind_no_client() -> None:
    """What it reads serves all of them."""
    crowd = Payer("crowd")
    queue = filled(FairQueue(), crowd, each=100)
    served(queue, 10, cost=500)
    for number in range(1000, 1010):
        queue.add(RELAY, number)

    assert served(queue, 11, cost=500).count(RELAY) >= 10


def test_memory_is_bounded_by_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither addresses that came once nor requests that were given up are remembered."""
    monkeypatch.setattr(fair_queue, "_MOST_IDLE", 100)
    queue, crowd = FairQueue[int](head_start=10.0), Payer("crowd")
    queue.add(crowd, -1)
    for number in range(20_000):
        viewer = Payer("page", f"2001:db8::{number:x}")
        queue.serve(viewer, 5.0)
        queue.add(viewer, number)
        queue.remove(viewer, number)
        queue.add(Payer(f"key-{number}"), number)
        queue.remove(Payer(f"key-{number}"), number)

    keys = queue._keys
    assert len(keys.flows) < 1000
    assert len(keys.flows["page"].addresses.flows) < 1000
    assert len(keys._heap) < 1000
    assert len(keys.flows["page"].addresses._heap) < 1000
    assert queue.pop(1.0) == (crowd, -1)
