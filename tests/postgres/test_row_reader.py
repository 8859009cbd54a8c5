"""Changes of rows by replication: which become rounds, once each, wherever streams break."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.contract import Captured, Rejected
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.capture import Capture, SourceTable, WalItem
from backends.postgres.replication.protocol.pgoutput import UNCHANGED
from backends.postgres.replication.rows.row_reader import OldRowMissing, Reopened, Wanted
from rounds import Catalogue
from tests.postgres import wal_frames as frames

CATALOGUE = Catalogue.load()
START = 100
TIME = "2026-01-18 10:00:30+00"
UPDATES = Wanted(updates=True, deletes=True)

Row = tuple[str | bytes | None, ...]


def row(number: int, finished: str | None = TIME, point: str = "2.50", game: str = "crash") -> Row:
    return (str(number), game, None, finished, f'{{"point": "{point}"}}')


def make_capture(wanted: Wanted = UPDATES, **options: object) -> Capture:
    read = PostgresOptions.read({"dsn": "postgresql://db/x", **options})
    capture = Capture(read, CATALOGUE)
    capture.use_tables(
        [SourceTable(table, {frames.TABLE + n: table.source}, wanted) for n, table in enumerate(read.all_tables)]
    )
    capture.begin_history(START)
    return capture


def changed(capture: Capture, *changes: bytes, lsn: int = 200) -> list[WalItem]:
    """Feed one transaction."""
    sent = [frames.relation(identity="f"), frames.begin(lsn), *changes, frames.commit(lsn)]
    return capture.feed(sent)[0]


def shown(items: Sequence[WalItem]) -> list[str]:
    """Write each item in a word: the round's id, ``+`` for a correction, ``-`` for a void, ``!`` for a reject."""
    words = []
    for item in items:
        if isinstance(item, Rejected):
            words.append("!")
        else:
            mark = "-" if item.round.voided else "+" if item.is_correction else ""
            words.append(f"{item.round.round_id}{mark}")
    return words


def test_row_becomes_a_round_when_an_update_finishes_it() -> None:
    """It is counted when it is inserted, and touching it later changes nothing."""
    capture = make_capture()
    items = changed(
        capture,
        frames.insert(*row(1, None)),
        frames.update(row(1, None), row(1, None, "3.00")),
        frames.update(row(1, None), row(1)),
        frames.update(row(1), row(1, point="9.99")),
        frames.update(row(1, point="9.99"), row(1, point="9.99")),
        frames.delete(row(1)),
        frames.truncate(frames.TABLE),
    )

    assert shown(items) == ["1"]
    assert capture.counters.unfinished == 1
    assert items[0].offset.lsn == 208
    (round_,) = [item.round for item in items if isinstance(item, Captured)]
    assert round_.extras == '{"point": "2.50"}'


def test_large_value_that_the_finishing_update_does_not_change_is_taken_from_the_old_row() -> None:
    """The server does not send it again."""
    finished = (*row(1)[:4], UNCHANGED)
    (item,) = changed(make_capture(), frames.update(row(1, None, "7.77"), finished))

    assert isinstance(item, Captured)
    assert item.round.extras == '{"point": "7.77"}'


def test_corrections_and_voids_are_marked() -> None:
    """Only with the option: a changed content, a round that is finished no longer, and a deleted row."""
    capture = make_capture(corrections=True, deletes="void", voided_when="game_type = 'void'")
    items = changed(
        capture,
        *(frames.insert(*row(number)) for number in (1, 2, 3)),
        frames.update(row(1), row(1, point="2.51")),
        frames.update(row(2), (*row(2)[:2], "void", *row(2)[3:])),
        frames.delete(row(3)),
    )

    assert shown(items) == ["1", "2", "3", "1+", "2-", "3-"]


def test_reopened_round_is_not_sent_twice_without_corrections() -> None:
    """It is remembered that it was sent; the log would know it only within its duplicate window."""
    capture = make_capture()
    items = changed(capture, frames.insert(*row(1)), frames.update(row(1), row(1, None)))
    items += changed(capture, frames.update(row(1, None), row(1, point="3.00")), lsn=300)

    assert shown(items) == ["1"]
    assert capture.counters.reopened == 1


