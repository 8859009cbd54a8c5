"""The extras of a round, composed of several columns. Pure.

NULL is omitted. Numbers and every type without a form in JSON become strings, digit for digit as PostgreSQL writes
them; booleans, arrays and JSON keep their form.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

from backends.postgres.mapping.column_kinds import ColumnType, Kind
from backends.postgres.mapping.condition import truth_of
from backends.postgres.mapping.json_documents import Row, read_json
from rounds import InvalidRound, stringify_extras

Reader = Callable[[Row], object]

_DECIMAL: Final = re.compile(r"([-+]?)([0-9]+)(?:\.([0-9]*))?")
_BOUNDS: Final = re.compile(r"(?:\[[-+0-9]+:[-+0-9]+\])+=")


def compose(members: Sequence[tuple[str, Reader]], row: Row) -> str:
    """Compose the extras of a row; raise `InvalidRound`."""
    return stringify_extras({name: value for name, read in members if (value := read(row)) is not None})


def column_reader(index: int, column_type: ColumnType, name: str) -> Reader:
    """Return a function that reads a column of a row as a value of JSON. `name`: of the member, for errors."""

    def read(row: Row) -> object:
        text = row[index]
        return None if text is None else value_of(text, column_type, name)

    return read


def shifted(read: Reader, digits: int, name: str) -> Reader:
    """Move the decimal point of a value to the left: 1172 by two digits is 11.72."""

    def read_shifted(row: Row) -> object:
        value = read(row)
        return None if value is None else shift(str(value), digits, name)

    return read_shifted


def value_of(text: str, column_type: ColumnType, name: str) -> object:
    """Read the text of a column as a value of JSON; raise `InvalidRound`."""
    match column_type.kind:
        case Kind.BOOLEAN:
            return truth_of(text)
        case Kind.CHAR:
            return text.rstrip(" ")
        case Kind.ADDRESS:  # a cast to text adds the length of the network, also that of one host
            return text.removesuffix("/128" if ":" in text else "/32")
        case Kind.JSON:
            return read_json(text, name)
        case Kind.ARRAY:
            return read_array(text, column_type, name)
        case _:
            return text


def shift(text: str, digits: int, name: str) -> str:
    """Move the decimal point of a decimal number to the left; raise `InvalidRound` if it is none."""
    match = _DECIMAL.fullmatch(text.strip())
    if match is None:
        raise InvalidRound(f"extras member {name!r:.40} is {text[:40]!r}; a value with a scale must be a number")
    sign, whole, fraction = match[1].replace("+", ""), match[2].rjust(digits + 1, "0"), match[3] or ""
    return f"{sign}{whole[:-digits].lstrip('0') or '0'}.{whole[-digits:]}{fraction}"


def read_array(text: str, column_type: ColumnType, name: str) -> list[object]:
    """Read the text of an array, see "Array Input and Output Syntax" in PostgreSQL's manual; raise `InvalidRound`."""
    bounds = _BOUNDS.match(text)
    at = bounds.end() if bounds else 0
    if text[at : at + 1] != "{":
        raise InvalidRound(f"extras member {name!r:.40} is {text[:40]!r}; it must be an array")
    reader = _ArrayReader(text, at + 1, column_type, name)
    try:
        return reader.elements()
    except (IndexError, RecursionError):
        raise InvalidRound(f"extras member {name!r:.40} is {text[:40]!r}; the array has no end") from None


class _ArrayReader:
    def __init__(self, text: str, at: int, column_type: ColumnType, name: str) -> None:
        self._text = text
        self._at = at
        self._element = ColumnType(column_type.element)
        self._delimiter = column_type.delimiter
        self._ends = frozenset((column_type.delimiter, "}"))
        self._name = name

    def elements(self) -> list[object]:
        """Read up to the closing brace; raise `IndexError` if there is none."""
        found: list[object] = []
        while True:
            character = self._text[self._at]
            if character == "}":
                self._at += 1
                return found
            if character == self._delimiter:
                self._at += 1
            elif character == "{":
                self._at += 1
                found.append(self.elements())
            elif character == '"':
                self._at += 1
                found.append(value_of(self._quoted(), self._element, self._name))
            else:
                bare = self._bare()
                # Only without quotes is it no text.
                found.append(None if bare == "NULL" else value_of(bare, self._element, self._name))

    def _quoted(self) -> str:
        parts, begin = [], self._at
        while True:
            character = self._text[self._at]
            if character == "\\":
                parts.append(self._text[begin : self._at])
                begin = self._at + 1
                self._at += 2
            elif character == '"':
                parts.append(self._text[begin : self._at])
                self._at += 1
                return "".join(parts)
            else:
                self._at += 1

    def _bare(self) -> str:
        begin = self._at
        while self._text[self._at] not in self._ends:
            self._at += 1
        return self._text[begin : self._at]
