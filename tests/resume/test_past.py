"""Paging through the past: with any filter, page size and memory, the pages together hold every round."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.errors import CursorLost
from relay.history.history import History
from relay.history.query import Query, is_over, look_back
from relay.history.start import OVERRUN_MS
from relay.live.bounds import Bounds
from relay.live.channels import Subscription
from relay.live.hub import Hub
from relay.live.ring import Ring
from relay.turns import Turns
from roundlog.entry import LogEntry
from rounds import Cursor, Filter, Round
from rounds.subjects import corrections_of, with_corrections
from tests.resume.log_writer import TEN_O_CLOCK_MS, make_round, make_stored, name_of
from tests.resume.memory_log import MemoryLog

GAMES = ("crash", "dice", "plinko")

rounds_of_a_log = st.lists(
    st.tuples(
        st.sampled_from([*GAMES, corrections_of("crash"), corrections_of("double")]),
        st.integers(0, 9),  # points
        st.integers(0, 40_000),  # milliseconds since the previous round, by the rounds' own times
        st.integers(-20_000, 20_000),  # and how far this round is out of order
    ),
    max_size=40,
)


def history_of(
    rounds: Sequence[Round], *, ring_rounds: int, seen_live: int, late_ms: int, most_at_once: int
) -> History:
    """Build a log of `rounds`, stored `late_ms` after their times, the last `seen_live` of which the hub saw come."""
    log = MemoryLog(most_at_once=most_at_once)
    newest_ms = 0
    for sequence, round_ in enumerate(rounds, start=1):
        newest_ms = max(newest_ms, round_.timestamp)
        log.store(LogEntry(sequence, name_of(round_), round_.to_json()), at_ms=newest_ms + late_ms)
    hub = Hub(Ring(rounds_per_game=ring_rounds, bytes_per_game=1 << 20), unsent_bytes=1000)
    known = len(rounds) - seen_live
    hub.begin(Bounds("k1", 1, known))
    hub.publish(log.entries[known:])
    return History(hub, cast("Any", log), Turns(), concurrent=1)


async def all_pages(history: History, query: Query) -> tuple[list[int], list[int]]:
    """Follow the pages to the end; return the sequences found and the length of each page."""
    found, lengths = [], []
    while True:
        answer = await look_back(history, query)
        found += [item.sequence for item in answer.items]
        lengths.append(len(answer.items))
        if answer.next_before is None:
            return found, lengths
        assert query.before is None or answer.next_before.sequence < query.before.sequence, "no way to the end"
        query = Query(query.wanted, query.limit, answer.next_before, query.after, query.since_ms, query.until_ms)


@given(
    stored=rounds_of_a_log,
    games=st.sets(st.sampled_from([*GAMES, "double"]), min_size=1)
    | st.sets(st.sampled_from([*GAMES, "double"]), min_size=1).map(with_corrections),
    min_point=st.sampled_from([0, 0, 5]),
    limit=st.integers(1, 12),
    ring_rounds=st.integers(1, 10),
    seen_live=st.integers(0, 40),
    late_ms=st.sampled_from([0, 50, 10**9]),  # as it happens, or a recording stored much later
    most_at_once=st.sampled_from([1, 3, 1000]),
    purged=st.just(0) | st.integers(0, 45),
    after=st.none() | st.integers(0, 40),
    times=st.tuples(st.none() | st.integers(0, 1_600_000), st.none() | st.integers(0, 1_600_000)),
)
def test_pages_together_are_what_was_asked_for(
    stored: list[tuple[str, int, int, int]],
    games: set[str],
    min_point: int,
    limit: int,
    ring_rounds: int,
    seen_live: int,
    late_ms: int,
    most_at_once: int,
    purged: int,
    after: int | None,
    times: tuple[int | None, int | None],
) -> None:
    """Newest first, each once, none missing that the log has; purged rounds that memory still has may be included.

    With corrections, if they were asked for: these whatever the filter.
    """
    rounds, clock = [], TEN_O_CLOCK_MS
    for number, (game, point, later_ms, astray_ms) in enumerate(stored, start=1):
        clock += later_ms
        rounds.append(make_stored(game, number, at_ms=clock + astray_ms, point=f"{point}.00"))
    since_ms, until_ms = (None if offset is None else TEN_O_CLOCK_MS + offset for offset in times)

    async def ask() -> tuple[list[int], list[int]]:
        history = history_of(
            rounds,
            ring_rounds=ring_rounds,
            seen_live=min(seen_live, len(rounds)),
            late_ms=late_ms,
            most_at_once=most_at_once,
        )
        await asyncio.sleep(0)  # the hub takes what was published
        cast("MemoryLog", history._reader).purge(purged)
        wanted = Subscription(frozenset(games), Filter.build(min_point=str(min_point)) if min_point else Filter())
        cursor = None if after is None or after > len(rounds) else Cursor("k1", after)
        return await all_pages(history, Query(wanted, limit, None, cursor, since_ms, until_ms))

    found, lengths = asyncio.run(ask())

    expected = [
        sequence
        for sequence, round_ in enumerate(rounds, start=1)
        if name_of(round_) in games
        and (stored[sequence - 1][1] >= min_point or round_.revision > 1)
        and sequence > (after if after is not None and after <= len(rounds) else 0)
        and (since_ms is None or round_.timestamp >= since_ms)
        and (until_ms is None or round_.timestamp <= until_ms)
    ]
    assert found == sorted(set(found), reverse=True)
    assert [sequence for sequence in found if sequence > purged] == [s for s in reversed(expected) if s > purged]
    assert set(found) <= set(expected)
    assert all(length == limit for length in lengths[:-1])


async def test_backfilled_rounds_hide_none_of_today() -> None:
    """A backfill of yesterday lies between rounds of today: a query `from` a time gets both sides of it."""
    log, sequence = MemoryLog(), 0
    hub = Hub(Ring(rounds_per_game=50, bytes_per_game=1 << 20), unsent_bytes=1000)

    def store(at_ms: int, *, stored_ms: int) -> None:
        nonlocal sequence
        sequence += 1
        data = make_round("crash", sequence, at_ms=at_ms).to_json()
        log.store(LogEntry(sequence, "crash", data), at_ms=stored_ms)

    for second in range(2000):
        store(TEN_O_CLOCK_MS + second * 1000, stored_ms=TEN_O_CLOCK_MS + second * 1000 + 5)
    for second in range(1000):
        store(TEN_O_CLOCK_MS - 86_400_000 + second * 1000, stored_ms=TEN_O_CLOCK_MS + 2_000_000 + second)
    for second in range(2002, 2102):
        store(TEN_O_CLOCK_MS + second * 1000, stored_ms=TEN_O_CLOCK_MS + second * 1000 + 5)
    hub.begin(Bounds("k1", 1, sequence))
    history = History(hub, cast("Any", log), Turns(), concurrent=1)

    found, _ = await all_pages(
        history, Query(Subscription(frozenset({"crash"}), Filter()), 500, since_ms=TEN_O_CLOCK_MS + 1_000_000)
    )

    assert found == [*range(3100, 3000, -1), *range(2000, 1000, -1)]


async def test_page_before_a_cursor_that_this_relay_has_not_reached(history: History) -> None:
    """Another relay, a moment ahead, gave the cursor: the rounds between are read from the log, not skipped."""
    for number in range(31, 36):
        entry = LogEntry(number, "crash", make_round("crash", number).to_json())
        cast("MemoryLog", history._reader).store(entry, at_ms=TEN_O_CLOCK_MS + number * 1000)
    asked = Query(Subscription(frozenset({"crash"}), Filter()), 3, before=Cursor("k1", 36))

    found, _ = await all_pages(history, asked)

    assert found == list(range(35, 0, -1))


async def test_stretch_that_this_relay_has_not_reached_costs_one_request(history: History) -> None:
    """Also when it holds no round of the game."""
    reader = cast("MemoryLog", history._reader)
    for number in range(31, 131):
        entry = LogEntry(number, "dice", make_round("dice", number).to_json())
        reader.store(entry, at_ms=TEN_O_CLOCK_MS + number * 1000)

    answer = await look_back(history, question(before=Cursor("k1", 131)))

    assert [item.sequence for item in answer.items] == [30]
    assert reader.requests <= 5


async def test_time_before_the_oldest_round_makes_the_answer_incomplete(history: History) -> None:
    """Rounds between the two may be gone; after the oldest round, all are there."""
    cast("MemoryLog", history._reader).purge(10)

    assert not (await look_back(history, question(since_ms=TEN_O_CLOCK_MS + 5000))).complete
    assert (await look_back(history, question(since_ms=TEN_O_CLOCK_MS + 20_000))).complete


def question(**rest: Any) -> Query:
    return Query(Subscription(frozenset({"crash"}), Filter()), 1, **rest)


@pytest.fixture
async def history() -> History:
    rounds = [make_round("crash", number) for number in range(1, 31)]
    made = history_of(rounds, ring_rounds=5, seen_live=10, late_ms=10, most_at_once=1000)
    await asyncio.sleep(0)
    return made


@pytest.mark.parametrize("member", ["after", "before"])
async def test_cursor_of_another_log_is_lost(history: History, member: str) -> None:
    """A page cannot say what is missing; an error can."""
    with pytest.raises(CursorLost, match="'k0-7' is not of this log, which holds k1-1 to k1-30"):
        await look_back(history, question(**{member: Cursor("k0", 7)}))


async def test_cursor_ahead_of_the_log_is_lost(history: History) -> None:
    """The log that gave it had more rounds; all of this log comes before it."""
    with pytest.raises(CursorLost):
        await look_back(history, question(after=Cursor("k1", 31)))
    assert [item.sequence for item in (await look_back(history, question(before=Cursor("k1", 99)))).items] == [30]


async def test_rounds_gone_since_the_cursor_make_the_answer_incomplete(history: History) -> None:
    """The rounds that remain are returned."""
    cast("MemoryLog", history._reader).purge(10)

    assert not (await look_back(history, question(after=Cursor("k1", 5)))).complete
    assert (await look_back(history, question(after=Cursor("k1", 10)))).complete


async def test_newest_page_is_answered_from_memory(history: History) -> None:
    """Most queries need no request to the log."""
    reader = cast("MemoryLog", history._reader)

    await look_back(history, question())
    await look_back(history, question(before=Cursor("k1", 28)))

    assert reader.requests == 0


async def test_bounded_stream_is_over_when_no_round_remains_before_its_end(history: History) -> None:
    """True after the last cursor of an answer; false before the end has passed, and for a cursor that is lost."""
    at_20 = TEN_O_CLOCK_MS + 20_000

    assert await is_over(history, question(after=Cursor("k1", 20), until_ms=at_20))
    assert not await is_over(history, question(after=Cursor("k1", 19), until_ms=at_20))
    assert not await is_over(history, question(after=Cursor("k0", 20), until_ms=at_20))
    assert not await is_over(history, question(after=Cursor("k1", 30), until_ms=10**14))
    assert not await is_over(history, question(after=Cursor("k1", 30)))


async def test_end_of_a_time_is_found_in_a_few_steps() -> None:
    """By bisection, also where rounds were stored in another year than their own."""
    count = 5000
    rounds = [make_round("crash", number) for number in range(1, count + 1)]
    for late_ms in (0, 10**10):
        history = history_of(rounds, ring_rounds=5, seen_live=0, late_ms=late_ms, most_at_once=1000)
        reader = cast("MemoryLog", history._reader)

        position = await history.position_past(TEN_O_CLOCK_MS + 1_000_000, count)

        assert 1000 <= position <= 1000 + OVERRUN_MS // 1000 + 5
        assert reader.requests < 20
