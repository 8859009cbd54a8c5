"""Whether the columns that the options name can hold what they are named for: their types, and NULL. Pure.

Owns the sentences. What the rows really hold is judged in `backends.postgres.inspect.mapping_check`.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from backends.postgres.findings import Finding, Verdict
from backends.postgres.identifiers import quote_identifier
from backends.postgres.inspect.facts import DOCUMENTS, INTEGERS, TEXTS, TIMES, ColumnFacts, TableFacts
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.value_path import ValuePath

_EPOCHS: Final = INTEGERS | {"numeric", "float8"}
REPEATED_REMEDY: Final = (
    "set the option 'round_id_column' to a column that is unique within the game, such as one from a sequence, or "
    "'rows_when' to one row of each round"
)


class _Mapped(NamedTuple):
    """A column that an option names, not a member of its document."""

    option: str
    column: ColumnFacts
    table: TableFacts

    @property
    def shown(self) -> str:
        return f"column {quote_identifier(self.column.name)} of {self.table.quoted} ({self.column.type_name})"

    def altered(self, change: str) -> str:
        return f"ALTER TABLE {self.table.quoted} ALTER COLUMN {quote_identifier(self.column.name)} {change};"


def column_faults(facts: TableFacts, table: TableOptions) -> list[Finding]:
    """Judge the types of the columns, and whether they may be NULL."""
    findings: list[Finding] = []
    if (found := _mapped("round_id_column", table.round_id_column, facts)) is not None:
        findings += _of_round_id(found, table)
        findings += _of_repeated(found, facts, table)
    if table.game_slug is None and (found := _mapped("game_slug_column", table.game_slug_column, facts)) is not None:
        findings += _of_game(found, table)
    if (found := _mapped("finished_at_column", table.finished_at_column, facts)) is not None:
        findings += _of_finished_at(found)
    if table.extras_columns is None and (found := _mapped("extras_column", table.extras_column, facts)) is not None:
        findings += _of_extras(found)
    for path in _documents(table):
        findings += _of_document(path, facts)
    return findings


def _mapped(option: str, text: str, facts: TableFacts) -> _Mapped | None:
    place = ValuePath.parse(text).place(tuple(facts.by_name))
    return None if place is None or place.members else _Mapped(option, facts.by_name[place.column], facts)


def _of_round_id(found: _Mapped, table: TableOptions) -> Iterator[Finding]:
    base, column = found.column.base_type, found.column
    if table.round_ids == "hashed":
        if base in INTEGERS:
            text = f"{found.shown} holds integers, and round_ids = hashed replaces them; unset it to keep them"
            yield Finding(Verdict.WARNING, text)
    elif base == "numeric" and not column.type_name.endswith(",0)"):
        text = f"{found.shown} may hold fractions, and such rows are rejected; run: {found.altered('TYPE bigint')}"
        yield Finding(Verdict.WARNING, text)
    elif base not in INTEGERS | TEXTS | {"numeric"}:
        text = f"{found.shown} is no integer, so all rows are rejected; set the option 'round_ids' to hashed, or "
        yield Finding(Verdict.FAILURE, f"{text}'round_id_column' to an integer")
    yield from _nullable(found)


def _of_repeated(found: _Mapped, facts: TableFacts, table: TableOptions) -> Iterator[Finding]:
    """Look for a key that holds the round id and more: then several rows may have the same id.

    A partitioned table is left out, since its keys have to hold the columns of the partitions.
    """
    game = None if table.game_slug else _mapped("game_slug_column", table.game_slug_column, facts)
    columns = [found.column.name, *([game.column.name] if game else [])]
    if facts.kind == "p" or found.column.is_sequenced or facts.is_unique(*columns):
        return
    for key in facts.unique_keys:
        if found.column.name in key:
            more = " and ".join(quote_identifier(name) for name in key if name not in columns)
            text = (
                f"{found.shown} is unique only together with {more}: of several rows of one game with the same id the "
            )
            yield Finding(Verdict.WARNING, f"{text}log keeps one; {REPEATED_REMEDY}")
            return


def _of_game(found: _Mapped, table: TableOptions) -> Iterator[Finding]:
    is_key = table.game_slug_table is not None or bool(table.game_slug_map)
    if not is_key and not found.column.is_enum and found.column.base_type not in TEXTS:
        text = f"{found.shown} holds no slugs; set the option 'game_slug_table' to the table of games, or "
        yield Finding(Verdict.FAILURE, f"{text}'game_slug_map'")
    yield from _nullable(found)


def _of_finished_at(found: _Mapped) -> Iterator[Finding]:
    base = found.column.base_type
    if base == "date":
        text = f"{found.shown} holds no time of day, so all rows are rejected; run: {found.altered('TYPE timestamptz')}"
        yield Finding(Verdict.FAILURE, f"{text} or set the option 'finished_at_column'")
    elif base not in TIMES | TEXTS | _EPOCHS:
        text = f"{found.shown} holds no times, so all rows are rejected; set the option 'finished_at_column'"
        yield Finding(Verdict.FAILURE, text)


def _of_extras(found: _Mapped) -> Iterator[Finding]:
    if found.column.base_type not in DOCUMENTS | TEXTS:
        text = f"{found.shown} holds no JSON, so all rows are rejected; set the option 'extras_columns' to the columns "
        yield Finding(Verdict.FAILURE, f"{text}of the result, or 'extras_column' to one of type jsonb")


def _nullable(found: _Mapped) -> Iterator[Finding]:
    if not found.column.not_null:
        text = f"{found.shown} may be NULL, and such rows are rejected; run: {found.altered('SET NOT NULL')}"
        yield Finding(Verdict.WARNING, text)


def _documents(table: TableOptions) -> list[str]:
    paths = [table.round_id_column, table.finished_at_column]
    paths += [table.game_slug_column] if table.game_slug is None else []
    paths += [table.extras_column] if table.extras_columns is None else [entry.path for entry in table.extras_columns]
    return paths


def _of_document(path: str, facts: TableFacts) -> Iterator[Finding]:
    place = ValuePath.parse(path).place(tuple(facts.by_name))
    if place is None or not place.members:
        return
    column = facts.by_name[place.column]
    if column.base_type not in DOCUMENTS | TEXTS:
        shown = f"column {quote_identifier(column.name)} of {facts.quoted} ({column.type_name})"
        yield Finding(Verdict.FAILURE, f"{shown} is no JSON document, so it has no member for the path {path}")
