"""The index of filters against running each of them: the same, for any filters, rounds and changes."""

from collections import Counter
from decimal import Decimal
from itertools import count
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from relay.live.matching.filter_index import FilterIndex
from relay.live.matching.sorted_members import SortedMembers
from rounds import Filter
from rounds.filter import Facts

_MANY: Final = 1000

_numbers = st.one_of(
    st.decimals(min_value=-50, max_value=50, places=1),
    st.integers(-(10**30), 10**30).map(Decimal),
    st.sampled_from(
        ["0", "-0.0", "1e400", "-1e400", "1e-400", "1.7e308", "-1.7e308", "0.1", "0.1000000000000000001"]
    ).map(Decimal),
)
_words = st.sampled_from(["red", "black", "white", *"abcdefgh"])
_facts = st.builds(Facts, st.none() | _numbers, st.none() | _words, st.none() | _words)


@st.composite
def _filters(draw: st.DrawFn) -> Filter:
    low, high = draw(st.none() | _numbers), draw(st.none() | _numbers)
    if low is not None and high is not None and low > high:
        low, high = high, low
    words = st.frozensets(_words, max_size=11)
    return Filter(low, high, draw(words), draw(words))


@given(st.lists(_filters(), max_size=40), st.lists(_facts, min_size=1, max_size=10), st.data())
def test_every_filter_that_matches_is_found_once(
    filters: list[Filter], rounds: list[Facts], data: st.DataObject
) -> None:
    """Also after some have been removed; and an index without filters is as a new one."""
    index = FilterIndex[int]()
    for number, filter_ in enumerate(filters):
        index.add(filter_, number)
    there = set(range(len(filters)))
    while True:
        for facts in rounds:
            found = Counter(index.candidates(facts))
            assert set(found.values()) <= {1}
            matching = {number for number in there if filters[number].matches(facts)}
            assert {number for number in found if filters[number].matches(facts)} == matching
        if not there:
            break
        gone = data.draw(st.sets(st.sampled_from(sorted(there)), min_size=1))
        for number in gone:
            index.discard(filters[number], number)
        there -= gone

    assert index._places == {}


def candidates(index: FilterIndex[Filter], **facts: str) -> int:
    point = facts.get("point")
    asked = Facts(None if point is None else Decimal(point), facts.get("color"), facts.get("trend"))
    return len(list(index.candidates(asked)))


def index_of(*filters: Filter) -> FilterIndex[Filter]:
    index = FilterIndex[Filter]()
    for filter_ in filters:
        index.add(filter_, filter_)
    return index


def test_few_that_do_not_match_are_asked() -> None:
    """Of a thousand with different bounds: one bound, a band that others overlap, one number, and with a color."""
    lower = index_of(*(Filter.build(min_point=str(number)) for number in range(_MANY)))
    assert candidates(lower, point="9.5") == 10
    upper = index_of(*(Filter.build(max_point=str(number)) for number in range(_MANY)))
    assert candidates(upper, point="989.5") == 10
    bands = index_of(*(Filter.build(min_point=f"{n}", max_point=f"{n + 3}") for n in range(_MANY)))
    assert candidates(bands, point="500.5") == 4
    exact = index_of(*(Filter.build(min_point=f"{n / 100}", max_point=f"{n / 100}") for n in range(_MANY)))
    assert candidates(exact, point="5.25") == 1
    colors = index_of(*(Filter.build(min_point=f"{n}", colors=["red" if n % 2 else "black"]) for n in range(_MANY)))
    assert candidates(colors, point="9.5", color="red") == 5
    assert candidates(colors, color="white") == candidates(bands) == candidates(lower, color="red") == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=60), st.integers(-1, 10), st.integers(-1, 10))
def test_sorted_members_are_a_sorted_list(steps: list[tuple[bool, int]], least: int, most: int) -> None:
    """Adding, and removing the oldest of a number, in any order; members of a number stay in the order of adding."""
    members, model, names = SortedMembers[int](), list[tuple[int, int]](), count()
    for adds, number in steps:
        if adds:
            model.append((number, name := next(names)))
            members.add(number, name)
        elif found := [entry for entry in model if entry[0] == number]:
            model.remove(found[0])
            members.discard(found[0][1])
    members.discard(-1)

    assert len(members) == len(model)
    assert list(members.between(least, most)) == [
        name for number, name in sorted(model, key=lambda entry: entry[0]) if least <= number <= most
    ]


def test_sorted_members_in_several_blocks() -> None:
    """Thousands of one number and of others, removed in another order: each block that is empty is gone."""
    members, numbers = SortedMembers[int](), [7 * number % 1009 if number % 3 else 5 for number in range(5000)]
    for name, number in enumerate(numbers):
        members.add(number, name)
    assert list(members.between(5, 5)) == [name for name, number in enumerate(numbers) if number == 5]
    assert list(members.between(1000, 2000)) == sorted(
        (name for name, number in enumerate(numbers) if number >= 1000), key=lambda name: (numbers[name], name)
    )
    for name in range(0, 5000, 2):
        members.discard(name)
    assert len(list(members.between(0, 2000))) == len(members) == 2500
    for name in range(1, 5000, 2):
        members.discard(name)
    assert (len(members), members._blocks, members._firsts) == (0, [], [])
