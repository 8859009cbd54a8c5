"""Propose how the rows of a table become rounds: the options of the table, each with its reason.

Pure. Puts the guesses of `roles` and `game_roles` together, and says what an owner has to decide. Which tables of a
database hold rounds is decided in `backends.postgres.inspect.choose`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from backends.postgres.inspect.facts import Rows, TableFacts
from backends.postgres.inspect.fields import Field, fields_of, quote_part
from backends.postgres.inspect.game_roles import GameGuess, GameNames, guess_game
from backends.postgres.inspect.roles import (
    Finish,
    Guess,
    guess_document,
    guess_finish,
    guess_finished_at,
    guess_round_id,
    member_name,
    result_columns,
)
from backends.postgres.inspect.words import (
    ASIDE,
    FINISHED,
    KIND,
    MONEY,
    OPEN,
    PRIVATE,
    RESULT,
    ROUND,
    has_any,
    words_of,
)

_CENTS: Final = frozenset({"cents", "cent", "centavos", "centavo", "centimos", "centimo", "centesimos", "hundredths"})
_KINDS: Final = 50
"""Most kinds of events in one table."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the owner has to decide: the option, and why."""

    option: str
    text: str
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """How the rows of one table become rounds."""

    table: TableFacts
    options: Mapping[str, object]
    """Options of `backends.postgres.mapping.table_options.TableOptions`."""
    reasons: Mapping[str, str]
    """Why, by option."""
    questions: tuple[Question, ...] = ()
    """What has to be decided before the options can be used; empty: they are complete."""
    notes: tuple[str, ...] = ()
    """What the owner should know, one sentence each."""
    unknown_games: tuple[str, ...] = ()
    """Slugs that the catalogue lacks."""
    score: int = 0
    """How much the table looks like one of rounds."""

    @property
    def game(self) -> str | None:
        """The game of every row; None: rows have games of their own."""
        slug = self.options.get("game_slug")
        return str(slug) if slug is not None else None


def propose_table(
    table: TableFacts,
    rows: Rows | None,
    referenced: Mapping[int, TableFacts],
    samples: Mapping[int, Rows | None],
    names: GameNames,
    given: Mapping[str, object],
) -> Proposal:
    """Propose the options of one table.

    Args:
        rows: A sample of its rows; None: they could not be read.
        referenced: Tables that may be the table of games, by oid, and their rows in `samples`.
        given: Options that the owner has set; they are kept.
    """
    fields = fields_of(table, rows)
    game = _game(table, fields, referenced, samples, names, given)
    found_id = guess_round_id(table, fields, game.column if game else None)
    rows_when: Guess | None = None
    id_field = _field(fields, found_id[0].value) if found_id else None
    if id_field is not None and id_field.is_member:
        rows_when, fields = _only_rounds(fields, id_field)
        game = _game(table, fields, referenced, samples, names, given)
    made = _Making(table, fields, given)
    made.put("table", table.full_name, "")
    if found_id is None:
        made.ask("round_id_column", f"table {table.full_name} has no column that looks like the id of a round")
    else:
        made.guess("round_id_column", found_id[0])
        if found_id[1]:
            made.put("round_ids", "hashed", "ids that are no integers become 63 bits of their hash")
    made.game(game)
    finished_at = guess_finished_at(fields)
    if finished_at is None:
        made.ask("finished_at_column", f"table {table.full_name} has no column that looks like a time")
    else:
        made.guess("finished_at_column", finished_at)
    if rows_when is not None:
        made.guess("rows_when", rows_when)
    time_field = _field(fields, finished_at.value) if finished_at is not None else None
    may_be_null = time_field is not None and time_field.may_be_null
    finish = _finish(table, fields, finished_at, rows_when)
    made.finish(finish, is_event=rows_when is not None, may_be_null=may_be_null)
    made.extras()
    made.order()
    return made.proposal(_score(table, fields, found_id is not None, finished_at, game))


