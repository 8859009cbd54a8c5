"""The SQL files of this package, and how values get into them: as psql variables, so that psql runs the same files.

``:'name'`` becomes a string constant, ``:"name"`` an identifier. ``psql -v slot=stream_relay -f create_slot.sql``
"""

import re
from functools import cache
from importlib import resources
from typing import Final

from backends.postgres.options import quote_identifier, quote_literal

_COMMENT: Final = re.compile(r"^--.*\n", re.MULTILINE)
_VARIABLE: Final = re.compile(r""":'(?P<literal>\w+)'|:"(?P<identifier>\w+)\"""")


def statement(name: str, **values: str) -> str:
    """Return the statement in ``sql/<name>.sql`` with `values` in offset of its variables, without its comments."""

    def value(match: re.Match[str]) -> str:
        if match["literal"]:
            return quote_literal(values[match["literal"]])
        return quote_identifier(values[match["identifier"]])

    return _VARIABLE.sub(value, _text(name))


def one_line(sql: str) -> str:
    """Write a statement so that it can stand in a sentence, and be pasted from it."""
    return " ".join(sql.split()) + ";"


@cache
def _text(name: str) -> str:
    return _COMMENT.sub("", resources.files(__package__).joinpath("sql", f"{name}.sql").read_text("utf-8")).strip()
