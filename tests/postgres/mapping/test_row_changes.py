"""What a change of a row means: each row becomes a round once, and corrections only follow when they are asked for."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.game_slugs import UnknownGameKey
from backends.postgres.mapping.row_changes import Meaning, changes_of, round_of
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.unreadable_rows import UnreadableRows
from rounds import Catalogue, Round

TIME = "2026-01-18 10:00:30+00"
COLUMNS = ("round_id", "game_slug", "finished_at", "extras", "gone", "kind")


def mapper(**options: Any) -> TableMapper:
    table = TableOptions.model_validate({"voided_when": "gone", "rows_when": "kind = 'r'", **options})
    return TableMapper(table, Catalogue.load(), [Column(name) for name in COLUMNS])


def row(number: str = "1", game: str = "crash", at: str | None = TIME, extras: str = '{"point":"2"}', gone: str = "f",
        kind: str = "r") -> list[str | None]:  # fmt: skip
    return [number, game, at, extras, gone, kind]


DONE = row()
OPEN = row(at=None)
GONE = row(gone="t")
OTHER = row(kind="x")
CHANGED = row(extras='{"point":"3"}')
BAD = row(game="unheard-of")


def meanings(old: list[str | None] | None, new: list[str | None] | None, *, corrections: bool, **options: Any) -> str:
    outcomes = changes_of(mapper(**options), old, new, 7, corrections=corrections)
    return ", ".join(
        outcome.meaning.name.lower()
        + (f" {outcome.round.game_slug}{outcome.round.round_id}" if outcome.round else "")
        + (" voided" if outcome.round and outcome.round.voided else "")
        for outcome in outcomes
    )


@pytest.mark.parametrize(
    ("old", "new", "plain", "with_corrections"),
    [
        (None, DONE, "round crash1", "round crash1"),
        (None, OPEN, "unfinished", "unfinished"),
        (None, GONE, "other", "other"),
        (None, OTHER, "other", "other"),
        (None, BAD, "rejected", "rejected"),
        (None, None, "nothing", "nothing"),
        (OPEN, DONE, "round crash1", "round crash1"),
        (OPEN, OPEN, "nothing", "nothing"),
        (OPEN, GONE, "other", "other"),
        (OPEN, BAD, "rejected", "rejected"),
        (OTHER, DONE, "round crash1", "round crash1"),
        (OTHER, OTHER, "nothing", "nothing"),
        (OTHER, OPEN, "unfinished", "unfinished"),
        (GONE, DONE, "round crash1", "round crash1"),
        (BAD, DONE, "round crash1", "round crash1"),
        (BAD, BAD, "nothing", "nothing"),
        (BAD, row(game="unknown-too"), "rejected", "rejected"),
        (DONE, DONE, "nothing", "nothing"),
        (DONE, CHANGED, "nothing", "correction crash1"),
        (DONE, row(extras='{"point": 2}'), "nothing", "nothing"),
        (DONE, OPEN, "reopened crash1", "correction crash1 voided"),
        (DONE, GONE, "reopened crash1", "correction crash1 voided"),
        (DONE, OTHER, "reopened crash1", "correction crash1 voided"),
        (DONE, BAD, "reopened crash1", "rejected"),
        (DONE, row("2"), "nothing", "correction crash1 voided, round crash2"),
        (DONE, row(game="dice"), "nothing", "correction crash1 voided, round dice1"),
        (DONE, None, "nothing", "nothing"),
        (OPEN, None, "nothing", "nothing"),
        (BAD, None, "nothing", "nothing"),
    ],
)  # fmt: skip
def test_change_of_a_row(
    old: list[str | None] | None, new: list[str | None] | None, plain: str, with_corrections: str
) -> None:
    assert meanings(old, new, corrections=False) == plain
    assert meanings(old, new, corrections=True) == with_corrections


def test_deleted_row_voids_its_round_if_asked() -> None:
    assert meanings(DONE, None, corrections=True, deletes="void") == "correction crash1 voided"
    assert meanings(DONE, None, corrections=False, deletes="void") == "reopened crash1"
    assert meanings(OPEN, None, corrections=True, deletes="void") == "nothing"
    assert meanings(GONE, None, corrections=True, deletes="void") == "nothing"


def test_rejected_change_names_the_row_and_the_reason() -> None:
    (outcome,) = changes_of(mapper(), None, BAD, 7, corrections=False)

    assert outcome.row == BAD
    assert outcome.reason.startswith("unknown game 'unheard-of'")


def test_unknown_key_of_a_game_is_no_reject() -> None:
    """The table of games is read, and the change is looked at again."""
    table = mapper(game_slug_table="games")

    with pytest.raises(UnknownGameKey):
        changes_of(table, None, DONE, 7, corrections=False)
    table.games.learn({"crash": "dice"})
    assert changes_of(table, None, DONE, 7, corrections=False)[0].round.game_slug == "dice"  # type: ignore[union-attr]


STATES = st.sampled_from([DONE, OPEN, GONE, OTHER, CHANGED, row("2"), row(game="dice")])


@settings(max_examples=40)
@given(st.lists(STATES, min_size=1, max_size=6))
def test_history_of_a_row_gives_its_last_state(history: list[list[str | None]]) -> None:
    """With corrections, the outcomes one after another are what the table holds at the end."""
    table, known = mapper(), {}
    for old, new in zip([None, *history], history, strict=False):
        for outcome in changes_of(table, old, new, 7, corrections=True):
            if outcome.meaning in (Meaning.ROUND, Meaning.CORRECTION):
                assert outcome.round is not None
                known[outcome.round.game_slug, outcome.round.round_id] = outcome.round
    final = round_of(table, history[-1], 7)

    assert [round_ for round_ in known.values() if not round_.voided] == ([final] if isinstance(final, Round) else [])


@settings(max_examples=40)
@given(st.lists(st.sampled_from([DONE, OPEN, GONE, OTHER, BAD]), min_size=1, max_size=8))
def test_row_without_corrections_is_sent_once_if_reopened_ones_are_remembered(history: list[list[str | None]]) -> None:
    """Each way back to finished was announced as REOPENED, which a backend remembers."""
    table, sent, reopened = mapper(), 0, False
    for old, new in zip([None, *history], history, strict=False):
        for outcome in changes_of(table, old, new, 7, corrections=False):
            reopened |= outcome.meaning is Meaning.REOPENED
            sent += outcome.meaning is Meaning.ROUND and not reopened

    assert sent == (DONE in history)


def test_round_whose_row_is_rejected_meanwhile_stays_the_round() -> None:
    """A mended row is a correction, or nothing, and not the round again; one that was rejected at first is a round."""
    table, unreadable = mapper(deletes="void"), UnreadableRows(most=2)

    def follow(*rows: list[str | None] | None, fault: str = "") -> list[str]:
        found = []
        for old, new in pairwise(rows):
            faults = {"old_fault": fault if old is GONE else "", "new_fault": fault if new is GONE else ""}
            outcomes = changes_of(table, old, new, 7, corrections=True, unreadable=unreadable, **faults)
            found += [f"{one.meaning.name}{' voided' if one.round and one.round.voided else ''}" for one in outcomes]
        return found

    worse = row(game="unknown-too")
    assert follow(None, BAD, DONE) == ["REJECTED", "ROUND"]
    assert follow(DONE, BAD, CHANGED) == ["REJECTED", "CORRECTION"]
    assert follow(DONE, BAD, DONE, BAD, DONE) == ["REJECTED", "NOTHING"] * 2
    assert follow(BAD, CHANGED) == ["CORRECTION"]  # after a lost connection the change may come again
    assert follow(DONE, BAD, worse, OPEN) == ["REJECTED", "REJECTED", "CORRECTION voided"]
    assert follow(DONE, BAD, row("2")) == ["REJECTED", "CORRECTION voided", "ROUND"]
    assert follow(DONE, BAD, None) == ["REJECTED", "CORRECTION voided"]
    assert follow(DONE, GONE, CHANGED, fault="no UTF-8") == ["REJECTED", "CORRECTION"]
    for number in "34":
        follow(row(number), row(number, game="unheard-of"))
    assert follow(BAD, DONE) == ["ROUND"]  # forgotten
