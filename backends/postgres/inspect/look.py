"""Look at a database: its tables and views, their keys, and samples of their rows. Reads only, within bounds.

Owns what is asked of the database. Judges nothing: see `backends.postgres.inspect.propose`.
"""

from collections.abc import Sequence
from typing import Any, Final

import asyncpg

from backends.postgres.database import Connection, ask
from backends.postgres.identifiers import quote_identifier
from backends.postgres.inspect.facts import ColumnFacts, ForeignKey, Rows, ServerFacts, TableFacts
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement
from backends.postgres.table import agreed

SAMPLE_ROWS: Final = 200
"""Rows of a sample: enough to see the games and states of a table, and read in milliseconds."""
_VALUE_CHARS: Final = 16_384
"""Limit of one value of a sample."""
_ANSWER_S: Final = 15.0


async def look_at_server(connection: Connection, options: PostgresOptions) -> ServerFacts:
    """Describe the server and the database."""
    row: Any = await ask(options, connection.fetchrow(statement("describe_server"), timeout=_ANSWER_S))
    return ServerFacts(**dict(row))


async def look_at_tables(
    connection: Connection, options: PostgresOptions, names: Sequence[str] | None = None
) -> list[TableFacts]:
    """Describe the tables and views of the database.

    Args:
        names: Those that are wanted, as ``schema.table``; None: all.
    """
    found = await ask(options, connection.fetch(statement("list_tables"), timeout=_ANSWER_S))
    if names is not None:
        found = [row for row in found if f"{row['schema_name']}.{row['table_name']}" in names]
    return await _described(connection, options, found)


async def sample(
    connection: Connection, options: PostgresOptions, table: TableFacts, *, rows: int = SAMPLE_ROWS
) -> Rows | None:
    """Read some rows of a table as text: the newest, where a key of one column orders them.

    Returns:
        None: the rows cannot be read: no right, no answer in time, or text that is not UTF-8.
    """
    if not table.may_read or not table.columns:
        return None
    columns = ", ".join(
        f"left(t.{quote_identifier(column.name)}::text, {_VALUE_CHARS}) AS {quote_identifier(column.name)}"
        for column in table.columns
    )
    sql = f"SELECT {columns} FROM {table.quoted} AS t{newest_first(table)} LIMIT {rows:d}"  # noqa: S608
    try:
        async with connection.transaction(readonly=True):
            found = await connection.fetch(sql, timeout=_ANSWER_S)
    except (asyncpg.PostgresError, TimeoutError, UnicodeDecodeError):
        return None
    return [dict(row) for row in found]


def newest_first(table: TableFacts) -> str:
    """Write the ORDER BY of a table, called t, by a key that is indexed, newest first; empty: it has none."""
    keys = [key for key in (table.primary_key, *table.unique_keys) if key]
    leading = [key[0] for key in keys if len(key) == 1 or table.by_name[key[0]].is_sequenced]
    grows = [name for name in leading if table.by_name[name].base_type in ("int2", "int4", "int8", "numeric")]
    return f" ORDER BY t.{quote_identifier(grows[0])} DESC" if grows else ""


async def _described(connection: Connection, options: PostgresOptions, found: Sequence[Any]) -> list[TableFacts]:
    oids = [row["oid"] for row in found]

    async def read() -> tuple[Sequence[Any], Sequence[Any]]:
        columns = await ask(options, connection.fetch(statement("list_columns"), oids, timeout=_ANSWER_S))
        return columns, await ask(options, connection.fetch(statement("list_keys"), oids, timeout=_ANSWER_S))

    columns, keys = await agreed(read)  # so that each key is of columns that were read
    columns_of: dict[int, list[Any]] = {}
    for column in columns:
        columns_of.setdefault(column["table_oid"], []).append(column)
    keys_of: dict[int, list[Any]] = {}
    for key in keys:
        keys_of.setdefault(key["table_oid"], []).append(key)
    return [_table(row, columns_of.get(row["oid"], []), keys_of.get(row["oid"], [])) for row in found]


def _table(row: Any, columns: Sequence[Any], keys: Sequence[Any]) -> TableFacts:
    unique = [key for key in keys if key["kind"] in ("primary", "unique")]
    return TableFacts(
        oid=row["oid"],
        schema=row["schema_name"],
        name=row["table_name"],
        kind=row["kind"],
        columns=tuple(map(_column, columns)),
        primary_key=next((tuple(key["columns"] or ()) for key in unique if key["kind"] == "primary"), ()),
        unique_keys=tuple(tuple(key["columns"] or ()) for key in unique),
        foreign_keys=tuple(
            ForeignKey(tuple(key["columns"]), key["target_oid"], tuple(key["target_columns"]))
            for key in keys
            if key["kind"] == "foreign"
        ),
        checks=tuple(key["expression"] for key in keys if key["kind"] == "check"),
        persistence=row["persistence"],
        identity=row["identity"],
        has_row_security=row["has_row_security"],
        hides_rows=row["hides_rows"],
        may_read=row["may_read"],
        estimated_rows=row["estimated_rows"],
        inserted=row["inserted"],
        updated=row["updated"],
        children=tuple(row["children"]),
        is_child=row["is_child"],
        owner=row["owner"],
    )


def _column(row: Any) -> ColumnFacts:
    return ColumnFacts(
        name=row["name"],
        type_oid=row["type_oid"],
        base_type=row["base_type"],
        type_name=row["type_name"],
        is_enum=row["category"] == "E",
        labels=tuple(row["labels"]),
        not_null=row["not_null"],
        is_generated=row["generated"] != "",
        is_sequenced=row["sequenced"],
        default=row["default_text"],
    )
