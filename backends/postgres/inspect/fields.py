"""The values that the rows of a table offer: its columns, and the members of the JSON documents in them.

Pure. Owns what kind of value each is, by its type or by the sample. Which of them mean what is decided elsewhere.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from backends.postgres.inspect.facts import DOCUMENTS, INTEGERS, NUMBERS, TEXTS, TIMES, ColumnFacts, Rows, TableFacts
from backends.postgres.inspect.words import ID, ROUND, words_of

_DEPTH: Final = 5
_MEMBERS: Final = 200
"""Limit of the members of one document that are looked at."""
_TIME: Final = re.compile(r"\A\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d(:?\d\d)?)?\Z", re.ASCII)
_UUID: Final = re.compile(r"\A[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}\Z", re.IGNORECASE)
_INTEGER: Final = re.compile(r"\A\d{1,19}\Z", re.ASCII)
_NUMBER: Final = re.compile(r"\A-?\d+(\.\d+)?([eE][+-]?\d+)?\Z", re.ASCII)
_EPOCH: Final = re.compile(r"\A1[2-9]\d{8}(\d{3}|\d{6})?\Z", re.ASCII)
"""Seconds, milliseconds or microseconds since 1970, of the years 2008 to 2033."""
_PLAIN: Final = re.compile(r"\A[^\W\d][\w$]*\Z")
_KEYWORDS: Final = frozenset(["and", "or", "in", "is", "not", "null", "true", "false"])
_EPOCHS: Final = frozenset(["epoch", "unix", "ms", "millis", "milliseconds"])
_decode: Final = msgspec.json.Decoder(float_hook=str).decode


@dataclass(frozen=True, slots=True)
class Field:
    """One value that each row has: a column, or a member of a document in a column."""

    path: str
    """As the options name it."""
    kind: str
    """``integer``, ``number``, ``text``, ``uuid``, ``time``, ``epoch``, ``boolean``, ``object``, ``array`` or
    ``other``."""
    values: tuple[str | None, ...]
    """Its text in each row of the sample."""
    column: ColumnFacts
    members: tuple[str, ...] = ()
    """The members that lead to it in the document of its column; empty: it is the column itself."""
    words: tuple[str, ...] = field(default=())

    @property
    def is_member(self) -> bool:
        return bool(self.members)

    @property
    def in_condition(self) -> str:
        """Its path as a condition names it, where more names need quotes."""
        return ".".join(
            name if _PLAIN.match(name) and name.lower() not in _KEYWORDS else '"' + name.replace('"', '""') + '"'
            for name in (self.column.name, *self.members)
        )

    @property
    def present(self) -> list[str]:
        """Its values in the sample that are not NULL."""
        return [value for value in self.values if value is not None]

    @property
    def distinct(self) -> list[str]:
        """Its different values: those that its type allows, and those of the sample."""
        return list(dict.fromkeys([*self.column.labels, *self.present] if not self.is_member else self.present))

    @property
    def may_be_null(self) -> bool:
        """Whether a row may lack it."""
        return None in self.values if self.is_member else not self.column.not_null

    def has(self, words: Iterable[str]) -> bool:
        """Whether its name has one of these words."""
        return not frozenset(self.words).isdisjoint(words)


def fields_of(table: TableFacts, rows: Rows | None) -> list[Field]:
    """List the values that the rows of a table offer; columns first, then members of documents."""
    sampled = rows or []
    columns = [_of_column(column, [row.get(column.name) for row in sampled]) for column in table.columns]
    members = [member for found in columns if found.kind == "object" for member in _members(found)]
    return [*columns, *members]


def quote_part(name: str) -> str:
    """Write one name of a path."""
    return '"' + name.replace('"', '""') + '"' if not name or "." in name or '"' in name else name


def _of_column(column: ColumnFacts, values: Sequence[str | None]) -> Field:
    return Field(column.name, _kind_of_column(column, values), tuple(values), column, words=words_of(column.name))


def _kind_of_column(column: ColumnFacts, values: Sequence[str | None]) -> str:
    base = column.base_type
    present = [value for value in values if value is not None]
    if base in INTEGERS or (base == "numeric" and column.type_name.endswith(",0)")):
        return "epoch" if _is_epoch(column.name, present) else "integer"
    if base in NUMBERS:
        return "number"
    if base in TIMES:
        return "time"
    if base == "uuid":
        return "uuid"
    if base == "bool":
        return "boolean"
    if base in DOCUMENTS:
        return "object" if not present or any(value.lstrip().startswith("{") for value in present) else "other"
    if column.is_enum:
        return "text"
    if base in TEXTS:
        return _kind_of_texts(present)
    return "array" if base.startswith("_") else "other"


def _is_epoch(name: str, present: Sequence[str]) -> bool:
    """Whether integers are times: they look so, and are no ids by their name."""
    words = frozenset(words_of(name))
    if present:
        return all(map(_EPOCH.match, present)) and words.isdisjoint(ROUND | ID)
    return not words.isdisjoint(_EPOCHS)


def _kind_of_texts(present: Sequence[str]) -> str:
    """Say what a column of text holds; a document, a time or an id in a text column counts as what it is."""
    if present and all(map(_TIME.match, present)):
        return "time"
    if present and all(map(_UUID.match, present)):
        return "uuid"
    if present and all(value.startswith("{") and isinstance(_parsed(value), dict) for value in present):
        return "object"
    return "text"


def _parsed(text: str | None) -> Any:
    try:
        return None if text is None else _decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _members(document: Field) -> list[Field]:
    parsed = [_parsed(value) for value in document.values]
    found: dict[tuple[str, ...], list[Any]] = {}
    for number, value in enumerate(parsed):
        _collect(value, (), number, len(parsed), found)
    return [_of_member(document, path, values) for path, values in found.items()]


def _collect(
    value: Any, path: tuple[str, ...], number: int, count: int, found: dict[tuple[str, ...], list[Any]]
) -> None:
    if path:
        if path not in found and len(found) >= _MEMBERS:
            return
        found.setdefault(path, [None] * count)[number] = value
    if isinstance(value, dict) and len(path) < _DEPTH:
        for name, inner in value.items():
            _collect(inner, (*path, name), number, count, found)


def _of_member(document: Field, path: tuple[str, ...], values: Sequence[Any]) -> Field:
    present = [value for value in values if value is not None]
    text = ".".join(map(quote_part, (document.path, *path)))
    words = words_of(path[-1])
    kind = _kind_of_values(path[-1], present)
    return Field(text, kind, tuple(map(_text, values)), document.column, path, words)


def _kind_of_values(name: str, present: Sequence[Any]) -> str:
    for kind, types in (("boolean", bool), ("object", dict), ("array", list)):
        if all(isinstance(value, types) for value in present):
            return kind
    texts = [text for value in present if (text := _text(value)) is not None]
    if all(map(_INTEGER.match, texts)):
        return "epoch" if _is_epoch(name, texts) else "integer"
    if all(map(_NUMBER.match, texts)):
        return "number"
    return _kind_of_texts(texts) if all(isinstance(value, str) for value in present) else "other"


def _text(value: Any) -> str | None:
    """Write a member as the database's ``#>>`` does."""
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
