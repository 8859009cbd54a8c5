"""Which rows are yielded, and up to which id the kept offset says that all are stored."""

from backends.postgres.notify.frontier import MIN_ID
from backends.postgres.notify.table_offset import Flow, NotifyOffset, TableOffset


class Begun(TableOffset):
    """The only table of a process."""

    def __init__(self) -> None:
        self.flow = Flow()
        super().__init__(self.flow, lookback_ids=100, unfinished_rows=3)

    def confirm(self, offset: NotifyOffset) -> None:
        self.flow.confirm(offset)


def begun(safe: int = 0, *, old_to: int | None = None) -> Begun:
    """A process that begins after id `safe`; rows up to `old_to` existed before its first start."""
    offset = Begun()
    offset.skip_existing(old_to)
    assert offset.is_behind(safe)
    offset.begin(safe, lowest=safe)
    offset.kept = safe
    return offset


def scan(offset: Begun, *ids: int, is_cut: bool = False) -> list[NotifyOffset]:
    """Record a scan that finds `ids`; return the offsets of the yielded rows."""
    news = offset.record_scan(ids, is_cut=is_cut)
    found = [number for number in ids if number in news]
    return offset.offsets_of(found, offset.flow.numbers(len(found)))


def test_row_counts_once_the_log_has_it() -> None:
    """A row that was yielded and not stored is read again after a restart."""
    offset = begun()
    first, second = scan(offset, 1, 2)

    assert offset.safe == 0
    offset.confirm(first)
    assert offset.safe == 1
    offset.confirm(second)
    assert offset.safe == 2


def test_offset_stays_below_a_row_that_may_be_committed_later() -> None:
    """Rows above it may be stored; after a restart they are read again, and the late row is not missed."""
    offset = begun()
    for row in scan(offset, 1, 3):
        offset.confirm(row)
    assert offset.safe == 1

    (late,) = scan(offset, 2)
    assert offset.safe == 1
    offset.confirm(late)
    assert offset.safe == 3


def test_closed_holes_count_when_no_row_is_in_flight() -> None:
    """No row carries an id in a closed hole, and yet no later start has to wait for it."""
    offset = begun()
    first, third = scan(offset, 1, 3)
    offset.frontier.update_writers([])
    offset.record_scan([], is_cut=False)

    offset.confirm(first)
    assert offset.safe == 1
    offset.confirm(third)
    assert offset.safe == 3


def test_later_row_carries_the_holes_closed_before_it() -> None:
    """The offset advances although rows are always in flight, also with a late row."""
    offset = begun()
    scan(offset, 1, 3)
    offset.frontier.update_writers([])
    offset.record_scan([], is_cut=False)
    offset.mark_all_yielded()
    late, _ = scan(offset, 2, 4)

    offset.confirm(late)
    assert offset.safe == 3


def test_full_page_closes_no_hole_above_it() -> None:
    """A row there may have been committed meanwhile; the next page finds it."""
    offset = begun()
    scan(offset, 1, 4, 6)
    offset.frontier.update_writers([])
    scan(offset, 2, is_cut=True)

    assert offset.frontier.safe == 2


def test_first_start_now_skips_existing_rows() -> None:
    """Rows of a transaction that was open at the start are yielded, although their ids are lower."""
    offset = begun(10, old_to=20)

    assert offset.record_scan([12, 20, 21], is_cut=False) == {21}
    assert offset.record_scan([15], is_cut=False) == {15}


def test_first_start_now_skips_a_first_scan_of_several_pages() -> None:
    """The first scan ends with the first page that is not full; until then the offset does not advance."""
    offset = begun(10, old_to=20)

    assert offset.record_scan([11, 12], is_cut=True) == set()
    assert offset.safe == 10
    assert offset.record_scan([13, 14], is_cut=False) == set()
    assert offset.safe == 14


def test_skipped_rows_are_told_apart_until_the_offset_has_passed_them() -> None:
    """A restart before that must not yield them; after that no ids so low are scanned."""
    offset = begun(10, old_to=20)
    offset.record_scan([12, 20], is_cut=False)
    assert (offset.safe, offset.lowest) == (10, MIN_ID)

    offset.frontier.update_writers([])
    offset.record_scan([], is_cut=False)
    assert (offset.safe, offset.lowest) == (20, 20)


def test_start_at_the_end_of_the_log_skips_no_row() -> None:
    """The end of the log is known, and all rows after it are new, at any age."""
    offset = Begun()
    offset.skip_existing(20)
    offset.skip_existing(None)
    offset.begin(10, lowest=10)

    assert offset.record_scan([11, 12], is_cut=False) == {11, 12}
    assert offset.lowest == MIN_ID


def test_offset_of_another_process_that_read_further_is_taken() -> None:
    """A kept offset above ours was written by that process; one at or below ours is our own."""
    offset = begun()
    for row in scan(offset, 1, 2):
        offset.confirm(row)

    assert not offset.is_behind(1)
    assert not offset.is_behind(2)
    assert offset.is_behind(3)
