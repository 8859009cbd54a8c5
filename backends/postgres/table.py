"""What the table of rounds is like, and the queries that read its rows in the order of a column.

Owns whether a column can order the rows. Which rows are read, and when, is up to the caller.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from backends.contract import SourceError
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement

if TYPE_CHECKING:
    from backends.postgres.database import Connection

OLDEST_VERSION: Final = 140000
"""The oldest ``server_version_num`` that both backends can read: PostgreSQL 14."""
_TRIES: Final = 5
"""How often the catalogs are read again that are changed meanwhile."""
T = TypeVar("T")
KINDS: Final[Mapping[str, str]] = {
    "v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "i": "an index",
    "I": "an index", "c": "a type",
}  # fmt: skip
"""What is no table, by `relkind`."""


async def agreed(read: Callable[[], Awaitable[T]], *, on: Callable[[T], object] = lambda answer: answer) -> T:
    """Read the catalogs until two answers agree, at most a few times; return the first of the two.

    `on` returns what of an answer has to be the same in both; by default all of it.

    Functions such as ``to_regclass`` and ``pg_get_expr`` show the newest state, and some wait for a lock; the catalogs
    show what the snapshot of the query does. While a table is replaced, one answer may so be of both tables.
    """
    answer = await read()
    for _ in range(_TRIES):
        before, answer = answer, await read()
        if on(answer) == on(before):
            return before
    return answer


async def read_table(
    connection: "Connection", options: PostgresOptions, table: TableOptions | None = None, *, also: str | None = None
) -> dict[str, Any]:
    """Describe the server and one table, by default that of `options`, with the columns of ``sql/read_table.sql``, and
    of the SQL file `also`, which gets the same variables.

    Raises:
        SourceError: There is no such table.
    """
    table = table or options
    names = {"schema": table.schema_name, "table": table.table_name, "order_column": table.order}
    queries = [statement(name, **names) for name in ("read_table", also) if name is not None]

    async def read() -> dict[str, Any]:
        described: dict[str, Any] = {}
        for sql in queries:
            row: Any = await connection.fetchrow(sql)
            if row is None:
                break
            described |= row
        return described

    described = await agreed(read)
    if not described:
        await require_table(connection, options, table)
        raise SourceError(f"table {table.quoted_table} was created just now; run this again")
    return described


async def require_table(connection: "Connection", options: PostgresOptions, table: TableOptions) -> None:
    """Raise `SourceError` if there is no such table; the text says what there is by its name."""
    found: Any = await connection.fetchrow(relation_statement(table))
    if (fault := why_no_table(options, table, found)) is not None:
        raise SourceError(fault)


def relation_statement(table: TableOptions) -> str:
    """Write the query for `why_no_table`."""
    return statement("read_relation", schema=table.schema_name, table=table.table_name)


def why_no_table(options: PostgresOptions, table: TableOptions, found: Mapping[str, Any]) -> str | None:
    """Say that there is no such table, and what there is; None: it is a table.

    Args:
        options: Where the database is.
        table: The table.
        found: The row of ``sql/read_relation.sql``.
    """
    kind, others = found["kind"], found["others"]
    if kind in ("r", "p"):
        return None
    if kind is None:
        to = f" to one of {others}" if others and "," in others else f" to {others}" if others else ""
        return f"{options.shown_dsn} has no table {table.quoted_table}; set the option 'table'{to}"
    reads = f": it reads {found['tables_read']}" if found["tables_read"] else ""
    what = f"{table.quoted_table} on {options.shown_dsn} is {KINDS.get(kind, 'no table')}"
    return f"{what}, which has no rows of its own to capture; set the option 'table' to a table{reads}"


def has_unique_order(table: dict[str, Any], *, is_named: bool) -> bool:
    """Whether no two rows can have the same value in the order column: the second one would be taken for the first.

    An index over all partitions cannot be unique on this column alone, so a sequence has to number the rows. A column
    that an INSERT may set itself counts only if the operator named it: the default, the round id, may be numbered by
    each game.

    Args:
        table: As `read_table` returns it.
        is_named: Whether the operator chose the order column.
    """
    if table["is_unique"]:
        return True
    may_be_set = table["numbered"] == "by default" and is_named
    return bool(table["is_partitioned"] and table["is_indexed"] and (table["numbered"] == "always" or may_be_set))


def columns_of(table: Mapping[str, Any]) -> list[Column]:
    """Return the columns of a table as the mapper takes them; `table` is as `read_table` returns it."""
    return [Column(*column) for column in zip(table["columns"] or [], table["column_types"] or [], strict=True)]


def scan_statement(mapper: TableMapper) -> str:
    """Write the query for the rows of several ranges of ids."""
    return _rows_statement("scan_rows", mapper)


def page_statement(mapper: TableMapper) -> str:
    """Write the query for the next page of one range of ids."""
    return _rows_statement("read_page", mapper)


def _rows_statement(name: str, mapper: TableMapper) -> str:
    options = mapper.table
    return statement(
        name,
        schema=options.schema_name,
        table=options.table_name,
        order_column=options.order,
        row_values=mapper.values_sql("t"),
        # As hexadecimal digits: it comes back as an argument, and text of a row need not exist in UTF-8, nor text of
        # ours in the encoding of the database.
        row_key=f"encode(convert_to({mapper.key_sql('t')}, getdatabaseencoding()), 'hex')",
    )
