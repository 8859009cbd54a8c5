"""From frames to rounds with offsets: what may be confirmed, and continuing after a break."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import Captured, Rejected
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.capture import Capture, ColumnMissing, TableRenamed, WalItem, WalOffset
from backends.postgres.replication.protocol.pgoutput import InvalidMessage
from rounds import Catalogue
from tests.postgres import wal_frames as frames

CATALOGUE = Catalogue.load()
START = 100


def make_capture(**options: str) -> Capture:
    capture = Capture(PostgresOptions.read({"dsn": "postgresql://db/x", **options}), CATALOGUE)
    capture.begin_history(START)
    return capture


def items_of(capture: Capture, *sent: bytes) -> list[WalItem]:
    return capture.feed(sent)[0]


def ids(items: list[WalItem]) -> list[int]:
    return [item.round.round_id for item in items if isinstance(item, Captured)]


def lsns(items: list[WalItem]) -> list[int]:
    return [item.offset.lsn for item in items]


def test_only_the_last_row_carries_the_end_of_its_transaction() -> None:
    """Rows of one COPY share one offset: only confirming the last one confirms the transaction."""
    items = items_of(make_capture(), frames.relation(), *frames.transaction(200, 1, 2, 3))

    assert ids(items) == [1, 2, 3]
    assert lsns(items) == [START, START, 208]
    assert items[0].round.timestamp == frames.COMMIT_MS  # type: ignore[union-attr]


def test_row_is_held_until_the_next_frame() -> None:
    """The next frame shows whether it is the last row of its transaction."""
    capture = make_capture()

    assert items_of(capture, frames.relation(), frames.begin(200), frames.row(1)) == []
    assert ids(items_of(capture, frames.row(2))) == [1]
    assert ids(items_of(capture, frames.commit(200))) == [2]


def test_part_of_a_transaction_is_never_confirmed() -> None:
    """Neither acks of all rows but the last nor a keepalive far ahead advance the confirmed LSN."""
    capture = make_capture()
    first, second, third = items_of(capture, frames.relation(), *frames.transaction(200, 1, 2, 3))
    capture.feed([frames.keepalive(900)])

    capture.confirm(second.offset)
    assert capture.confirmed_lsn == START
    capture.confirm(third.offset)
    assert capture.confirmed_lsn == 900
    assert first.offset == second.offset


def test_keepalive_counts_only_when_no_round_is_in_flight() -> None:
    """Its LSN includes all that was sent before it, so all of that has to be stored."""
    capture = make_capture()
    capture.feed([frames.keepalive(150)])
    assert capture.confirmed_lsn == 150

    capture.feed([frames.relation(), frames.begin(200), frames.row(1), frames.keepalive(900)])
    assert capture.confirmed_lsn == START  # inside a transaction: 150 was reported before, and the server keeps it
    (item,) = items_of(capture, frames.commit(200))
    assert capture.confirmed_lsn == START
    capture.confirm(item.offset)
    assert capture.confirmed_lsn == 208


def test_transactions_without_rounds_advance_the_offset_when_idle() -> None:
    """Transactions of other tables, and heartbeats, need no ack."""
    capture = make_capture()

    capture.feed([frames.relation(9, "public.other"), frames.begin(300), frames.insert("x", oid=9), frames.commit(300)])
    assert capture.confirmed_lsn == 308
    capture.feed([frames.message(400)])
    assert capture.confirmed_lsn == 400


def test_requested_reply_is_reported() -> None:
    capture = make_capture()

    assert capture.feed([frames.keepalive(150)])[1] is False
    assert capture.feed([frames.keepalive(150, reply=True), frames.keepalive(151)])[1] is True


def test_stream_broken_within_a_transaction_continues_there() -> None:
    """The server sends the whole transaction again; its yielded rows are not yielded again."""
    capture = make_capture()
    before = items_of(capture, frames.relation(), frames.begin(200), *map(frames.row, (1, 2, 3)))
    assert ids(before) == [1, 2]

    capture.begin_stream()
    assert capture.start_lsn == START
    after = items_of(capture, frames.relation(), *frames.transaction(200, 1, 2, 3), *frames.transaction(300, 4))

    assert ids(after) == [3, 4]
    assert lsns(after) == [208, 308]


def test_stream_broken_twice_within_a_transaction_continues_there() -> None:
    """The second break may be before, at or after the first one."""
    capture = make_capture()
    got = ids(items_of(capture, frames.relation(), frames.begin(200), *map(frames.row, (1, 2, 3))))
    for rows in ((1,), (1, 2, 3, 4, 5)):
        capture.begin_stream()
        got += ids(items_of(capture, frames.relation(), frames.begin(200), *map(frames.row, rows)))
    capture.begin_stream()
    got += ids(items_of(capture, frames.relation(), *frames.transaction(200, 1, 2, 3, 4, 5, 6)))

    assert got == [1, 2, 3, 4, 5, 6]


@settings(max_examples=300)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.lists(st.integers(0, 12), max_size=6), st.data())
def test_any_breaks_lose_and_repeat_no_round(sizes: list[int], breaks: list[int], choose: st.DataObject) -> None:
    """Each round is yielded once, and no transaction is confirmed in part, wherever streams break."""
    total = sum(sizes)
    numbers = iter(range(1, total + 1))
    sent = [frames.transaction(200 * n, *[next(numbers) for _ in range(size)]) for n, size in enumerate(sizes, 1)]
    ends = {200 * n + 8 for n in range(1, len(sizes) + 1)} | {START}
    capture, got = make_capture(), []

    for length in [*breaks, None]:
        capture.begin_stream()
        rest = [frame for n, part in enumerate(sent, 1) if 200 * n >= capture.start_lsn for frame in part]
        items = items_of(capture, frames.relation(), *rest[:length])
        got += ids(items)
        if confirmed := items[: choose.draw(st.integers(0, len(items)))]:
            capture.confirm(confirmed[-1].offset)
        assert capture.confirmed_lsn in ends

    assert got == list(range(1, total + 1))


def test_offsets_from_before_a_failover_are_ignored() -> None:
    """Confirming an LSN of another history must not make the new server remove WAL."""
    capture = make_capture()
    (item,) = items_of(capture, frames.relation(), *frames.transaction(9000, 1))
    capture.begin_history(500)

    capture.confirm(item.offset)

    assert capture.confirmed_lsn == 500
    (again,) = items_of(capture, frames.relation(), *frames.transaction(600, 1))
    assert again.offset == WalOffset(2, 608) > item.offset


def test_rejected_row_keeps_its_position() -> None:
    """It is rejected with its key, and confirmed like any other."""
    bad = frames.insert("1", "crash", None, None, "{}")
    items = items_of(make_capture(), frames.relation(), frames.begin(200), bad, frames.row(2), frames.commit(200))

    assert isinstance(items[0], Rejected)
    assert items[0].key == "public.rounds:crash:1"
    assert "finished_at is NULL" in items[0].reason
    assert lsns(items) == [START, 208]


def test_row_that_is_not_utf8_is_rejected() -> None:
    """A database in SQL_ASCII may contain any bytes."""
    bad = frames.insert("1", "crash", None, "2026-01-18 10:00:30+00", b'{"a":"\xff"}')
    (item,) = items_of(make_capture(), frames.relation(), frames.begin(200), bad, frames.commit(200))

    assert isinstance(item, Rejected)
    assert "not UTF-8" in item.reason


def test_changed_table_is_read_by_column_names() -> None:
    """Columns may be added, dropped and moved between rows; without its column the type comes from the catalogue."""
    capture = make_capture()
    columns = ("added", "extras", "finished_at", "round_id", "game_slug")
    changed = frames.insert("?", '{"point": 3}', "2026-01-18 10:00:31+00", "2", "double")
    first, second = items_of(
        capture,
        frames.relation(),
        *frames.transaction(200, 1),
        frames.relation(columns=columns),
        frames.begin(300),
        changed,
        frames.commit(300),
    )

    assert isinstance(first, Captured)
    assert isinstance(second, Captured)
    assert (second.round.game_type, second.round.extras) == ("color", '{"point":"3"}')


def test_missing_column_stops_capture() -> None:
    """Skipping its rows would lose them: an operator has to name the new column."""
    capture = make_capture()

    with pytest.raises(
        ColumnMissing, match=r"has no column 'extras'; it has .*payload; set the option 'extras_column'"
    ):
        capture.feed([frames.relation(columns=("round_id", "game_slug", "finished_at", "payload"))])


def test_table_of_rounds_that_is_renamed_stops_capture() -> None:
    """Renaming another table does not, and a new table with the name is read."""
    capture = make_capture()
    other = frames.relation(9, "public.other")
    items = items_of(capture, other, frames.relation(), *frames.transaction(200, 1), frames.relation(9, "public.more"))
    assert ids(items) == [1]

    with pytest.raises(TableRenamed, match=r"table public\.rounds was renamed to public\.rounds_old"):
        capture.feed([frames.relation(name="public.rounds_old")])
    assert ids(items_of(make_capture(), frames.relation(77), frames.begin(300))) == []


def test_configured_type_column_must_exist() -> None:
    """Without the option it may be absent."""
    columns = ("round_id", "game_slug", "finished_at", "extras")
    make_capture().feed([frames.relation(columns=columns)])

    with pytest.raises(ColumnMissing, match="game_type_column"):
        make_capture(game_type_column="game_type").feed([frames.relation(columns=columns)])


@pytest.mark.parametrize(
    "sent",
    [
        [b""],
        [b"x"],
        [b"w"],
        [frames.relation(), frames.row(1)],
        [frames.begin(1), frames.begin(2)],
        [frames.begin(1), frames.commit(2)],
        [frames.commit(2)],
        [frames.relation(), frames.begin(1), frames.insert("1")],
    ],
)
def test_stream_out_of_order_is_refused(sent: list[bytes]) -> None:
    """Guessing could lose rounds."""
    with pytest.raises(InvalidMessage):
        make_capture().feed(sent)


WHOLE = [frames.begin(200), frames.commit(200), frames.relation(), frames.row(1), frames.keepalive(5), b"w", b""]


@given(st.lists(st.sampled_from(WHOLE) | st.binary(max_size=60), max_size=12))
def test_any_frames_are_processed_or_refused(sent: list[bytes]) -> None:
    """Only `InvalidMessage`, `ColumnMissing` and `TableRenamed` are raised."""
    with suppress(InvalidMessage, ColumnMissing, TableRenamed):
        make_capture().feed(sent)
