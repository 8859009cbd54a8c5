"""How old what waits in a source is, from where the source was when."""

from hypothesis import given
from hypothesis import strategies as st

from backends.backlog import Backlog, Trail


def at(head: int, confirmed: int) -> Backlog:
    return Backlog("bytes", head, confirmed, head - confirmed)


def test_what_waits_is_as_old_as_the_last_moment_that_is_confirmed() -> None:
    """Not as the last confirmation: on a busy server something always waits, and is never old."""
    trail = Trail()
    assert trail.behind_s(at(100, 100), 0) == 0
    assert trail.behind_s(at(200, 150), 5) == 5
    assert trail.behind_s(at(300, 250), 10) == 5
    assert trail.behind_s(at(400, 250), 15) == 10
    assert trail.behind_s(at(400, 400), 20) == 0


def test_server_whose_places_begin_anew_has_no_old_backlog() -> None:
    """After a failover a lower place is not one of long ago."""
    trail = Trail()
    trail.behind_s(at(1000, 900), 0)
    assert trail.behind_s(at(500, 400), 100) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60)), min_size=1, max_size=3000))
def test_age_is_never_negative_nor_more_than_the_time_since_the_start(steps: list[tuple[int, int]]) -> None:
    """Whatever comes, and in bounded memory: thinned out, an age is only less exact."""
    trail, head, confirmed = Trail(), 0, 0
    for now, (grown, stored) in enumerate(steps):
        head += grown
        confirmed = min(head, confirmed + stored)
        assert 0 <= trail.behind_s(at(head, confirmed), now) <= now


def test_backlog_that_only_grows_keeps_its_age_in_bounded_memory() -> None:
    """A broker that is away for days costs no more than one that is away for an hour."""
    trail = Trail()
    ages = [trail.behind_s(at(100 + now, 100), now) for now in range(5000)]
    assert ages == list(range(5000))
