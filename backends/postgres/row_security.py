"""Refuse tables whose rows row level security hides from our role: they would be passed over in silence.

Sessions that read rows have ``row_security = off`` (`database`), which turns hiding into an error. That also refuses
policies that show us all rows; for those it is switched on again.
"""

from typing import Any

from backends.contract import SourceError
from backends.postgres.database import Connection, ask
from backends.postgres.identifiers import quote_identifier
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import statement


async def refuse_hidden_rows(
    options: PostgresOptions, connection: Connection, table: TableOptions, *, timeout_s: float
) -> None:
    """Raise `SourceError` if some rows of the table are hidden; let the session read it if a policy shows all of them.

    Raises:
        ConnectionLost: The connection broke, or there was no answer in time.
        SourceError: Rows are hidden; the text says what to run.
    """
    sql = statement("read_row_security")
    row: Any = await ask(options, connection.fetchrow(sql, table.quoted_table, timeout=timeout_s))
    if row is None or not row["is_active"]:
        return
    if not row["shows_all"]:
        raise SourceError(hidden_sentence(options, table.quoted_table, row["role"]))
    if not options.is_pooled:  # there it is never switched off
        await ask(options, connection.execute("SET row_security = on", timeout=timeout_s))


def hidden_sentence(options: PostgresOptions, quoted_table: str, role: str) -> str:
    """Write the error for a table whose policies may hide rows from `role`."""
    name = quote_identifier(role)
    return (
        f"row level security of {quoted_table} on {options.shown_dsn} may hide rows from our role {name}; run as a "
        f"superuser: ALTER ROLE {name} BYPASSRLS; or as the owner of the table: "
        f"CREATE POLICY stream_relay_reads ON {quoted_table} FOR SELECT TO {name} USING (true);"
    )
