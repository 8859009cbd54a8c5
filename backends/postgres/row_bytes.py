"""Read rows whose text may be no UTF-8: in a database with encoding SQL_ASCII, or with bytes that its encoding lacks.

Owns the second query that such rows need: PostgreSQL refuses to convert a value, or sends bytes that are no UTF-8, and
the whole query fails. The values are then read as bytes and decoded one by one, so that only their rows are rejected.
"""

from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

import asyncpg

from backends.postgres.database import Connection, ask, query_text
from backends.postgres.encodings import codec_of, readable, why_not_text
from backends.postgres.identifiers import quote_identifier, quote_literal
from backends.postgres.postgres_options import PostgresOptions

T = TypeVar("T")

_NOT_CONVERTED: Final = ("22P05", "22021")
"""SQLSTATEs: a character has no equivalent in UTF-8, or is not valid in the encoding of the database."""


async def fetch_rows(
    options: PostgresOptions,
    connection: Connection,
    sql: str,
    *arguments: object,
    columns: Sequence[str],
    timeout_s: float,
) -> Sequence[Any]:
    """Run a query for rows with ``row_values``, a list of text for each, and with `columns`, which hold no text.

    If some text cannot be read, the rows are dictionaries; those with such text have the key ``fault``, a sentence, and
    their bytes are escaped.

    Raises:
        ConnectionLost: The connection broke, or there was no answer in time.
        SourceError: The server rejected the query.
    """
    # A value that the server refuses to convert would end the transaction around the query. UTF-8 is never converted.
    is_at_risk = connection.is_in_transaction() and connection.get_settings().server_encoding != "UTF8"
    if is_at_risk:
        await ask(options, connection.execute("SAVEPOINT text", timeout=timeout_s))
    try:
        rows: Sequence[Any] = await ask(
            options, _readable(query_text(options, connection, sql, *arguments, timeout_s=timeout_s))
        )
        return rows
    except _UnreadableText:
        if is_at_risk:
            await ask(options, connection.execute("ROLLBACK TO SAVEPOINT text", timeout=timeout_s))
        encoding = await ask(options, connection.fetchval("SELECT getdatabaseencoding()::text", timeout=timeout_s))
        answer = query_text(options, connection, _as_bytes(sql, columns, encoding), *arguments, timeout_s=timeout_s)
        return [decoded(dict(row), encoding) for row in await ask(options, answer)]


def decoded(row: dict[str, Any], encoding: str) -> dict[str, Any]:
    """Replace the bytes in ``row_values`` by text; name the first that is none in ``fault``.

    Args:
        row: A row with ``row_values``, a list of bytes and None.
        encoding: PostgreSQL's name of the encoding of the database.
    """
    name = codec_of(encoding) or "ascii"
    values: list[str | None] = []
    for value in row["row_values"]:
        try:
            values.append(None if value is None else value.decode(name))
        except UnicodeDecodeError as error:
            values.append(readable(value, name))
            row.setdefault("fault", why_not_text(error, name))
    row["row_values"] = values
    return row


class _UnreadableText(Exception):
    """Some text of the rows is no UTF-8."""


async def _readable(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except UnicodeDecodeError as error:
        raise _UnreadableText from error
    except asyncpg.PostgresError as error:
        if str(error.sqlstate or "") in _NOT_CONVERTED:
            raise _UnreadableText from error
        raise


def _as_bytes(sql: str, columns: Sequence[str], encoding: str) -> str:
    """Rewrite a query so that it returns the bytes of each text as they are stored."""
    others = ", ".join(f"r.{quote_identifier(name)}" for name in columns)
    # Converting to the encoding that the text already has changes nothing, and checks nothing.
    return (  # our own statements
        f"SELECT {others}, ARRAY(SELECT pg_catalog.convert_to(u.value, {quote_literal(encoding)}) "  # noqa: S608
        "FROM pg_catalog.unnest(r.row_values) WITH ORDINALITY AS u (value, place) ORDER BY u.place) AS row_values "
        f"FROM ({sql}) AS r"
    )
