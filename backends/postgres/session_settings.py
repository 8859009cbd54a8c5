"""The settings of every session that we open, whatever the server, the database or the role sets. Pure.

Owns the list, and how it is given in each way of connecting. Both backends and the backfill read the same text of a row
only with the same settings; other settings would end our sessions, or hide what we need to know.
"""

from collections.abc import Mapping
from typing import Final

TEXT: Final[Mapping[str, str]] = {
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",  # the shortest text that is read back as the same number
    "bytea_output": "hex",
    "lc_monetary": "C",
    "quote_all_identifiers": "off",  # in values of regclass and its like
}
"""Settings that change how values are written as text."""

_OF_QUERIES: Final[Mapping[str, str]] = {
    "jit": "off",  # compiling a query over the catalogue took 0.8 s on PostgreSQL 15, and running it some milliseconds
}

_OURS: Final[Mapping[str, str]] = {
    **TEXT,
    "standard_conforming_strings": "on",  # `quote_literal` relies on it
    "client_min_messages": "notice",  # PostgreSQL 18 reports a missing publication only with a warning
    **_OF_QUERIES,
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",  # a listening session is idle for hours
}
_OF_READERS: Final[Mapping[str, str]] = {
    "row_security": "off",  # a query that a policy would hide rows from fails: see `row_security`
    "search_path": "pg_catalog",  # in values of regclass and its like; our own SQL names every schema
    "statement_timeout": "0",  # each query has a limit of ours
    "lock_timeout": "0",
}

TRANSACTION_TIMEOUT: Final = "SET transaction_timeout TO 0"
"""Run once connected, since older servers do not know it. The timeout would end a stream whenever it decodes a
transaction that takes longer."""
TRANSACTION_TIMEOUT_SINCE: Final = 170000


def session_settings(*, reads: bool = True) -> dict[str, str]:
    """Return the settings of a session, for the startup packet.

    Args:
        reads: Off for sessions that change the database: an owner's limits for locks, and the ``search_path`` of event
            triggers, apply to them.
    """
    return {**_OURS, **(_OF_READERS if reads else {})}


def as_options(settings: Mapping[str, str]) -> str:
    """Write settings for the connection parameter ``options`` of libpq."""
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())


def for_transaction() -> str:
    """Write the statements that set them until the end of a transaction.

    For poolers in transaction mode: they refuse settings in the startup packet, and a session of theirs is shared.
    """
    settings = {**TEXT, **_OF_QUERIES, "search_path": "pg_catalog"}
    return " ".join(f"SET LOCAL {name} TO '{value}';" for name, value in settings.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
