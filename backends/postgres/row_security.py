"""Refuse tables whose rows row level security hides from our role: they would be passed over in silence.

The session then has ``row_security = off``, which turns hiding into an error if a policy comes later. That also refuses
policies that show us all rows; with those it stays on.
"""

from typing import Any

from backends.contract import SourceError
from backends.postgres.database import Connection, ask
from backends.postgres.identifiers import quote_identifier
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement


async def refuse_hidden_rows(
    options: PostgresOptions, connection: Connection, table: TableOptions, *, timeout_s: float, alone: bool = True
) -> None:
    """Raise `SourceError` if some rows of the table are hidden; make the session fail if that changes.

    Args:
        options: Where the database is.
        connection: The session that reads.
        table: What it reads.
        timeout_s: Limit of the query.
        alone: Whether the session reads no other table meanwhile, of which a policy may show all rows.

    Raises:
        ConnectionLost: The connection broke, or there was no answer in time.
        SourceError: Rows are hidden; the text says what to run.
    """
    sql = statement("read_row_security")
    # A session of a pooler is shared, so its settings are not changed.
    fetch = connection.fetchrow(sql, table.quoted_table, alone and not options.is_pooled, timeout=timeout_s)
    row: Any = await ask(options, fetch)
    if row is not None and row["is_active"] and not row["shows_all"]:
        raise SourceError(hidden_sentence(options, table.quoted_table, row["role"]))


def hidden_sentence(options: PostgresOptions, quoted_table: str, role: str) -> str:
    """Write the error for a table whose policies may hide rows from `role`."""
    name = quote_identifier(role)
    return (
        f"row level security of {quoted_table} on {options.shown_dsn} may hide rows from our role {name}; run as a "
        f"superuser: ALTER ROLE {name} BYPASSRLS; or as the owner of the table: "
        f"CREATE POLICY stream_relay_reads ON {quoted_table} FOR SELECT TO {name} USING (true);"
    )
