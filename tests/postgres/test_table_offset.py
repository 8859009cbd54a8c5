"""Which rows are given out, and up to which id the server is told that all are stored."""

from backends.postgres.notify.frontier import MIN_ID
from backends.postgres.notify.table_offset import NotifyOffset, TableOffset


def begun(safe: int = 0, *, old_to: int | None = None) -> TableOffset:
    """A process that begins after id `safe`, rows up to `old_to` being older than its first start."""
    place = TableOffset(lookback_ids=100)
    place.pass_over(old_to)
    assert place.is_behind(safe)
    place.begin(safe, lowest=safe)
    place.kept = safe
    return place


def give_out(place: TableOffset, *ids: int, is_cut: bool = False) -> list[NotifyOffset]:
    """A scan that finds `ids`, all of which go out."""
    news = place.see(ids, is_cut=is_cut)
    return [place.give_out(number) for number in ids if number in news]


def test_row_counts_once_the_log_has_it() -> None:
    """What is given out and not stored comes again after a restart."""
    place = begun()
    first, second = give_out(place, 1, 2)

    assert place.safe == 0
    place.confirm(first)
    assert place.safe == 1
    place.confirm(second)
    assert place.safe == 2


def test_place_stays_below_a_row_that_may_yet_be_committed() -> None:
    """Ids beyond it may be stored; after a restart they come again, and the late one comes at all."""
    place = begun()
    for offset in give_out(place, 1, 3):
        place.confirm(offset)
    assert place.safe == 1

    (late,) = give_out(place, 2)
    assert place.safe == 1
    place.confirm(late)
    assert place.safe == 3


def test_ids_that_died_count_when_nothing_is_under_way() -> None:
    """An id that no row has moves no row's offset, and yet must not be waited for at every start."""
    place = begun()
    first, third = give_out(place, 1, 3)
    place.frontier.judge([])
    place.see([], is_cut=False)

    place.confirm(first)
    assert place.safe == 1
    place.confirm(third)
    assert place.safe == 3


def test_later_row_carries_the_ids_that_died_before_it() -> None:
    """So the place moves on although something is always under way, with a row that comes late too."""
    place = begun()
    give_out(place, 1, 3)
    place.frontier.judge([])
    place.see([], is_cut=False)
    place.given_out()
    late, _ = give_out(place, 2, 4)

    place.confirm(late)
    assert place.safe == 3


def test_page_that_is_full_lets_no_id_die_beyond_it() -> None:
    """A row there may have been committed meanwhile; it is found with the next page."""
    place = begun()
    give_out(place, 1, 4, 6)
    place.frontier.judge([])
    give_out(place, 2, is_cut=True)

    assert place.frontier.safe == 2


def test_first_start_now_passes_over_what_is_there() -> None:
    """Clients get what is new; rows of a transaction that was open then come, although their ids are lower."""
    place = begun(10, old_to=20)

    assert place.see([12, 20, 21], is_cut=False) == {21}
    assert place.see([15], is_cut=False) == {15}


def test_first_start_now_passes_over_a_scan_in_pieces() -> None:
    """The first scan ends with the first page that is not full; until then nothing is told to the server."""
    place = begun(10, old_to=20)

    assert place.see([11, 12], is_cut=True) == set()
    assert place.safe == 10
    assert place.see([13, 14], is_cut=False) == set()
    assert place.safe == 14


def test_rows_that_a_first_start_passed_over_are_told_from_new_ones_until_the_place_is_beyond() -> None:
    """A restart before that must not take them for news; after it there is nothing to look for so low."""
    place = begun(10, old_to=20)
    place.see([12, 20], is_cut=False)
    assert (place.safe, place.lowest) == (10, MIN_ID)

    place.frontier.judge([])
    place.see([], is_cut=False)
    assert (place.safe, place.lowest) == (20, 20)


def test_start_that_passes_over_nothing_after_all() -> None:
    """Where the log ends is known, and rows have come since: they are news however old."""
    place = TableOffset(lookback_ids=100)
    place.pass_over(20)
    place.pass_over(None)
    place.begin(10, lowest=10)

    assert place.see([11, 12], is_cut=False) == {11, 12}
    assert place.lowest == MIN_ID


def test_another_process_that_read_on_is_followed() -> None:
    """What the server knows beyond our own place was stored by that process; what it knows of us is nothing new."""
    place = begun()
    for offset in give_out(place, 1, 2):
        place.confirm(offset)

    assert not place.is_behind(1)
    assert not place.is_behind(2)
    assert place.is_behind(3)
