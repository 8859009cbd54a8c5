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

from backends.contract import SourceError, SourceUnavailable
from backends.postgres.database import Connection, ConnectionLost, close_connection, is_transient, open_connection
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.statements import one_line
from roundlog.client.library_errors import means_lost

SETUP_COMMAND: Final = "stream-relay backend setup"
STATEMENT_S: Final = 60.0
"""Limit of one statement of a set-up: creating a slot waits for every open transaction, and creating a trigger for the
writers of its table."""
_CONTESTED: Final = ("55006", "42704", "23505")
"""SQLSTATEs of a statement that met another process: it reads the slot, or has just dropped or created the object."""
_CHANGED: Final = "tuple concurrently"
"""The beginning of an internal error, never translated, when two sessions drop or change one object at once."""

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
    """Connect for as long as the block lasts; raise `SourceUnavailable` when that fails or the connection breaks."""
    try:
        connection = await open_connection(options, "admin")
    except ConnectionLost as error:
        raise SourceUnavailable(f"{options.shown_dsn} cannot be reached: {error}") from error
    try:
        yield connection
    except ConnectionLost as error:
        raise SourceUnavailable(f"the connection to {options.shown_dsn} was lost: {error}") from error
    finally:
        await close_connection(connection, within_s=_CLOSE_S)


async def run_sql(options: PostgresOptions, statements: list[str]) -> None:
    """Run statements in order; objects that exist already are kept.

    Raises:
        SourceUnavailable: A statement met another process or an open transaction, or the connection broke.
        SourceError: A statement was rejected; the text has it.
    """
    async with connected(options) as connection:
        for sql in statements:
            try:
                with suppress(asyncpg.DuplicateObjectError):
                    await connection.execute(sql, timeout=STATEMENT_S)
            except asyncpg.PostgresError as error:
                kind = SourceUnavailable if _passes(error) else SourceError
                raise kind(f"{error} ({error.sqlstate}) in: {one_line(sql)}") from error
            except TimeoutError:
                raise SourceUnavailable(
                    f"{options.shown_dsn} did not finish within {STATEMENT_S:g} s: {one_line(sql)} It waits for "
                    "open transactions; see the oldest xact_start in pg_stat_activity"
                ) from None
            except BaseException as error:
                if not (
                    isinstance(error, (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError))
                    or means_lost(error)
                ):
                    raise
                raise ConnectionLost(str(error) or type(error).__name__) from error


def _passes(error: asyncpg.PostgresError) -> bool:
    code = str(error.sqlstate or "")
    return is_transient(code) or code in _CONTESTED or str(error).startswith(_CHANGED)


def reader_name(pid: int | None, client: str | None, application: str | None) -> str:
    """Describe the process that reads a source, for `status`; ``-``: none does."""
    if pid is None:
        return "-"
    return f"process {pid} of {client or 'a local client'}{f' ({application})' if application else ''}"
