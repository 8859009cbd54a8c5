"""Which rows are new and which holes are dead, by example and by property."""

from hypothesis import given
from hypothesis import strategies as st

from backends.postgres.notify.frontier import MAX_ID, Frontier, Span


def test_rows_without_holes_are_news_once_and_safe() -> None:
    """In the ordinary case the safe id is the newest."""
    frontier = Frontier(0)

    assert frontier.see([1, 2, 3]) == [1, 2, 3]
    assert frontier.see([2, 3]) == []
    assert frontier.safe == 3
    assert frontier.spans() == [Span(4, MAX_ID)]


def test_late_committer_is_news_when_it_comes_and_holds_the_safe_id_back() -> None:
    """What is committed is given out at once; only the place to start again waits."""
    frontier = Frontier(0)

    assert frontier.see([1, 3]) == [1, 3]
    assert frontier.judge(["4/12"]) is False
    assert frontier.safe == 1
    assert frontier.see([2]) == [2]
    assert frontier.safe == 3


def test_hole_dies_only_in_a_scan_after_its_last_suspect_is_gone() -> None:
    """A suspect that commits between scan and look at the locks is still found."""
    frontier = Frontier(0)
    frontier.see([1, 3])

    assert frontier.judge(["4/12", "5/7"]) is False
    assert frontier.judge(["5/7", "6/1"]) is False, "who came later does not count"
    assert frontier.see([]) == []
    assert frontier.judge(["6/1"]) is True
    assert frontier.safe == 1, "not before another scan"
    frontier.see([])
    assert frontier.safe == 3
    assert not frontier.has_holes


def test_hole_seen_later_waits_for_suspects_of_its_own() -> None:
    """The holders noted for one hole say nothing about those found after it."""
    frontier = Frontier(0)
    frontier.see([1, 3])
    frontier.judge(["4/12"])
    frontier.see([5])

    assert frontier.judge(["7/7"]) is True
    frontier.see([])
    assert frontier.safe == 3
    assert frontier.judge(["7/7"]) is False
    assert frontier.safe == 3


def test_scan_that_was_cut_below_a_hole_decides_nothing() -> None:
    """A page that is full says nothing of what is beyond it."""
    frontier = Frontier(0)
    frontier.see([1, 10])
    frontier.judge([])

    frontier.see([4], up_to=4)
    assert frontier.safe == 1
    frontier.see([])
    assert frontier.safe == 10


def test_row_in_a_hole_held_to_be_dead_is_found_by_looking_back() -> None:
    """An id taken before its transaction locked the table breaks the rule; it is late, not lost."""
    frontier = Frontier(0, lookback=100)
    frontier.see([1, 3])
    frontier.judge([])
    frontier.see([])

    assert Span(2, 2) in frontier.spans(look_back=True)
    assert frontier.see([2]) == [2]
    assert frontier.see([2]) == []
    assert frontier.safe == 3


def test_start_looks_back_below_the_floor_but_never_below_the_lowest() -> None:
    """What was confirmed just before a crash is read again, and what is from before the first start is not."""
    frontier = Frontier(50, lowest=48, lookback=100)

    assert frontier.spans(look_back=True) == [Span(49, 50), Span(51, MAX_ID)]
    assert frontier.see([49, 50, 51]) == [49, 50, 51]
    assert frontier.safe == 51


def test_another_server_makes_known_holders_meaningless() -> None:
    """After a restart the same transaction name may be anybody's."""
    frontier = Frontier(0)
    frontier.see([1, 3])
    frontier.judge(["4/12"])

    frontier.forget_holders()

    assert frontier.judge([]) is True


_STEPS = st.lists(
    st.one_of(
        st.just("insert"),
        st.tuples(st.sampled_from(["commit", "abort"]), st.integers(0, 5)),
        st.sampled_from(["scan", "locks", "restart"]),
    ),
    max_size=80,
)


@given(_STEPS)
def test_whatever_the_order_of_commits_every_row_is_news_once_and_none_is_passed(steps: list[object]) -> None:
    """For any interleaving of transactions with our scans and looks at the locks, and any restart from the safe id."""
    frontier, given_out, committed, running, next_id = Frontier(0), set[int](), set[int](), dict[int, str](), 0
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
                news = frontier.see(visible)
                assert given_out.isdisjoint(news)
                given_out.update(news)
            case "locks":
                frontier.judge(running.values())
            case "restart":
                given_out = {n for n in given_out if n <= frontier.safe}
                frontier = Frontier(frontier.safe)
        assert all(number > frontier.safe for number in running if number < frontier.top)
        assert {n for n in committed if n <= frontier.safe} <= given_out
    assert given_out == committed
