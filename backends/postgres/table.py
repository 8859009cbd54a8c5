"""What the table of rounds is like, and the queries that read its rows in the order of a column.

Owns whether a column can order the rows. Which rows are read, and when, is up to the caller.
"""

from typing import TYPE_CHECKING, Any, Final

from backends.contract import SourceError
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement

if TYPE_CHECKING:
    from backends.postgres.database import Connection

OLDEST_VERSION: Final = 140000
"""The oldest ``server_version_num`` that both backends can read: PostgreSQL 14."""


async def read_table(connection: "Connection", options: PostgresOptions) -> dict[str, Any]:
    """Describe the server and the table, with the columns of ``sql/read_table.sql``.

    Raises:
        SourceError: There is no such table.
    """
    names = {"schema": options.schema_name, "table": options.table_name, "order_column": options.order}
    row = await connection.fetchrow(statement("read_table", **names))
    if row is None:
        raise SourceError(f"{options.shown_dsn} has no table {options.quoted_table}; set the option 'table'")
    return dict(row)


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


def game_type_column(options: PostgresOptions, columns: list[str]) -> str | None:
    """Name the column of the game type; None: the table has none. `columns` are those of the table."""
    return options.game_type_column or ("game_type" if "game_type" in columns else None)


def scan_statement(options: PostgresOptions, columns: list[str]) -> str:
    """Write the query for the rows of several ranges of ids; `columns` are those of the table."""
    return _rows_statement("scan_rows", options, columns)


def page_statement(options: PostgresOptions, columns: list[str]) -> str:
    """Write the query for the next page of one range of ids; `columns` are those of the table."""
    return _rows_statement("read_page", options, columns)


def _rows_statement(name: str, options: PostgresOptions, columns: list[str]) -> str:
    return statement(
        name,
        schema=options.schema_name,
        table=options.table_name,
        order_column=options.order,
        round_id=options.round_id_column,
        game_slug=options.game_slug_column,
        # Without a column of the game type any column will do: its value is dropped, see `mapping.item_of`.
        game_type=game_type_column(options, columns) or options.game_slug_column,
        finished_at=options.finished_at_column,
        extras=options.extras_column,
    )
