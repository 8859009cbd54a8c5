"""Connect with asyncpg, and take the connection over once the server is ready.

Owns the private part of asyncpg that is used, and the check that the installed asyncpg has it. asyncpg signs in and
sets up TLS; it cannot read a replication stream. Knows nothing of what is sent afterwards.
"""

import asyncio
import os
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, cast

import asyncpg

from backends.contract import SourceError
from backends.postgres.postgres_options import PostgresOptions

TRIED: Final = ">=0.31,<0.33"
"""The versions of asyncpg whose private part is known; the same range as in ``pyproject.toml``."""

_USED: Final = ("get_protocol", "set_protocol", "pause_reading", "resume_reading", "abort")


async def connect_for_replication(options: PostgresOptions, settings: Mapping[str, str]) -> "asyncpg.Connection[Any]":
    """Open a replication connection to the database, with these settings of the session.

    asyncpg's errors pass. The connection may run no query: a walsender does not accept those of asyncpg.
    """
    target = options.target
    own = {**settings, "application_name": "stream-relay", "replication": "database"}
    if "options" not in target.parameters and "PGOPTIONS" in os.environ:
        own["options"] = os.environ["PGOPTIONS"]  # libpq reads it, asyncpg does not
    connection: asyncpg.Connection[Any] = await asyncpg.connect(
        **target.for_asyncpg(options.connect_timeout_s).arguments, server_settings=own, statement_cache_size=0
    )
    return connection


def take_over(connection: Any, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Let `protocol` receive all that the server sends from now on; asyncpg takes its connection for closed.

    Raises:
        SourceError: The installed asyncpg lacks the part.
    """
    transport = getattr(connection, "_transport", None)
    if transport is None or not all(callable(getattr(transport, name, None)) for name in _USED):
        connection.terminate()
        raise SourceError(
            f"asyncpg {version('asyncpg')} lacks Connection._transport, which the option message_prefix uses; install "
            f"asyncpg {TRIED}, which it is tested with"
        )
    before = transport.get_protocol()
    transport.set_protocol(protocol)
    before.connection_lost(None)
    return cast("asyncio.Transport", transport)
