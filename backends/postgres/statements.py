"""Read the SQL files of this package, and substitute psql variables, so that psql runs the same files.

``:'name'`` becomes a string constant, ``:"name"`` an identifier, and ``:name`` the text of ``name.sql``, or of SQL that
is composed by the caller, such as a list of columns.
``psql -v slot=stream_relay -f create_slot.sql``
"""

import re
from functools import cache
from importlib import resources
from typing import Final

from backends.postgres.identifiers import quote_identifier, quote_literal

_COMMENT: Final = re.compile(r"^--.*\n", re.MULTILINE)
_FRAGMENT: Final = re.compile(r"(?<= ):(?P<name>[a-z_]+)")
_VARIABLE: Final = re.compile(rf""":'(?P<literal>\w+)'|:"(?P<identifier>\w+)"|{_FRAGMENT.pattern}""")
_COMPOSED: Final = frozenset(
    {"published_tables", "row_values", "row_key", "is_finished", "is_ours", "old_values", "new_values", "is_same_key"}
)
"""Fragments that are no files."""


def statement(name: str, **values: str) -> str:
    """Return the statement in ``sql/<name>.sql`` without its comments, with `values` in place of its variables."""

    def value(match: re.Match[str]) -> str:
        if match["literal"]:
            return quote_literal(values[match["literal"]])
        if match["identifier"]:
            return quote_identifier(values[match["identifier"]])
        return values[match["name"]]

    # In one pass, so that nothing is replaced within a value.
    return _VARIABLE.sub(value, _text(name))


def one_line(sql: str) -> str:
    """Write a statement on one line with a semicolon, to be quoted in a sentence and pasted from it."""
    return " ".join(sql.split()) + ";"


@cache
def _text(name: str) -> str:
    text = resources.files(__package__).joinpath("sql", f"{name}.sql").read_text("utf-8")

    def included(match: re.Match[str]) -> str:
        return match[0] if match["name"] in _COMPOSED else _text(match["name"])

    return _FRAGMENT.sub(included, _COMMENT.sub("", text).strip())
