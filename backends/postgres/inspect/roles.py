"""Guess which values of a table are the id, the time and the result of a round, and when a row is a finished round.

Pure. Each guess has its reason. What cannot be guessed is None: the owner is asked. The game is guessed in
`backends.postgres.inspect.game_roles`.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from backends.postgres.inspect.facts import TableFacts
from backends.postgres.inspect.fields import Field
from backends.postgres.inspect.words import (
    CHANGED,
    COLOR,
    CREATED,
    DOCUMENT,
    FIGURES,
    FINISHED,
    GAME,
    HANDLED,
    ID,
    MONEY,
    NUMBER,
    OPEN,
    POINT,
    PRIVATE,
    RESULT,
    ROUND,
    STARTED,
    STATE,
    SYMBOLS,
    TREND,
    VOIDED,
    WHEN,
    words_of,
)

_LITERAL: Final = re.compile(r"'((?:[^']|'')*)'::|'((?:[^']|'')*)'")
_TIMES: Final = ("time", "epoch")


class Guess(NamedTuple):
    """What an option should be, and why."""

    value: str
    reason: str
    points: int = 0
    """How sure it is: more is surer; comparable within one role."""


# --- the id ----------------------------------------------------------------------------------------------------------


def guess_round_id(table: TableFacts, fields: Sequence[Field], game: str | None) -> tuple[Guess, bool] | None:
    """Guess the id of a round, and whether it has to be hashed, since it is no integer.

    Args:
        game: The column of the game; with it an id may be unique.
    """
    found = [(guess, field) for field in fields if (guess := _as_round_id(table, field, game)) is not None]
    if not found:
        return None
    guess, field = max(found, key=lambda pair: pair[0].points)
    return guess, field.kind not in ("integer", "epoch")


def _as_round_id(table: TableFacts, field: Field, game: str | None) -> Guess | None:
    if field.kind not in ("integer", "uuid", "text", "epoch"):
        return None
    words = set(field.words) - set(words_of(table.name))
    names_round = field.has(ROUND) or bool(words & {"round"})
    names_id = field.has(ID) or names_round
    points, why = 0, []
    if not field.is_member:
        alone = table.is_unique(field.column.name)
        with_game = game is not None and table.is_unique(field.column.name, game)
        if any(field.column.name in key.columns for key in table.foreign_keys):
            return None
        if alone or with_game:
            points += 6
            why.append("unique" if alone else f"unique with {game}")
        elif field.column.is_sequenced:
            points += 5
            why.append("numbered by the database")
        elif not names_round or field.may_be_null:
            return None
        points += 2 * (table.primary_key == (field.column.name,)) + field.column.is_sequenced
    elif not names_id or field.has(GAME) or field.has(PRIVATE | MONEY):
        return None
    else:
        # A member is the id when the row has none of its own: an event with a payload.
        depth = field.path.count(".")
        parents = words_of(field.path.rpartition(".")[0])
        points += 4 + 3 * (names_round or not ROUND.isdisjoint(parents)) - (depth > 2)
        if not (names_round or not ROUND.isdisjoint(parents)):
            return None
        why.append("the id of the round in the document")
        points += 6 * (field.kind == "integer")
    if field.kind == "text" and not (names_id or why):
        return None
    points += 6 * (field.kind == "integer") + 4 * names_round + 2 * field.has(ID)
    points -= 4 * field.has(PRIVATE) + 4 * (field.has(GAME) and not names_round)
    points -= 8 * (field.kind == "text")
    return Guess(field.path, f"{_described(field)}, {' and '.join(why) or 'by its name'}", points)


# --- the time --------------------------------------------------------------------------------------------------------


def guess_finished_at(fields: Sequence[Field]) -> Guess | None:
    """Guess the time at which a round finished."""
    found = [guess for field in fields if field.kind in _TIMES and (guess := _as_finished_at(field)) is not None]
    return max(found, key=lambda guess: guess.points, default=None)


def _as_finished_at(field: Field) -> Guess | None:
    if field.has(VOIDED) and not field.has(FINISHED):
        return None
    if field.has(FINISHED):
        points, why = 10, "the end of the round by its name"
    elif field.has(HANDLED):
        return None
    elif field.has(STARTED):
        points, why = 1, "the start of the round: the table has no better time"
    elif field.has(CHANGED):
        points, why = 3, "the last change: the table has no better time"
    elif field.has(CREATED):
        points, why = 5, "when the row was created"
    elif field.has(WHEN | RESULT | ROUND):
        points, why = 7, "the time of the round"
    else:
        points, why = 2, "the table has no better time"
    points -= field.is_member
    return Guess(field.path, f"{_described(field)}, {why}", points)


# --- when a row is a round -------------------------------------------------------------------------------------------


class Finish(NamedTuple):
    """When a row is a finished round, and when it is taken back; None: the default."""

    when: Guess | None
    voided: Guess | None
    doubt: str | None
    """Why the owner has to say it; None: it is clear."""
    states: tuple[str, ...] = ()
    """The states that the rows have, where the owner has to choose."""
    column: str | None = None


def guess_finish(table: TableFacts, fields: Sequence[Field], finished_at: Field | None) -> Finish:
    """Guess when a row is a finished round."""
    columns = [field for field in fields if not field.is_member or field.has(STATE)]
    voided = _voided_flag(columns)
    if (flag := _finished_flag(columns)) is not None:
        return Finish(flag, voided, None)
    states = [field for field in columns if field.has(STATE) and field.kind in ("text", "integer")]
    for field in states:
        if field.kind == "text" and (finish := _of_states(table, field, voided)) is not None:
            return finish
    if finished_at is not None and finished_at.may_be_null:
        return Finish(None, voided, None)
    state = next(iter(states), None)
    if (result := _nullable_result(table, fields, finished_at, state)) is not None:
        return Finish(result, voided, None)
    if state is None:
        return Finish(None, voided, None)
    seen = tuple(sorted(set(_states(table, state))))
    doubt = f"column {state.path} of {table.full_name} seems to say when a round is finished, and its values "
    doubt += f"({', '.join(seen[:12])}) do not say which" if seen else "are not known"
    return Finish(None, voided, doubt, seen, state.in_condition)


def _finished_flag(columns: Sequence[Field]) -> Guess | None:
    for field in columns:
        if field.kind == "boolean" and not field.has(VOIDED | HANDLED):
            if field.has(FINISHED):
                return Guess(field.in_condition, _described(field))
            if field.has(OPEN):
                return Guess(f"not {field.in_condition}", _described(field))
    return None


def _of_states(table: TableFacts, field: Field, voided: Guess | None) -> Finish | None:
    states = _states(table, field)
    finished = [state for state in states if _means(state, FINISHED) and not _means(state, OPEN | VOIDED)]
    taken_back = [state for state in states if _means(state, VOIDED) and not _means(state, OPEN)]
    if not finished:
        return None
    if voided is None and taken_back:
        voided = Guess(_one_of(field.in_condition, taken_back), f"{_described(field)}, by the words")
    return Finish(Guess(_one_of(field.in_condition, finished), f"{_described(field)}, by the words"), voided, None)


def _states(table: TableFacts, field: Field) -> list[str]:
    """The states that a column may have: by its type, by a CHECK constraint, and in the sample."""
    checked = [
        (one or other).replace("''", "'")
        for check in table.checks
        if field.path in check
        for one, other in _LITERAL.findall(check)
    ]
    return list(dict.fromkeys([*field.distinct, *checked]))


def _means(state: str, words: frozenset[str]) -> bool:
    return not words.isdisjoint(words_of(state))


def _one_of(path: str, values: Sequence[str]) -> str:
    quoted = ["'" + value.replace("'", "''") + "'" for value in values]
    return f"{path} = {quoted[0]}" if len(quoted) == 1 else f"{path} in ({', '.join(quoted)})"


def _voided_flag(fields: Sequence[Field]) -> Guess | None:
    for field in fields:
        if field.has(VOIDED) and not field.has(PRIVATE | MONEY):
            if field.kind == "boolean":
                return Guess(field.in_condition, _described(field))
            if field.kind in _TIMES and field.may_be_null:
                return Guess(f"{field.in_condition} is not null", _described(field))
    return None


def _nullable_result(
    table: TableFacts, fields: Sequence[Field], finished_at: Field | None, state: Field | None
) -> Guess | None:
    """Guess that a round is finished once it has a result, where no better sign exists."""
    results = [field for field in result_columns(table, fields) if field.may_be_null]
    documents = [field for field in fields if not field.is_member and field.kind == "object" and field.may_be_null]
    nullable = [*documents, *results]
    is_sure = finished_at is not None and finished_at.has(FINISHED) and state is None
    if len(nullable) != 1 or is_sure:
        return None
    (result,) = nullable
    has_gaps = any(value is None for value in result.values)
    may_change = table.updated > 0 or (not result.values and finished_at is not None and not finished_at.has(WHEN))
    if not has_gaps and (state is not None or not may_change):
        return None
    return Guess(f"{result.in_condition} is not null", f"{_described(result)}, empty until the round has a result")


# --- the result ------------------------------------------------------------------------------------------------------


def guess_document(fields: Sequence[Field], taken: frozenset[str]) -> Guess | None:
    """Guess the JSON object that is the result of a round; `taken` are paths with another meaning."""
    found = []
    for field in fields:
        if field.kind != "object" or field.path in taken:
            continue
        inside = [path for path in taken if path.startswith(f"{field.path}.")]
        points = 4 * field.has(RESULT) + 2 * field.has(DOCUMENT) - 3 * len(inside) - field.path.count(".")
        if field.is_member and not field.has(RESULT):
            continue
        points += 2 * (not field.is_member) - 4 * field.has({"meta", "metadata", "config", "settings"})
        found.append(Guess(field.path, f"{_described(field)}, the result of the round", points))
    return max(found, key=lambda guess: guess.points, default=None)


def result_columns(table: TableFacts, fields: Sequence[Field], taken: frozenset[str] = frozenset()) -> list[Field]:
    """List the columns that make the result of a round; `taken` are paths with another meaning."""
    referring = {column for key in table.foreign_keys for column in key.columns}
    plain = [
        field
        for field in fields
        if not field.is_member
        and field.path not in taken
        and field.path not in referring
        and field.path not in table.primary_key
        and field.kind in ("integer", "number", "text", "array", "boolean", "object")
        and not field.has(PRIVATE | HANDLED | STATE | VOIDED)
        and not field.has(GAME)
    ]
    named = [field for field in plain if field.has(FIGURES)]
    if named:
        return named
    return [field for field in plain if field.kind in ("number", "array") and not field.has(MONEY | ID)]


def member_name(field: Field, *, is_alone: bool) -> str:
    """Name the member of `extras` that a column becomes: the names that clients filter by, where it means the same."""
    if is_alone and field.kind == "number" and field.has(RESULT):
        return "point"
    for name, words in (("point", POINT), ("color", COLOR), ("trend", TREND), ("symbols", SYMBOLS)):
        if field.has(words):
            return name
    return "number" if field.has(NUMBER & frozenset({"numero", "number", "nummer"})) else field.path


def _described(field: Field) -> str:
    return f"{field.path} ({field.column.type_name if not field.is_member else field.kind})"
