"""``stream-relay backend preview``: what the rows of the tables become with the settings in force. Reads only."""

import json

import typer

from backends.contract import SourceUnavailable
from backends.postgres.database import ConnectionLost, close_connection, open_connection
from backends.postgres.inspect.preview import preview_tables
from backends.postgres.source_admin import SourceAdmin
from relay.commands.backend.init_report import preview_value, print_preview
from rounds import Catalogue

_CLOSE_S = 1.0


async def preview(admin: SourceAdmin, catalogue: Catalogue, *, rounds: int, as_json: bool) -> None:
    """Print some rounds of each table, and what its other rows are.

    Raises:
        SourceError: A table or a column is missing, or the server cannot be queried.
    """
    options = admin.options
    try:
        connection = await open_connection(options, "preview")
        try:
            shown = await preview_tables(connection, options, catalogue, rounds=rounds)
        finally:
            await close_connection(connection, within_s=_CLOSE_S)
    except ConnectionLost as error:
        raise SourceUnavailable(f"{options.shown_dsn} cannot be reached: {error}") from error
    if as_json:
        typer.echo(json.dumps(list(map(preview_value, shown)), indent=2, ensure_ascii=False))
        return
    if not shown:
        typer.echo("no table is read with these settings")
    for each in shown:
        typer.echo(f"table {each.table.source}:")
        print_preview(each)
