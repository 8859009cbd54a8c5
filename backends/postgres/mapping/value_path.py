"""Where a value is in a row: a column, or a member of the JSON document in a column. Pure.

``payload.round.no`` is the column of that whole name if the table has one; else the member ``no`` of the member
``round`` of the column ``payload``. Quotes keep a dot in a name: ``"odd.name".x``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from backends.postgres.identifiers import check_identifier, quote_identifier, quote_literal
from backends.postgres.mapping.column_kinds import Kind, output_sql

_ADDRESS_OID: Final = 869
_PART: Final = re.compile(r'(?:"((?:[^"]|"")+)"|([^".]+))(?:\.(?=.)|\Z)', re.DOTALL)


class Place(NamedTuple):
    """A column of one table, and the JSON members that lead to the value; no members: the column itself."""

    column: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ValuePath:
    """A path as it is in the options."""

    text: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> "ValuePath":
        """Read a path; raise `ValueError` if no column can have its first name."""
        parts, at = [], 0
        while at < len(text):
            match = _PART.match(text, at)
            if match is None:
                parts = [text]  # not a path, but it may be the name of a column
                break
            parts.append(match[1].replace('""', '"') if match[1] else match[2])
            at = match.end()
        if not parts:
            parts = [text]
        check_identifier(parts[0])
        return cls(text, tuple(parts))

    def __str__(self) -> str:
        return self.text

    def place(self, columns: Sequence[str]) -> Place | None:
        """Find the value in a table with these columns; None: it has no such column."""
        if self.text in columns:
            return Place(self.text, ())
        if self.parts[0] in columns:
            return Place(self.parts[0], self.parts[1:])
        return None


def sql_of(place: Place, alias: str, kind: Kind) -> str:
    """Write an SQL expression of the value as text; NULL if the document has no such member.

    Args:
        place: Where the value is.
        alias: What the row is called in the statement.
        kind: Of the column. Booleans and char(n) are written as a cast writes them.
    """
    column = f"{alias}.{quote_identifier(place.column)}"
    if not place.members:
        return output_sql(column, _ADDRESS_OID) if kind is Kind.ADDRESS else f"{column}::text"
    path = ", ".join(quote_literal(member) for member in place.members)
    return f"({column}::jsonb #>> ARRAY[{path}])"
