"""What the source admins of both Postgres backends share: findings, a connection, and running SQL statements.

Knows no backend. Which statements run, and what is a fault, is decided in `notify.notify_admin` and
`replication.replication_admin`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import asyncpg

from backends.contract import SourceError
from backends.postgres.database import Connection, ConnectionLost, close_connection, open_connection
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import one_line

SETUP_COMMAND: Final = "stream-relay backend setup"
STATEMENT_S: Final = 60.0
"""Limit of one statement of a set-up: creating a slot waits for every open transaction, and creating a trigger for the
writers of its table."""

_CLOSE_S: Final = 1.0


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"  # it works, but not as well as it could
    FAILURE = "failure"  # it does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; the text of a failure says what to run."""

    verdict: Verdict
    text: str


@asynccontextmanager
async def connected(options: PostgresOptions) -> AsyncIterator[Connection]:
    """Connect for as long as the block lasts; raise `SourceError` when that fails, or when the connection breaks."""
    try:
        connection = await open_connection(options, "admin")
    except ConnectionLost as error:
        raise SourceError(f"{options.shown_dsn} cannot be reached: {error}") from error
    try:
        yield connection
    except ConnectionLost as error:
        raise SourceError(f"the connection to {options.shown_dsn} was lost: {error}") from error
    finally:
        await close_connection(connection, within_s=_CLOSE_S)


async def run_sql(options: PostgresOptions, statements: list[str]) -> None:
    """Run statements in order; objects that exist already are kept. Raise `SourceError` with the one that failed."""
    async with connected(options) as connection:
        for sql in statements:
            try:
                with suppress(asyncpg.DuplicateObjectError):
                    await connection.execute(sql, timeout=STATEMENT_S)
            except asyncpg.PostgresError as error:
                raise SourceError(f"{error} ({error.sqlstate}) in: {one_line(sql)}") from error
            except TimeoutError:
                raise SourceError(
                    f"{options.shown_dsn} did not finish within {STATEMENT_S:g} s: {one_line(sql)} It waits for "
                    "open transactions; see the oldest xact_start in pg_stat_activity"
                ) from None
            except (OSError, asyncpg.InterfaceError) as error:
                raise ConnectionLost(str(error) or type(error).__name__) from error


def reader_name(pid: int | None, client: str | None, application: str | None) -> str:
    """Describe the process that reads a source, for `status`; ``-``: none does."""
    if pid is None:
        return "-"
    return f"process {pid} of {client or 'a local client'}{f' ({application})' if application else ''}"