def test_row_whose_text_was_unreadable_becomes_a_round_when_it_is_mended() -> None:
    """With corrections or without; a round whose text is unreadable for a while is corrected, and voided if deleted."""
    bad = (*row(2)[:4], b"\xff")
    for corrections in (False, True):
        capture = make_capture(corrections=corrections, deletes="void")
        items = changed(capture, frames.insert(*bad), frames.update(bad, row(2)))
        assert shown(items) == ["!", "2"]
    items = changed(capture, frames.update(row(2), bad), frames.update(bad, row(2, point="9.99")), lsn=300)
    assert shown(items) == ["!", "2+"]
    items = changed(capture, frames.update(row(2), bad), frames.delete(bad), lsn=400)
    assert shown(items) == ["!", "2-"]


def test_memory_of_reopened_rounds_is_bounded() -> None:
    """The oldest are forgotten."""
    capture, reopened = make_capture(), Reopened(limit=2)
    rounds = [item.round for item in changed(capture, *(frames.insert(*row(n)) for n in (1, 2, 3)))]  # type: ignore[union-attr]
    for round_ in rounds:
        reopened.add(round_)

    assert [round_ in reopened for round_ in rounds] == [False, True, True]


def test_row_that_moves_to_another_partition_is_one_row() -> None:
    """The server sends a delete and an insert: it is an update, and not a new round; other deletes are deletes."""
    capture = make_capture(corrections=True, deletes="void")
    items = changed(
        capture,
        frames.insert(*row(1)),
        frames.delete(row(1)),
        frames.insert(*row(1)),
        frames.delete(row(1)),
        frames.insert(*row(2)),
    )

    assert shown(items) == ["1", "1-", "2"]


def test_update_without_the_old_row_stops_capture() -> None:
    """Whether its round was finished before is not known. A row that is not finished is no round either way."""
    capture = make_capture()
    assert changed(capture, frames.update(None, row(1, None))) == []

    with pytest.raises(OldRowMissing, match=r"a row of public\.rounds was changed while .* not FULL"):
        changed(make_capture(), frames.update(row(1, None), row(1), kind=b"K"))


def test_installation_without_updates_rejects_unfinished_rows_with_the_remedy() -> None:
    """They were rejected before rounds could finish by UPDATE; its finished rows are rounds as they were."""
    wanted = Wanted(updates=False, deletes=False, unfinished_reason="run setup")
    rejected, captured = changed(make_capture(wanted), frames.insert(*row(1, None)), frames.insert(*row(2)))

    assert isinstance(rejected, Rejected)
    assert rejected.reason == "run setup"
    assert shown([captured]) == ["2"]


def test_rows_that_are_none_of_ours_are_counted() -> None:
    """An outbox holds events of others; they are no rejects."""
    capture = make_capture(rows_when="game_slug = 'crash'")
    items = changed(capture, frames.insert(*row(1)), frames.insert(*row(2, game="wallet")), frames.delete(row(1)))

    assert shown(items) == ["1"]
    assert capture.counters.other == 1


def test_rows_of_several_tables_keep_their_order() -> None:
    """One transaction writes both; only its last round carries its end."""
    tables = [{"table": "dice", "game_slug": "dice"}, {"table": "plinko", "game_slug": "plinko"}]
    capture = make_capture(Wanted(updates=False, deletes=False), tables=tables)
    sent = [
        frames.relation(frames.TABLE, "public.dice"),
        frames.relation(frames.TABLE + 1, "public.plinko"),
        frames.begin(200),
        frames.insert(*row(1)),
        frames.insert(*row(1), oid=frames.TABLE + 1),
        frames.insert(*row(2)),
        frames.commit(200),
    ]
    items = capture.feed(sent)[0]

    assert [(item.round.game_slug, item.round.round_id) for item in items if isinstance(item, Captured)] == [
        ("dice", 1), ("plinko", 1), ("dice", 2),
    ]  # fmt: skip
    assert [item.offset.lsn for item in items] == [START, START, 208]


def test_child_of_the_table_is_read_as_the_table() -> None:
    """Its rows come under its own name; it is known by its oid."""
    options = PostgresOptions.read({"dsn": "postgresql://db/x"})
    capture = Capture(options, CATALOGUE)
    capture.use_tables([SourceTable(options, {frames.TABLE: "public.rounds", 77: "old.rounds_2026_11"})])
    capture.begin_history(START)
    sent = [frames.relation(77, "old.rounds_2026_11"), frames.begin(200), frames.insert(*row(1), oid=77)]

    assert shown(capture.feed([*sent, frames.commit(200)])[0]) == ["1"]


