"""Which rows are new and which holes are closed, by example and by property."""

from hypothesis import given
from hypothesis import strategies as st

from backends.postgres.notify.frontier import MAX_ID, Frontier, Span


def test_rows_without_holes_are_new_once_and_safe() -> None:
    """Without holes the safe id is the newest one."""
    frontier = Frontier(0)

    assert frontier.record([1, 2, 3]) == [1, 2, 3]
    assert frontier.record([2, 3]) == []
    assert frontier.safe == 3
    assert frontier.spans() == [Span(4, MAX_ID)]


def test_late_commit_is_new_when_visible_and_holds_the_safe_id_back() -> None:
    """Committed rows are new at once; only the offset of a restart waits for the hole."""
    frontier = Frontier(0)

    assert frontier.record([1, 3]) == [1, 3]
    assert frontier.update_writers(["4/12"]) is False
    assert frontier.safe == 1
    assert frontier.record([2]) == [2]
    assert frontier.safe == 3


def test_hole_is_closed_by_a_scan_after_its_last_writer_has_ended() -> None:
    """A writer that commits between the scan and the query for locks is still found."""
    frontier = Frontier(0)
    frontier.record([1, 3])

    assert frontier.update_writers(["4/12", "5/7"]) is False
    assert frontier.update_writers(["5/7", "6/1"]) is False, "later writers do not count"
    assert frontier.record([]) == []
    assert frontier.update_writers(["6/1"]) is True
    assert frontier.safe == 1, "another scan is needed"
    frontier.record([])
    assert frontier.safe == 3
    assert not frontier.has_holes


def test_hole_seen_later_waits_for_its_own_writers() -> None:
    """The writers recorded for one hole do not decide about holes found after it."""
    frontier = Frontier(0)
    frontier.record([1, 3])
    frontier.update_writers(["4/12"])
    frontier.record([5])

    assert frontier.update_writers(["7/7"]) is True
    frontier.record([])
    assert frontier.safe == 3
    assert frontier.update_writers(["7/7"]) is False
    assert frontier.safe == 3


def test_scan_that_was_cut_below_a_hole_does_not_close_it() -> None:
    """A full page does not cover the ids above its last row."""
    frontier = Frontier(0)
    frontier.record([1, 10])
    frontier.update_writers([])

    frontier.record([4], up_to=4)
    assert frontier.safe == 1
    frontier.record([])
    assert frontier.safe == 10


def test_row_in_a_closed_hole_is_found_by_looking_back() -> None:
    """An id taken before its transaction locked the table appears in a closed hole: its row is late, not lost."""
    frontier = Frontier(0, lookback=100)
    frontier.record([1, 3])
    frontier.update_writers([])
    frontier.record([])

    assert Span(2, 2) in frontier.spans(look_back=True)
    assert frontier.record([2]) == [2]
    assert frontier.record([2]) == []
    assert frontier.safe == 3


def test_start_looks_back_below_the_floor_but_never_below_the_lowest() -> None:
    """Ids just below the confirmed one are read again, and those from before the first start are not."""
    frontier = Frontier(50, lowest=48, lookback=100)

    assert frontier.spans(look_back=True) == [Span(49, 50), Span(51, MAX_ID)]
    assert frontier.record([49, 50, 51]) == [49, 50, 51]
    assert frontier.safe == 51


def test_writers_are_forgotten_after_a_reconnect() -> None:
    """After a restart the server reuses ids of transactions."""
    frontier = Frontier(0)
    frontier.record([1, 3])
    frontier.update_writers(["4/12"])

    frontier.forget_writers()

    assert frontier.update_writers([]) is True


_STEPS = st.lists(
    st.one_of(
        st.just("insert"),
        st.tuples(st.sampled_from(["commit", "abort"]), st.integers(0, 5)),
        st.sampled_from(["scan", "locks", "restart"]),
    ),
    max_size=80,
)


@given(_STEPS)
def test_every_row_is_new_once_in_any_order_of_commits(steps: list[object]) -> None:
    """For any interleaving of transactions, scans, queries for locks, and restarts from the safe id."""
    frontier, yielded, committed, running, next_id = Frontier(0), set[int](), set[int](), dict[int, str](), 0
    for step in [*steps, ("commit", 0), "scan", "locks", "scan", "locks", "scan"]:
        match step:
            case "insert":
                next_id += 1
                running[next_id] = f"t{next_id}"
            case ("commit" | "abort" as end, int(which)) if running:
                number = sorted(running)[which % len(running)]
                del running[number]
                if end == "commit":
                    committed.add(number)
            case "scan":
                spans = frontier.spans()
                visible = sorted(n for n in committed if any(low <= n <= high for low, high in spans))
                new = frontier.record(visible)
                assert yielded.isdisjoint(new)
                yielded.update(new)
            case "locks":
                frontier.update_writers(running.values())
            case "restart":
                yielded = {n for n in yielded if n <= frontier.safe}
                frontier = Frontier(frontier.safe)
        assert all(number > frontier.safe for number in running if number < frontier.top)
        assert {n for n in committed if n <= frontier.safe} <= yielded
    assert yielded == committed
