"""Which types of columns have a text form of their own. Pure.

Only those matter that are written in two forms (``t`` and ``true``, padded ``char(n)``) or that a composed object does
not write as a string: booleans, JSON, arrays.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple


class Kind(StrEnum):
    """How the text of a column is read."""

    TEXT = "text"  # also every type without a rule of its own: numbers, times, ranges, enums
    BOOLEAN = "boolean"  # t and f, or true and false
    CHAR = "char"  # padded with spaces, which are not part of the value
    NUMBER = "number"
    UUID = "uuid"
    ADDRESS = "address"  # inet: a cast to text adds the length of the network
    JSON = "json"
    ARRAY = "array"


class ColumnType(NamedTuple):
    """The kind of a type; for an array also the kind of its elements and what separates them."""

    kind: Kind
    element: Kind = Kind.TEXT
    delimiter: str = ","


class Column(NamedTuple):
    """A column of a table."""

    name: str
    type_oid: int = 25
    """Its type in ``pg_type``; the default is ``text``."""


_TEXT: Final = ColumnType(Kind.TEXT)
_ELEMENTS: Final = {
    Kind.BOOLEAN: {16: 1000},
    Kind.CHAR: {1042: 1014},
    Kind.NUMBER: {20: 1016, 21: 1005, 23: 1007, 26: 1028, 700: 1021, 701: 1022, 1700: 1231},
    Kind.UUID: {2950: 2951},
    Kind.JSON: {114: 199, 3802: 3807},
    Kind.ADDRESS: {869: 1041},
    Kind.TEXT: {17: 1001, 18: 1002, 19: 1003, 25: 1009, 1043: 1015, 1082: 1182, 1083: 1183, 1114: 1115, 1184: 1185,
                1186: 1187, 1266: 1270, 790: 791, 650: 651, 829: 1040, 1560: 1561, 1562: 1563, 142: 143,
                600: 1017, 3904: 3905, 3906: 3907, 3908: 3909, 3910: 3911, 3912: 3913, 3926: 3927},
}  # fmt: skip
"""The types of pg_catalog by kind, each with its array type. A box is missing, since ``;`` separates boxes."""

BUILT_IN_TYPES: Final[Mapping[int, ColumnType]] = {
    oid: column_type
    for kind, types in _ELEMENTS.items()
    for one, many in types.items()
    for oid, column_type in ((one, ColumnType(kind)), (many, ColumnType(Kind.ARRAY, kind)))
} | {1020: ColumnType(Kind.ARRAY, Kind.TEXT, ";")}
"""By the OID in ``pg_type``; the OIDs of pg_catalog never change."""


_OTHER_CASTS: Final = frozenset((16, 18, 869, 1042))
"""Types whose cast to text is not what their output function writes."""


def output_sql(value: str, oid: int) -> str:
    """Write an SQL expression of a value as its output function writes it, which is what pgoutput sends."""
    if oid in BUILT_IN_TYPES and oid not in _OTHER_CASTS:
        return f"{value}::text"
    # %s calls the output function, but makes an empty text of NULL.
    return f"CASE WHEN {value} IS NOT NULL THEN pg_catalog.format('%s', {value}) END"


def own_types_of(rows: Iterable[Mapping[str, Any]]) -> dict[int, ColumnType]:
    """Return the types that ``sql/read_types.sql`` found, by OID; the values may be text."""
    found = {}
    for row in rows:
        base = BUILT_IN_TYPES.get(int(row["base_oid"] or 0), _TEXT)
        is_array = row["is_array"] in (True, "t")
        delimiter = row["delimiter"] or ","
        found[int(row["type_oid"])] = ColumnType(Kind.ARRAY, base.kind, delimiter) if is_array else base
    return found


def column_type(oid: int, own_types: Mapping[int, ColumnType] | None = None) -> ColumnType:
    """Return how a type is read; a type that is not known is read as text.

    Args:
        oid: The type in ``pg_type``.
        own_types: The types of this database: domains, and arrays of enums.
    """
    return BUILT_IN_TYPES.get(oid) or (own_types or {}).get(oid) or _TEXT
