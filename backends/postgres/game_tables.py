"""Read the tables of games: which slug the key in a row means.

Read at start, and when a row has a key that is not known; `mapping.game_slugs` says when.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from backends.contract import SourceError
from backends.postgres.database import ask, close_connection, open_connection
from backends.postgres.mapping.game_slugs import GameSlugs
from backends.postgres.mapping.table_options import schema_and_name
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement
from rounds import Catalogue

if TYPE_CHECKING:
    from backends.postgres.database import Connection

_ANSWER_S: Final = 15.0
_CLOSE_S: Final = 1.0


def games_of(options: PostgresOptions, catalogue: Catalogue) -> dict[str, GameSlugs]:
    """Make the games of each table of rounds, by its `TableOptions.source`; they are not read yet."""
    return {table.source: GameSlugs(table, catalogue) for table in options.all_tables}


def grants_on_games(options: PostgresOptions, role: str) -> list[str]:
    """Return the statements that let the role of ingest read the tables of games."""
    tables = dict.fromkeys(table.game_slug_table for table in options.all_tables if table.game_slug_table is not None)
    names = [schema_and_name(table) for table in tables]
    return [statement("grant_captured", schema=schema, table=name, role=role) for schema, name in names]


async def read_games(connection: "Connection", options: PostgresOptions, games: Iterable[GameSlugs]) -> None:
    """Read the tables of games; those without one are skipped.

    Raises:
        ConnectionLost: The connection broke.
        SourceError: There is no such table, it lacks a column, or our role may not read it.
    """
    for one in games:
        table = one.table
        if table.game_slug_table is None:
            continue
        schema, name = schema_and_name(table.game_slug_table)
        names = {"key_column": table.game_slug_table_key_column, "slug_column": table.game_slug_table_slug_column}
        sql = statement("read_games", schema=schema, table=name, **names)
        try:
            rows: list[Any] = await ask(options, connection.fetch(sql, timeout=_ANSWER_S))
        except SourceError as error:
            columns = ", ".join(f"{option.removeprefix('game_slug_')} {value!r}" for option, value in names.items())
            raise SourceError(
                f"the table of games {table.game_slug_table} with {columns} cannot be read: {error}"
            ) from error
        one.learn({row["game_key"]: row["slug"] for row in rows})


async def load_games(options: PostgresOptions, games: Iterable[GameSlugs]) -> None:
    """Read the tables of games over a connection of its own; errors as in `read_games`."""
    wanted = [one for one in games if one.table.game_slug_table is not None]
    if wanted:
        connection = await open_connection(options, "games")
        try:
            await read_games(connection, options, wanted)
        finally:
            await close_connection(connection, within_s=_CLOSE_S)
