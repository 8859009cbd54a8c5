"""Connect to PostgreSQL with asyncpg, and turn its errors into ours.

Owns how rows, set-up and status are queried. Replication streams do not come here: see
`backends.postgres.replication.protocol`.
"""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeAlias, TypeVar

import asyncpg

from backends.contract import SourceError
from backends.postgres.dsn import UnsupportedParameter
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.session_settings import (
    TRANSACTION_TIMEOUT,
    TRANSACTION_TIMEOUT_SINCE,
    for_transaction,
    session_settings,
)
from roundlog.client.library_errors import means_lost

_KEEPALIVE: Final = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""The server drops the session of a vanished client within half a minute, and releases its locks."""

_DROPPED: Final = "could not open relation with OID"
"""The beginning of an internal error, never translated, of a query during which its table was dropped or replaced."""
_TRANSIENT: Final = ("08", "53", "57", "40", "55P03", "25006")
"""SQLSTATE classes of errors that pass: connection, resources, shutdown, deadlock, lock; and a demoted primary."""

Connection: TypeAlias = "asyncpg.Connection[Any]"

T = TypeVar("T")


class ConnectionLost(Exception):
    """A connection broke or cannot be made now. A new one may work."""


async def open_connection(options: PostgresOptions, role: str) -> Connection:
    """Open a connection whose session writes rows as `mapping.text_forms` reads them.

    Behind a pooler in transaction mode, only `query_text` does so.

    Args:
        options: Where the database is, and whether a pooler is in between.
        role: What the connection is for, as ``application_name`` shows it. ``admin`` changes the database.

    Raises:
        ConnectionLost: The server cannot be reached now.
        SourceError: The server cannot be used with these options.
    """
    pooled = options.is_pooled
    reads = role != "admin"
    own = {**session_settings(reads=reads), **_KEEPALIVE, "application_name": f"stream-relay {role}"}
    settings = {} if pooled else own
    try:
        target = options.target.for_asyncpg(options.connect_timeout_s)
    except UnsupportedParameter as error:
        raise SourceError(str(error)) from None
    connect = asyncpg.connect(
        **target.arguments,
        # A pooler in transaction mode gives each transaction another server process, without our prepared statements.
        statement_cache_size=0 if pooled else 100,
        server_settings=settings,
    )
    connection: Connection = await ask(options, connect)
    if not pooled and reads and connection.get_server_version() >= (TRANSACTION_TIMEOUT_SINCE // 10000,):
        try:
            await ask(options, connection.execute(TRANSACTION_TIMEOUT, timeout=options.connect_timeout_s))
        except BaseException:
            terminate(connection)
            raise
    return connection


async def query_text(
    options: PostgresOptions, connection: Connection, sql: str, *arguments: object, timeout_s: float
) -> list[Any]:
    """Run a query whose values are read as text by `backends.postgres.mapping`. Await it within `ask`."""
    if not options.is_pooled:
        rows: list[Any] = await connection.fetch(sql, *arguments, timeout=timeout_s)
        return rows
    # Not with asyncpg's `transaction`: over a connection that has stalled, its ROLLBACK would wait without limit.
    begins = not connection.is_in_transaction()
    await connection.execute(f"{'BEGIN; ' if begins else ''}{for_transaction()}", timeout=timeout_s)
    try:
        found: list[Any] = await connection.fetch(sql, *arguments, timeout=timeout_s)
    except (asyncpg.PostgresError, UnicodeDecodeError):
        if begins:
            await connection.execute("ROLLBACK", timeout=timeout_s)
        raise
    if begins:
        await connection.execute("COMMIT", timeout=timeout_s)
    return found


async def ask(options: PostgresOptions, answer: Awaitable[T]) -> T:
    """Await a call of asyncpg, such as a query or a connection attempt, and return its result.

    Raises:
        ConnectionLost: The connection broke, there was no answer in time, or the server cannot answer now.
        SourceError: The server rejected the call. Repeating it does not help.
    """
    try:
        return await answer
    except asyncpg.PostgresError as error:
        raise _translated(options, error) from error
    except asyncpg.ClientConfigurationError as error:
        raise SourceError(f"{options.shown_dsn}: {error}") from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:  # TimeoutError is an OSError
        raise ConnectionLost(str(error) or f"no answer ({type(error).__name__})") from error
    except BaseException as error:
        if not means_lost(error):
            raise
        raise ConnectionLost(str(error) or type(error).__name__) from error


async def close_connection(connection: Connection, *, within_s: float) -> None:
    """Close a connection, also one that is lost. If the server does not answer in time, only the socket is closed."""
    try:
        async with asyncio.timeout(within_s):
            await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        terminate(connection)  # TimeoutError is an OSError
    except BaseException as error:
        terminate(connection)
        if not means_lost(error):
            raise


def terminate(connection: Connection) -> None:
    """Close the socket of a connection at once; do nothing when it is closed."""
    try:
        connection.terminate()
    except Exception as error:
        if not (isinstance(error, (OSError, asyncpg.InterfaceError)) or means_lost(error)):
            raise


def pooler_sentence(options: PostgresOptions, sign: str) -> str:
    """Write the error for a pooler in transaction mode. `sign`: how it was recognised."""
    return (
        f"{options.shown_dsn} looks like a pooler in transaction mode ({sign}), where LISTEN does not work; set the "
        f"option 'dsn' to the server itself or a pool in session mode, or notify=false to poll only"
    )


def is_transient(sqlstate: str) -> bool:
    """Say whether an error with this SQLSTATE passes without an operator."""
    return sqlstate.startswith(_TRANSIENT)


def _translated(options: PostgresOptions, error: asyncpg.PostgresError) -> Exception:
    code = str(error.sqlstate or "")
    sentence = str(error).splitlines()[0] if str(error) else type(error).__name__
    if code == "26000" or code == "42P05" or "startup parameter" in sentence:
        return SourceError(pooler_sentence(options, sentence))
    if getattr(error, "server_source_function", None) == "check_enable_rls":  # in any language
        return SourceError(
            f"row level security on {options.shown_dsn} may hide rows from our role ({sentence}); run as a superuser: "
            "ALTER ROLE … BYPASSRLS;"
        )
    if is_transient(code) or sentence.startswith(_DROPPED):
        return ConnectionLost(f"{sentence} ({code})")
    return SourceError(f"{options.shown_dsn}: {sentence} ({code})")
