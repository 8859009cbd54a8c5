"""Set up, check, inspect and remove the source of a Postgres backend.

Owns what can be done with a source, and the table of backends that can do it. How it is done is decided in
`notify.notify_admin` and `replication.replication_admin`. Reads no rounds.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol, Self

from backends.backlog import HasBacklog
from backends.contract import InvalidOptions
from backends.postgres.feed.feed_admin import FeedAdmin
from backends.postgres.findings import Finding, Verdict, run_sql
from backends.postgres.notify.notify_admin import NotifyAdmin
from backends.postgres.postgres_options import PostgresOptions, missing_dsn
from backends.postgres.replication.replication_admin import ReplicationAdmin
from backends.registry import UnknownBackend, known_backends

__all__ = [
    "Finding",
    "NotifyAdmin",
    "ReplicationAdmin",
    "SourceAdmin",
    "Verdict",
    "admin_of",
    "run_sql",
]


class SourceAdmin(HasBacklog, Protocol):
    """What can be done with one source besides reading it. Every method opens its own connection."""

    @property
    def options(self) -> PostgresOptions: ...

    def acting_as(self, dsn: str | None) -> Self:
        """Return the same admin over another connection, that of a DBA; None: over the backend's own."""
        ...

    def setup_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        """Return what a DBA has to run, in order; `grant_to` names the role of ingest when it is not the owner."""
        ...

    async def planned_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        """Return what `set_up` runs, after a look at the tables; where they cannot be read, as `setup_sql` does."""
        ...

    def teardown_sql(self) -> list[str]:
        """Return the statements that remove everything that `setup_sql` created."""
        ...

    async def set_up(self, grant_to: str | None, *, renew: bool = False) -> str | None:
        """Create what is missing. Return what to run next; None: nothing.

        Args:
            grant_to: The role of ingest; None: the owner of the table.
            renew: Also recreate what exists and cannot be read any more.

        Raises:
            SourceError: The role may not do it, or what exists cannot be read and `renew` is off.
            InvalidOptions: This backend has nothing to renew.
        """
        ...

    async def check(self) -> list[Finding]:
        """Check everything that reading needs; raise `SourceError` when the server cannot be queried."""
        ...

    async def status(self) -> dict[str, str]:
        """Return the state of the source, by label; raise `SourceError` when the server cannot be queried."""
        ...


def admin_of(name: str, options: Mapping[str, object]) -> SourceAdmin:
    """Return the admin of the backend called `name`.

    Raises:
        UnknownBackend: There is no such backend.
        InvalidOptions: It needs no set-up, or options are missing or wrong.
    """
    try:
        make = _ADMINS[name]
    except KeyError:
        known = known_backends()
        if name not in known:
            raise UnknownBackend(name, known) from None
        with_setup = ", ".join(sorted(_ADMINS))
        raise InvalidOptions(f"backend {name!r:.64} needs no set-up; backends with set-up: {with_setup}") from None
    if not options.get("dsn"):
        raise InvalidOptions(f"backend {name!r} needs the option 'dsn'; {missing_dsn()}")
    admin = make(options)
    if admin.options.feed:
        return FeedAdmin(admin.options, make)
    return admin


_ADMINS: Final[Mapping[str, Callable[[Mapping[str, object]], SourceAdmin]]] = {
    "postgres-notify": NotifyAdmin,
    "postgres-replication": ReplicationAdmin,
}
