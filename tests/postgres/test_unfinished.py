"""Which unfinished rows are remembered, asked for and stored, by example and by property."""

from hypothesis import given
from hypothesis import strategies as st

from backends.postgres.notify.unfinished import GivenUp, Unfinished, UnfinishedChanges


def test_row_is_stored_when_the_offset_passes_it_and_until_the_log_has_its_round() -> None:
    """A row above the offset is read again by its range; a finished one may be lost in flight."""
    unfinished = Unfinished(limit=10)
    unfinished.remember([3, 5])
    assert unfinished.changes(2) == ([], [])

    unfinished.mark_stored(changes := unfinished.changes(4))
    assert changes == ([3], [])
    unfinished.finish(3, yielded_as=1)
    unfinished.finish(5, yielded_as=2)
    assert unfinished.changes(6) == ([5], []), "its round may not be in the log yet"
    unfinished.confirm(2)
    assert unfinished.changes(6) == ([], [3, 5]), "no answer came, so 5 may be stored"


def test_row_that_finishes_before_it_is_stored_is_never_stored() -> None:
    """A round that is short costs no write."""
    unfinished = Unfinished(limit=10)
    unfinished.remember([1])
    unfinished.finish(1, yielded_as=1)
    unfinished.confirm(1)

    assert unfinished.changes(9) == ([], [])


def test_rows_of_the_lowest_ids_are_given_up_at_the_limit() -> None:
    """They are removed from the server too."""
    unfinished = Unfinished([1, 2], limit=3)

    assert unfinished.remember([7]) is None
    assert unfinished.remember([8, 9]) == GivenUp(2, 1, 2)
    assert (unfinished.asked(), unfinished.given_up) == ([7, 8, 9], 2)
    assert unfinished.changes(9) == ([7, 8, 9], [1, 2])


def test_sweeps_return_all_ids_that_are_not_asked_for_each_time() -> None:
    """However many there are, each query is bounded."""
    unfinished = Unfinished(range(10_000), limit=20_000)
    swept = [unfinished.sweep() for _ in range(5)]

    assert sorted({*unfinished.asked()}.union(*swept)) == list(range(10_000))
    assert max(map(len, swept)) <= 2000
    assert unfinished.sweep() == swept[0]


@given(st.lists(st.tuples(st.sampled_from(["new", "finish", "delete", "store", "lose", "confirm"]), st.integers(0, 9))))
def test_stored_rows_are_those_below_the_offset_that_the_log_may_lack(steps: list[tuple[str, int]]) -> None:
    """For any order of events, also when a write of the server is lost or its answer is."""
    unfinished, stored, open_rows, flying, top, yielded = (
        Unfinished(limit=4),
        set[int](),
        set[int](),
        dict[int, int](),
        0,
        0,
    )
    for step, which in [*steps, ("store", 0)]:
        rows = sorted(open_rows)
        match step:
            case "new":
                top += 1
                open_rows.add(top)
                if given_up := unfinished.remember([top]):
                    open_rows -= {number for number in open_rows if number <= given_up.highest}
            case "finish" if rows:
                yielded += 1
                number = rows[which % len(rows)]
                open_rows.remove(number)
                flying[number] = yielded
                unfinished.finish(number, yielded_as=yielded)
            case "delete" if rows:
                number = rows[which % len(rows)]
                open_rows.remove(number)
                unfinished.forget([number])
            case "confirm":
                flying = {number: count for number, count in flying.items() if count > yielded - which % 2}
                unfinished.confirm(yielded - which % 2)
            case "store" | "lose":
                changes = unfinished.changes(top)
                if step == "store" or which % 2:
                    stored = (stored | set(changes.added)) - set(changes.removed)
                if step == "store":
                    unfinished.mark_stored(UnfinishedChanges(*changes))
                    assert stored == open_rows | flying.keys()