def test_child_that_was_made_since_the_stream_began_is_looked_up_before_its_rows_are_read() -> None:
    """A table that is none of ours is looked up once for each description that the server sends of it."""
    options = PostgresOptions.read({"dsn": "postgresql://db/x"})
    capture = Capture(options, CATALOGUE)
    capture.use_tables([SourceTable(options, {frames.TABLE: "public.rounds"})])
    capture.begin_history(START)
    capture.asks_for_tables = True
    other = [frames.relation(99, "public.bets"), frames.begin(200), frames.insert(*row(7), oid=99), frames.commit(200)]
    child = [frames.relation(77, "public.child"), frames.begin(300), frames.insert(*row(1), oid=77)]

    asked = []
    for sent, is_known in (([*other, *child], False), ([], True), ([frames.commit(300)], False), (other[:1], False)):
        items = capture.feed(sent)[0]
        asked.append((capture.unknown_table, shown(items)))
        if is_known:
            capture.use_tables([SourceTable(options, {frames.TABLE: "public.rounds", 77: "public.child"})])

    assert asked == [(99, []), (77, []), (None, ["1"]), (99, [])]


def test_table_that_had_another_name_for_a_while_is_read() -> None:
    """Its rows from that time come under that name; the catalogue says at the next start that they are ours."""
    capture = make_capture(Wanted(updates=False, deletes=False))
    changed(capture, frames.insert(*row(1)))
    renamed = [frames.relation(name="public.rounds_old"), frames.begin(300), frames.row(2), frames.commit(300)]
    with pytest.raises(Exception, match="was renamed to"):
        capture.feed(renamed)
    capture.begin_stream()

    assert shown(capture.feed(renamed)[0]) == ["2"]


def test_game_that_is_not_known_is_looked_up_before_its_row_is_read() -> None:
    """Rows after it wait, so that the order stays."""
    capture = make_capture(Wanted(updates=False, deletes=False), game_slug_table="games")
    (games,) = capture._games.values()
    items = changed(capture, frames.insert(*row(1, game="7")), frames.insert(*row(2, game="8")))
    assert items == []
    assert capture.unknown_game is not None

    games.learn({"7": "crash"})
    items = capture.feed(())[0]
    assert items == []  # the first is held, the second has to be looked up
    games.learn({"7": "crash"})
    items = capture.feed(())[0]

    assert shown(items) == ["1", "!"]


@settings(max_examples=200)
@given(
    st.lists(st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["finish", "touch", "reopen"])), max_size=5),
             min_size=1, max_size=4),
    st.lists(st.integers(0, 14), max_size=6),
    st.booleans(),
)  # fmt: skip
def test_any_breaks_lose_and_repeat_no_change(
    transactions: list[list[tuple[int, str]]], breaks: list[int], corrections: bool
) -> None:
    """Breaks do not change what is yielded, also where most changes yield nothing or two items."""
    states: dict[int, Row] = {}
    sent: list[list[bytes]] = []
    for number, steps in enumerate(transactions, 1):
        body = []
        for count, (round_id, step) in enumerate(steps):
            old = states.get(round_id)
            finished = TIME if step == "finish" else None if step == "reopen" or old is None else str(old[3] or "")
            new = row(round_id, finished or None, point=f"{number}.{count}")
            body.append(frames.insert(*new) if old is None else frames.update(old, new))
            states[round_id] = new
        sent.append([frames.begin(200 * number), *body, frames.commit(200 * number)])

    def yielded(lengths: Sequence[int | None]) -> list[str]:
        capture, got = make_capture(corrections=corrections), []
        for length in lengths:
            capture.begin_stream()
            rest = [frame for n, part in enumerate(sent, 1) if 200 * n >= capture.start_lsn for frame in part]
            items = capture.feed([frames.relation(identity="f"), *rest[:length]])[0]
            got += shown(items)
            if items:
                capture.confirm(items[-1].offset)
        return got

    assert yielded([*breaks, None]) == yielded([None])
