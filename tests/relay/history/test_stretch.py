"""Where pages end: at the same sequences for every reader, at little cost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.history.reading.stretch import CELL, Stretch, has_holes, limit_of_all, stretch_of
from roundlog.entry import LogEntry, Page, add_run

LIMIT = 500
HEAD = 6_000


def page_after(position: int, *, every: int = 1, limit: int = LIMIT) -> Stretch:
    """Read a page of a game that has every so-manieth round of the log."""
    begin = position + 1 + (-position - 1) % every
    sequences = range(begin, HEAD + 1, every)
    entries = [LogEntry(sequence, "crash", b"") for sequence in sequences[:limit]]
    page = Page(entries, max(0, len(sequences) - limit))
    return stretch_of(page, epoch="k1", position=position, head=HEAD, oldest=1)


@settings(max_examples=30)
@given(st.integers(0, HEAD), st.integers(0, HEAD), st.sampled_from([LIMIT, 4 * LIMIT]))
def test_readers_of_all_games_read_the_same_pages(one: int, other: int, limit: int) -> None:
    """Wherever they began: after the page in which the later one begins, all their pages are the same."""
    pages = []
    for position in (one, other):
        read = []
        while position < HEAD:
            stretch = page_after(position, limit=limit_of_all(position, limit))
            read.append((position, stretch.covered_to))
            assert len(stretch.entries) == stretch.covered_to - position, "rounds were dropped"
            position = stretch.covered_to
        pages.append(read)

    latest = max(one, other) + limit
    assert [page for page in pages[0] if page[0] >= latest] == [page for page in pages[1] if page[0] >= latest]
    assert all(end - begin == limit for begin, end in pages[0][1:-1])


@given(st.integers(0, HEAD), st.integers(1, 300), st.sampled_from([25, LIMIT, 4 * LIMIT]))
def test_page_of_one_game_is_whole_and_drops_little(position: int, every: int, limit: int) -> None:
    """Everything up to where it reaches is in it, and nine tenths of the rounds that were read are kept."""
    stretch = page_after(position, every=every, limit=limit)
    expected = [sequence for sequence in range(position + 1, stretch.covered_to + 1) if sequence % every == 0]

    assert [entry.sequence for entry in stretch.entries] == expected
    assert stretch.covered_to > position or position == HEAD
    if stretch.covered_to < HEAD:
        assert len(stretch.entries) >= 0.9 * limit
        assert stretch.covered_to % CELL == 0 or limit == 25
    assert stretch.gap is None


@given(
    st.integers(0, 60),
    st.sampled_from([LIMIT, 4 * LIMIT]),
    st.lists(st.tuples(st.integers(70, HEAD - 60), st.integers(1, 60)), max_size=12),
)
def test_hole_in_the_log_is_no_gap_within_a_page_of_all_games(
    position: int, limit: int, holes: list[tuple[int, int]]
) -> None:
    """Messages deleted in the middle show only where the last round of a full page is right before them."""
    deleted = {sequence for begin, size in holes for sequence in range(begin, begin + size)}
    while position < HEAD:
        there_are = [sequence for sequence in range(position + 1, HEAD + 1) if sequence not in deleted]
        asked = limit_of_all(position, limit)
        page = Page(
            [LogEntry(sequence, "crash", b"") for sequence in there_are[:asked]], max(0, len(there_are) - asked)
        )
        stretch = stretch_of(page, epoch="k1", position=position, head=HEAD, oldest=None)

        read = [entry.sequence for entry in stretch.entries]
        assert read == [sequence for sequence in there_are if sequence <= stretch.covered_to], "a round was passed over"
        if stretch.gap is not None:
            assert position not in deleted
            assert position + 1 in deleted
        position = stretch.covered_to


def test_page_that_would_end_in_a_hole_reaches_to_its_end() -> None:
    """The next page then begins behind the hole, and reports no gap."""
    sequences = [*range(1, 491), *range(511, 521)]
    page = Page([LogEntry(sequence, "crash", b"") for sequence in sequences], remaining=80)

    stretch = stretch_of(page, epoch="k1", position=0, head=600, oldest=None)

    assert stretch.entries[-1].sequence == 490
    assert stretch.covered_to == 510


def test_holes_of_a_page_of_all_games_are_gaps_where_they_are() -> None:
    """Between its entries, and after the last of a page that ends in one; before it, only if older rounds exist."""
    sequences = [*range(3, 401), *range(411, 491), *range(511, 521)]
    page = Page([LogEntry(sequence, "crash", b"") for sequence in sequences], remaining=80)

    for first, reason in ((1, "deleted"), (3, "expired")):
        stretch = stretch_of(page, epoch="k1", position=1, head=600, oldest=None, first=first)
        assert stretch.gap is not None
        assert (stretch.gap.end.sequence, stretch.gap.reason) == (2, reason)
        parts = list(stretch.parts())
        assert [item for items, _, _ in parts for item in items] == stretch.items()
        assert [(covered_to, hole and (hole.begin.sequence, hole.end.sequence)) for _, covered_to, hole in parts] == [
            (400, (400, 410)),
            (490, (490, 510)),
            (510, None),
        ]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("ro-"), st.integers(1, 700)), min_size=1, max_size=7),
    st.sampled_from([25, LIMIT, 4 * LIMIT]),
    st.integers(0, 600),
)
def test_what_is_no_round_is_no_gap(runs: list[tuple[str, int]], limit: int, position: int) -> None:
    """Pages of all games send each round once, and report exactly what was deleted, wherever other messages are."""
    log = "r" + "".join(kind * size for kind, size in runs) + "r"
    position, head = min(position, len(log) - 1), len(log)
    rounds, gone = list[int](), set[int]()
    begin, pages = position, 0
    while position < head:
        there_are = [sequence for sequence in range(position + 1, head + 1) if log[sequence - 1] != "-"]
        asked = there_are[: limit_of_all(position, limit)]
        others = list[tuple[int, int]]()
        for sequence in asked:
            if log[sequence - 1] == "o":
                add_run(others, sequence, sequence)
        entries = [LogEntry(sequence, "crash", b"") for sequence in asked if log[sequence - 1] == "r"]
        page = Page(entries, len(there_are) - len(asked), others)
        first = 1 if has_holes(page, position) else None
        stretch = stretch_of(page, epoch="k1", position=position, head=head, oldest=None, first=first)

        assert stretch.covered_to > position
        rounds += [entry.sequence for entry in stretch.entries]
        for gap in (*stretch.holes, *([stretch.gap] if stretch.gap else [])):
            gone.update(range(gap.begin.sequence + 1, gap.end.sequence + 1))
        position, pages = stretch.covered_to, pages + 1

    assert rounds == [sequence for sequence in range(begin + 1, head + 1) if log[sequence - 1] == "r"]
    assert gone == {sequence for sequence in range(begin + 1, head + 1) if log[sequence - 1] == "-"}
    assert pages <= 2 + 2 * (head - begin) // min(limit, 450)


@pytest.mark.parametrize("remaining", [0, 5])
def test_other_messages_after_the_newest_round_are_not_covered(remaining: int) -> None:
    """No client gets a cursor after the newest round that the relay knows; what it knows is covered."""
    page = Page([LogEntry(sequence, "crash", b"") for sequence in (1, 2, 5)], remaining, others=[(3, 3), (6, 9)])

    for head, covered_to in ((2, 5), (5, 5), (7, 7)):
        stretch = stretch_of(page, epoch="k1", position=0, head=head, oldest=None, first=1)
        assert stretch.covered_to == covered_to
        assert [(hole.begin.sequence, hole.end.sequence) for hole in stretch.holes] == [(3, 4)]


def test_hole_of_a_million_is_one_gap() -> None:
    """It is not walked through, sequence by sequence."""
    sequences = [*range(1, 300), *range(1_000_300, 1_000_500)]
    page = Page([LogEntry(sequence, "crash", b"") for sequence in sequences], remaining=80, others=[(300, 600_000)])

    stretch = stretch_of(page, epoch="k1", position=0, head=2_000_000, oldest=None, first=1)

    assert [(hole.begin.sequence, hole.end.sequence) for hole in stretch.holes] == [(600_000, 1_000_299)]
    assert stretch.covered_to == 1_000_450


@pytest.mark.parametrize("every", [1, 2, 20])
def test_usual_pages_of_one_game_are_aligned(every: int) -> None:
    """With 500 rounds to a page, games of any density end where a cell does."""
    position = 1234
    while position < HEAD:
        position = page_after(position, every=every).covered_to
        assert position % CELL == 0


def test_page_that_few_large_rounds_fill_is_not_cut() -> None:
    """Of 49 rounds, those after the end of a cell would be read again: the next page begins where this one ends."""
    stretch = page_after(20, limit=49)

    assert [entry.sequence for entry in stretch.entries] == list(range(21, 70))
    assert stretch.covered_to == 69


def test_page_of_few_rounds_is_asked_for_as_it_is() -> None:
    """A client that stalls gets no fewer rounds for being in the middle of a cell."""
    assert limit_of_all(1249, 25) == 25
