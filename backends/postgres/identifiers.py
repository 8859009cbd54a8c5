"""Names and constants of SQL: which names are possible, and how both are quoted. Pure."""

from typing import Annotated, Final

from pydantic import AfterValidator

IDENTIFIER_BYTES: Final = 63
"""The limit of a name in PostgreSQL."""


def check_identifier(text: str) -> str:
    """Return `text`; raise `ValueError` if no column, table or schema can have this name."""
    if not text or "\0" in text or len(text.encode(errors="replace")) > IDENTIFIER_BYTES:
        raise ValueError(f"must be a name of 1 to {IDENTIFIER_BYTES} bytes, as it is in the catalogue, without quotes")
    return text


Identifier = Annotated[str, AfterValidator(check_identifier)]
"""A name as it is in the database's catalogue: case-sensitive and without quotes."""


def quote_identifier(name: str) -> str:
    """Quote a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Quote text as an SQL string constant (standard_conforming_strings, on since 9.1)."""
    return "'" + text.replace("'", "''") + "'"
