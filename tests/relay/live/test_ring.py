"""The rounds in memory: complete answers or none, compared with a list that drops nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.live.item import Item
from relay.live.ring import Ring
from roundlog.entry import LogEntry

GAMES = ("crash", "dice", "plinko")


def item(sequence: int, game: str = "crash", size: int = 10) -> Item:
    return Item("k1", LogEntry(sequence, game, b"x" * size))


def sequences(items: list[Item]) -> list[int]:
    return [item_.sequence for item_ in items]


def filled(count: int, *, rounds_per_game: int = 5, bytes_per_game: int = 1 << 20, begun_at: int = 0) -> Ring:
    ring = Ring(rounds_per_game=rounds_per_game, bytes_per_game=bytes_per_game)
    ring.begin(begun_at)
    for sequence in range(begun_at + 1, begun_at + count + 1):
        ring.append(item(sequence))
    return ring


def test_sequence_that_memory_reaches_back_to_is_answered_from_it() -> None:
    """The oldest cursor that can be served is that of the round dropped last."""
    ring = filled(12)

    assert sequences(ring.after(7, ["crash"], limit=9) or []) == [8, 9, 10, 11, 12]
    assert sequences(ring.after(10, ["crash"], limit=9) or []) == [11, 12]
    assert ring.after(12, ["crash"], limit=9) == []
    assert ring.after(6, ["crash"], limit=9) is None


def test_rounds_from_before_it_began_are_not_there() -> None:
    """A relay that has just started has no older rounds of any game, and answers None."""
    ring = filled(2, begun_at=100)

    assert ring.after(99, ["crash"], limit=9) is None
    assert ring.after(99, ["dice"], limit=9) is None
    assert sequences(ring.after(100, ["crash", "dice"], limit=9) or []) == [101, 102]


def test_busy_game_does_not_displace_a_quiet_one() -> None:
    """Each game has its own limit."""
    ring = Ring(rounds_per_game=3, bytes_per_game=1 << 20)
    ring.begin(0)
    ring.append(item(1, "dice"))
    for sequence in range(2, 50):
        ring.append(item(sequence, "crash"))

    assert sequences(ring.after(0, ["dice"], limit=9) or []) == [1]
    assert ring.after(0, ["crash", "dice"], limit=9) is None
    assert len(ring) == 4


def test_large_rounds_take_the_room_of_many() -> None:
    """Memory is limited in bytes, too: even a single round over the limit is not kept."""
    ring = Ring(rounds_per_game=100, bytes_per_game=8000)
    ring.begin(0)
    for sequence in range(1, 11):
        ring.append(item(sequence, size=1000))
    assert sequences(ring.after(7, ["crash"], limit=99) or []) == [8, 9, 10]

    ring.append(item(11, size=10_000))
    assert len(ring) == 0
    assert ring.after(10, ["crash"], limit=99) is None
    assert ring.after(11, ["crash"], limit=99) == []


def test_last_rounds_are_complete_or_none() -> None:
    """Fewer than asked for would be an incomplete answer when the others were dropped."""
    ring = filled(12)

    assert sequences(ring.last("crash", 3) or []) == [10, 11, 12]
    assert ring.last("crash", 6) is None
    assert ring.last("dice", 1) is None


def test_newest_round_of_a_game_is_known_however_old_it_is() -> None:
    """Given at the beginning, replaced by later rounds."""
    ring = Ring(rounds_per_game=5, bytes_per_game=1 << 20)
    ring.begin(10, [item(3, "dice"), item(10, "crash")])
    ring.append(item(11, "crash"))

    assert {game: newest.sequence for game, newest in ring.newest.items()} == {"dice": 3, "crash": 11}
    ring.begin(0)
    assert (ring.newest, len(ring)) == ({}, 0)


@given(
    begun_at=st.integers(0, 5),
    stored=st.lists(st.sampled_from([*GAMES, None]), max_size=60),
    rounds_per_game=st.integers(1, 8),
    games=st.sets(st.sampled_from([*GAMES, "double"]), min_size=1),
    place=st.integers(0, 70),
    limit=st.integers(1, 10),
)
def test_answers_are_what_a_full_memory_would_give(
    begun_at: int, stored: list[str | None], rounds_per_game: int, games: set[str], place: int, limit: int
) -> None:
    """Every round after a sequence, or None; every round before one as far as the ring is complete, newest first."""
    ring = Ring(rounds_per_game=rounds_per_game, bytes_per_game=1 << 20)
    ring.begin(begun_at)
    everything = []
    for sequence, game in enumerate(stored, start=begun_at + 1):
        if game is not None:  # a hole: that sequence was deleted
            ring.append(item(sequence, game))
            everything.append((sequence, game))
    wanted = [sequence for sequence, game in everything if game in games]

    whole_from = ring.whole_from(games)
    for game in games:
        kept = [sequence for sequence, of in everything if of == game][-rounds_per_game:]
        assert [sequence for sequence in wanted if sequence > whole_from and (sequence, game) in everything] == [
            sequence for sequence in kept if sequence > whole_from
        ]
    after = ring.after(place, games, limit=limit)
    if place < whole_from:
        assert after is None
    else:
        assert after is not None
        assert sequences(after) == [sequence for sequence in wanted if sequence > place][:limit]
    before = [sequence for sequence in reversed(wanted) if whole_from < sequence < place][:limit]
    assert sequences(ring.before(place, games, limit=limit)) == before


@pytest.mark.parametrize("games", [(), ("double",)])
def test_games_without_rounds_are_complete_from_where_memory_begins(games: tuple[str, ...]) -> None:
    """An empty answer is complete, too."""
    ring = filled(12)

    assert ring.whole_from(games) == 0
    assert ring.after(3, games, limit=9) == []
    assert ring.before(99, games, limit=9) == []


@given(
    older=st.lists(st.sampled_from(GAMES), min_size=1, max_size=20),
    newer=st.lists(st.sampled_from(GAMES), max_size=20),
    rounds_per_game=st.integers(1, 8),
    start=st.integers(0, 19),
    games=st.sets(st.sampled_from(GAMES), min_size=1),
    place=st.integers(0, 45),
)
def test_memory_that_reaches_back_answers_completely_or_not_at_all(
    older: list[str], newer: list[str], rounds_per_game: int, start: int, games: set[str], place: int
) -> None:
    """Older rounds read from the log are put before the live ones, as far as the limits allow."""
    begun_at, start = len(older), min(start, len(older) - 1)
    everything = list(enumerate([*older, *newer], start=1))
    ring = Ring(rounds_per_game=rounds_per_game, bytes_per_game=1 << 20)
    ring.begin(begun_at)
    for sequence, game in everything[begun_at:]:
        ring.append(item(sequence, game))

    ring.reach_back(start, [item(sequence, game) for sequence, game in everything[start:begun_at]])

    wanted = [sequence for sequence, game in everything if game in games]
    after = ring.after(place, games, limit=99)
    if after is None:
        most = {game: [s for s, of in everything if of == game and s > place] for game in games}
        assert place < start or any(len(sequences_) > rounds_per_game for sequences_ in most.values())
    else:
        assert sequences(after) == [sequence for sequence in wanted if sequence > place]
    assert all(len(ring.last(game, rounds_per_game + 1) or []) == 0 for game in GAMES)