class _Making:
    """A proposal while it is made."""

    def __init__(self, table: TableFacts, fields: Sequence[Field], given: Mapping[str, object]) -> None:
        self._table, self._fields, self._given = table, fields, given
        self._options: dict[str, object] = {}
        self._reasons: dict[str, str] = {}
        self._questions: list[Question] = []
        self._notes: list[str] = []
        self._unknown: tuple[str, ...] = ()

    def put(self, option: str, value: object, reason: str) -> None:
        if option not in self._given:
            self._options[option] = value
            self._reasons[option] = reason

    def guess(self, option: str, guess: Guess) -> None:
        self.put(option, guess.value, guess.reason)

    def ask(self, option: str, text: str, choices: Sequence[str] = ()) -> None:
        if option not in self._given:
            self._questions.append(Question(option, text, tuple(choices)))

    def game(self, game: GameGuess | None) -> None:
        if any(option.startswith("game_slug") for option in self._given):
            return
        if game is None:
            self.ask(
                "game_slug", f"nothing in table {self._table.full_name} says which game its rows are of{self._hint()}"
            )
            return
        for number, (option, value) in enumerate(game.options.items()):
            self.put(option, value, game.reason if number == 0 else "")
        self._unknown = game.unknown

    def _hint(self) -> str:
        """Say what helps where a document may hold what is missing, and there is no row to look into."""
        documents = [field.path for field in self._fields if field.kind == "object" and not field.present]
        if not documents or any(field.present for field in self._fields):
            return ""
        return f"; it has no rows, and {documents[0]} may hold it: give a row with --example, as a JSON object"

    def finish(self, finish: Finish, *, is_event: bool, may_be_null: bool) -> None:
        if is_event:
            self.put("finished_by", "insert", "events are inserted once and not updated")
            return
        if finish.when is not None:
            self.guess("finished_when", finish.when)
        elif may_be_null and finish.doubt is None:
            self.put("finished_by", "update", "the time may be NULL until an UPDATE finishes the round")
        if finish.voided is not None:
            self.guess("voided_when", finish.voided)
        if finish.doubt is not None and "finished_when" not in self._given:
            column = finish.column or ""
            self.ask("finished_when", finish.doubt, [f"{column} = {_literal(state)}" for state in finish.states[:12]])

    def extras(self) -> None:
        if {"extras_column", "extras_columns"} & self._given.keys():
            return
        taken = frozenset(str(value) for value in (*self._options.values(), *self._given.values()))
        columns = result_columns(self._table, self._fields, taken)
        document = guess_document(self._fields, taken)
        named = [column for column in columns if column.kind != "object"]
        if document is not None and (document.points > 0 or not named):
            self.guess("extras_column", document)
        elif named:
            self._compose(named)
        else:
            self.put("extras_columns", [], "")
            self.ask("extras_columns", f"table {self._table.full_name} has no column that looks like a result")
            del self._options["extras_columns"]

    def _compose(self, columns: Sequence[Field]) -> None:
        names = [member_name(column, is_alone=len(columns) == 1) for column in columns]
        entries = []
        for column, name in zip(columns, names, strict=True):
            own = quote_part(column.path) if column.path.replace("_", "").isalnum() else _quoted(column.path)
            is_cents = column.kind == "integer" and column.has(_CENTS)
            renamed = name if names.count(name) == 1 else column.path
            prefix = f"{renamed}=" if renamed != column.path else ""
            entries.append(f"{prefix}{own}{'/100' * is_cents}")
        self.put("extras_columns", entries, "the columns of the result")

    def order(self) -> None:
        """Name the column that orders rows, where the id cannot."""
        table = self._table
        given = str(self._given.get("round_id_column", self._options.get("round_id_column", "")))
        column = table.by_name.get(given)
        is_order = column is not None and column.base_type in ("int2", "int4", "int8")
        if is_order and table.is_unique(given):
            return
        for other in table.columns:
            # A unique key of a partitioned table has other columns too. Then the operator has to name the sequence.
            is_other = other.name != given or table.kind == "p"
            leads = any(key and key[0] == other.name for key in table.unique_keys)
            if is_other and leads and other.is_sequenced and other.base_type in ("int4", "int8"):
                self.put("order_column", other.name, f"a sequence numbers the rows by {other.name}")
                return

    def proposal(self, score: int) -> Proposal:
        return Proposal(
            self._table,
            self._options | {name: value for name, value in self._given.items() if name != "table"},
            self._reasons,
            tuple(self._questions),
            tuple(self._notes),
            self._unknown,
            score,
        )


