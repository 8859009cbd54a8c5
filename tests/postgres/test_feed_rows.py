"""The feed without a server: what its rows mean, which triggers a table needs, and what is stored."""

import json

import pytest

from backends.postgres.feed.feed_horizon import FeedHorizon, Horizon
from backends.postgres.feed.feed_mapper import FeedMapper, FeedTables
from backends.postgres.feed.feed_setup import CapturedTable
from backends.postgres.feed.feed_triggers import triggers_of, version_of
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.row_changes import Meaning
from backends.postgres.mapping.table_mapper import RowState, TableMapper
from backends.postgres.mapping.table_options import TableOptions
from rounds import Catalogue

CATALOGUE = Catalogue.load()
COLUMNS = [Column("round_id", 20), Column("game_slug"), Column("finished_at", 1184), Column("extras", 3802)]


def captured(**options: object) -> CapturedTable:
    return CapturedTable(TableMapper(TableOptions.model_validate(options), CATALOGUE, COLUMNS), COLUMNS)


def feed_mapper(*, corrections: bool = True, **options: object) -> FeedMapper:
    tables = FeedTables(corrections=corrections)
    tables.mappers = {"public.rounds": captured(**options).mapper}
    return FeedMapper(tables, CATALOGUE)


def row(mapper: FeedMapper, **values: object) -> list[str | None]:
    """A row of the feed; `old` and `new` are rows of the table."""
    whole = {"seq": "7", "source": "public.rounds", "written_at": "2026-11-29 12:00:00+00", **values}
    return [
        json.dumps(value) if isinstance(value := whole.get(column), dict) else value  # type: ignore[misc]
        for column in mapper.columns
    ]


def table_row(point: str, finished_at: str | None = "2026-11-29 12:00:00+00") -> dict[str, str | None]:
    return {"round_id": "1", "game_slug": "crash", "finished_at": finished_at, "extras": f'{{"point": "{point}"}}'}


def test_rows_of_the_feed_mean_what_the_changes_mean() -> None:
    """A finished row is a round, a changed one a correction, a deleted one is voided if the options say so."""
    mapper = feed_mapper(deletes="void")
    changes = [
        row(mapper, new=table_row("1.00")),
        row(mapper, old=table_row("1.00"), new=table_row("2.00")),
        row(mapper, old=table_row("2.00"), new=table_row("2.00", finished_at=None)),
        row(mapper, old=table_row("2.00")),
    ]

    outcomes = [mapper.outcomes(change, 5) for change in changes]

    assert [[outcome.meaning for outcome in found] for found in outcomes] == [
        [Meaning.ROUND],
        [Meaning.CORRECTION],
        [Meaning.CORRECTION],
        [Meaning.CORRECTION],
    ]
    rounds = [found[0].round for found in outcomes]
    assert [(round_.extras, round_.voided, round_.timestamp) for round_ in rounds if round_ is not None] == [
        ('{"point": "1.00"}', False, 5),
        ('{"point": "2.00"}', False, 5),
        ('{"point": "2.00"}', True, 5),
        ('{"point": "2.00"}', True, 5),
    ]


def test_reopened_rounds_are_not_sent_again_without_corrections() -> None:
    """A round that is finished, taken back and finished again was sent when it was finished first."""
    mapper = feed_mapper(corrections=False)
    finished, open_ = table_row("1.00"), table_row("1.00", finished_at=None)

    first = mapper.outcomes(row(mapper, new=finished), None)
    later = [row(mapper, old=finished, new=open_), row(mapper, new=finished), row(mapper, old=finished, new=finished)]

    assert [(outcome.meaning, outcome.round and outcome.round.timestamp) for outcome in first] == [
        (Meaning.ROUND, 1795953600000)  # when the row was written, if the commit time is not known
    ]
    assert [[outcome.meaning for outcome in mapper.outcomes(change, 0)] for change in later] == [
        [],
        [],
        [Meaning.NOTHING],
    ]


def test_rows_of_other_readers_are_not_ours() -> None:
    """The feed may hold rows of tables that another process captures."""
    mapper = feed_mapper()
    other = row(mapper, source="public.other", new=table_row("1.00"))

    assert mapper.state(other) is RowState.OTHER
    assert [outcome.meaning for outcome in mapper.outcomes(other, 0)] == [Meaning.OTHER]


@pytest.mark.parametrize(
    ("values", "reason", "key"),
    [
        ({"error": "the row has 9000000 bytes"}, "the row has 9000000 bytes", "public.rounds:feed:7"),
        ({"new": {"round_id": "1"}}, "do not copy column 'game_slug'", "public.rounds:feed:7"),
        ({"new": {**table_row("1"), "game_slug": "nope"}}, "nope", "public.rounds:nope:1"),
    ],
)
def test_rows_that_cannot_become_rounds_are_rejected(values: dict[str, object], reason: str, key: str) -> None:
    """The reject has the key of the captured row, or that of the feed, and says what to do."""
    mapper = feed_mapper()

    [outcome] = mapper.outcomes(row(mapper, **values), 0)

    assert outcome.meaning is Meaning.REJECTED
    assert reason in outcome.reason
    assert outcome.row is not None
    assert mapper.reject(outcome.row, outcome.reason, 0).key == key


def test_conditions_of_triggers_never_raise() -> None:
    """A condition on text that may hold no JSON is decided by the reader; the trigger copies each change."""
    safe = captured(finished_when="extras.state = 'done'").mapping  # extras is jsonb
    unsafe = captured(finished_when="game_slug.state = 'done'").mapping

    assert [trigger.name.rpartition("_")[2] for trigger in triggers_of(safe)] == ["insert", "finish", "change"]
    assert safe.finished_new is not None
    assert unsafe.finished_new is None
    assert [trigger.name.rpartition("_")[2] for trigger in triggers_of(unsafe)] == ["insert", "change"]
    assert "WHEN" not in triggers_of(unsafe)[0].statement


def test_another_mapping_is_another_version() -> None:
    """`check` compares versions, so each option that changes what is copied has to change them."""
    options = [{}, {"finished_when": "extras is not null"}, {"deletes": "void"}, {"rows_when": "game_slug = 'crash'"}]

    versions = {version_of(captured(**option).mapping) for option in [*options, {"game_slug": "crash"}]}

    assert len(versions) == len(options) + 1


def test_numbers_are_stored_when_their_transactions_are() -> None:
    """A number taken by an open transaction may be committed late: nothing below it counts before."""
    horizon = FeedHorizon()

    assert horizon.step(Horizon(newest=10, xmin=90, xmax=100, lsn=1000), 999) is None
    assert horizon.step(Horizon(newest=20, xmin=95, xmax=120, lsn=2000), 5000) is None  # one of them is still open
    assert horizon.step(Horizon(newest=30, xmin=100, xmax=130, lsn=3000), 2999) is None  # ended, not yet stored
    assert horizon.step(Horizon(newest=40, xmin=130, xmax=140, lsn=4000), 3000) == 10
    assert horizon.step(Horizon(newest=50, xmin=150, xmax=150, lsn=5000), 5000) is None  # the next one
