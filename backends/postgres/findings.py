"""What the care of either Postgres backend is made of: findings, a connection, and running statements on request.

Knows no backend. Which statements, and what is a fault, is in `replication_care` and `notify_care`.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import asyncpg

from backends.contract import SourceError
from backends.postgres.notify.options import NotifyOptions
from backends.postgres.notify.session import Connection, ConnectionLost, open_connection
from backends.postgres.options import PostgresOptions
from backends.postgres.statements import one_line

SETUP: Final = "stream-relay backend setup"
STATEMENT_S: Final = 60.0
"""How long one statement of a set-up may take: a new slot waits for every transaction that is open, a trigger for the
writers of its table."""


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    WARNING = "warning"  # it works, not as well as it could
    FAILURE = "failure"  # it does not work


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked; a failure says what to run."""

    verdict: Verdict
    text: str


@asynccontextmanager
async def connected(options: PostgresOptions) -> AsyncIterator[Connection]:
    """Connect for as long as the block lasts; raise `SourceError` when that fails, or the connection is lost in it."""
    pooled = isinstance(options, NotifyOptions) and not options.notify
    try:
        connection = await open_connection(options, "care", pooled=pooled)
    except ConnectionLost as error:
        raise SourceError(f"{options.shown_dsn} cannot be reached: {error}") from error
    try:
        yield connection
    except ConnectionLost as error:
        raise SourceError(f"{options.shown_dsn} was lost: {error}") from error
    finally:
        await _close(connection)


async def _close(connection: Connection) -> None:
    try:
        await connection.close(timeout=1)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):  # TimeoutError is an OSError
        connection.terminate()


async def run_sql(options: PostgresOptions, statements: list[str]) -> None:
    """Run statements one after another; what is there already stays. Raise `SourceError` with the one that failed."""
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
                    "transactions that are open; see the oldest xact_start in pg_stat_activity"
                ) from None
            except (OSError, asyncpg.InterfaceError) as error:
                raise ConnectionLost(str(error) or type(error).__name__) from error


def holder(pid: int | None, client: str | None, application: str | None) -> str:
    """Name who reads."""
    if pid is None:
        return "-"
    return f"process {pid} of {client or 'a local client'}{f' ({application})' if application else ''}"