def _game(
    table: TableFacts,
    fields: Sequence[Field],
    referenced: Mapping[int, TableFacts],
    samples: Mapping[int, Rows | None],
    names: GameNames,
    given: Mapping[str, object],
) -> GameGuess | None:
    if any(option.startswith("game_slug") for option in given):
        column = given.get("game_slug_column")
        return GameGuess({}, "", 5, None if column is None else str(column))
    return guess_game(table, fields, referenced, samples, names)


def _finish(table: TableFacts, fields: Sequence[Field], finished_at: Guess | None, rows_when: Guess | None) -> Finish:
    if rows_when is not None:
        return Finish(None, None, None)
    return guess_finish(table, fields, _field(fields, finished_at.value) if finished_at else None)


def _only_rounds(fields: Sequence[Field], id_field: Field) -> tuple[Guess | None, list[Field]]:
    """Say which rows of a table of events are rounds, and return the fields of these rows."""
    count = len(id_field.values)
    has_id = [value is not None for value in id_field.values]
    for column in sorted(fields, key=lambda field: not field.has(KIND)):
        if column.is_member or column.kind != "text" or None in column.values:
            continue
        kinds = list(dict.fromkeys(map(str, column.values)))
        ours = [
            kind for kind in kinds if all(h for h, value in zip(has_id, column.values, strict=True) if value == kind)
        ]
        mixed = any(h for h, value in zip(has_id, column.values, strict=True) if value not in ours)
        if not ours or mixed or len(kinds) > _KINDS or (len(kinds) > 3 and len(kinds) * 2 > count):
            continue
        finished = [kind for kind in ours if has_any(kind, FINISHED | RESULT) and not has_any(kind, OPEN)]
        ours = finished or ours
        if not (column.has(KIND) or len(kinds) > 1):
            continue
        listed = ", ".join(_literal(kind) for kind in ours)
        test = f"{column.in_condition} = {listed}" if len(ours) == 1 else f"{column.in_condition} in ({listed})"
        keep = [value in ours for value in column.values]
        return Guess(test, f"{column.path} says which events are finished rounds"), _kept(fields, keep)
    if all(has_id):
        return None, list(fields)
    return Guess(f"{id_field.in_condition} is not null", "other rows have no id of a round"), _kept(fields, has_id)


def _kept(fields: Sequence[Field], keep: Sequence[bool]) -> list[Field]:
    """Return the fields of some rows, without those that no such row has."""
    kept = [
        replace(field, values=tuple(value for value, wanted in zip(field.values, keep, strict=True) if wanted))
        for field in fields
    ]
    return [field for field in kept if not field.is_member or field.present]


def _score(
    table: TableFacts, fields: Sequence[Field], has_id: bool, finished_at: Guess | None, game: GameGuess | None
) -> int:
    """Weigh how much a table looks like one of rounds; 8 and more: it does."""
    words = set(words_of(table.name))
    score = 3 * has_id + (3 if finished_at is not None and finished_at.points >= 5 else finished_at is not None)
    score += 0 if game is None else 1 + min(game.points, 9) // 3
    score += 2 * (game is not None and game.column is None and not game.unknown)
    score += 4 * bool(words & ROUND) + 2 * bool(words & RESULT)
    results = result_columns(table, fields) or [field for field in fields if field.kind == "object"]
    score += 2 * bool(results)
    score -= 7 * bool(words & ASIDE) + 6 * bool(words & MONEY) + 8 * table.is_child
    score -= 5 * any(
        not field.is_member and field.has(PRIVATE) and field.has({"id", "user", "player"}) for field in fields
    )
    return score - 20 * (not has_id or finished_at is None)


def _field(fields: Sequence[Field], path: str) -> Field | None:
    return next((field for field in fields if field.path == path), None)


def _literal(text: str) -> str:
    return text if text.isascii() and text.isdigit() else "'" + text.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
