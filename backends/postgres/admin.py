"""Set-up and care of a Postgres source: check it, prepare it, look how it is, remove what is ours.

Owns what can be done for a source, and which backends it can be done for. How is a module for each of them; reads no
rounds.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol, Self

from backends.backlog import HasBacklog
from backends.contract import InvalidOptions
from backends.postgres.findings import Finding, Verdict, run_sql
from backends.postgres.notify.admin import NotifyAdmin
from backends.postgres.options import PostgresOptions, missing_dsn
from backends.postgres.replication.admin import ReplicationAdmin
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
    """What can be done for one source besides reading it. Every method connects anew."""

    @property
    def options(self) -> PostgresOptions: ...

    def acting_as(self, dsn: str | None) -> Self:
        """Return the same care over another connection, that of a DBA; None: over the backend's own."""
        ...

    def setup_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        """Return what a DBA has to run, in order; `grant_to` names the role of ingest when it is not the owner."""
        ...

    def teardown_sql(self) -> list[str]:
        """Return what removes all that `setup_sql` made."""
        ...

    async def set_up(self, grant_to: str | None, *, renew: bool = False) -> str | None:
        """Make what is missing; `renew`: also what is there and cannot be read any more. Return what to do next.

        Raises:
            SourceError: It may not be done, or what is there cannot be read and is not to be renewed.
            InvalidOptions: This backend has nothing to renew.
        """
        ...

    async def check(self) -> list[Finding]:
        """Look at everything that reading needs; raise `SourceError` when the server cannot be asked."""
        ...

    async def status(self) -> dict[str, str]:
        """Say how reading stands now; raise `SourceError` when it cannot be told."""
        ...


def admin_of(name: str, options: Mapping[str, object]) -> SourceAdmin:
    """Return the care of the backend called `name`.

    Raises:
        UnknownBackend: There is no such backend.
        InvalidOptions: It needs no set-up, or options are missing or wrong.
    """
    try:
        make = _CARES[name]
    except KeyError:
        known = known_backends()
        if name not in known:
            raise UnknownBackend(name, known) from None
        cared = ", ".join(sorted(_CARES))
        raise InvalidOptions(f"backend {name!r:.64} needs no set-up; backends with set-up: {cared}") from None
    if not options.get("dsn"):
        raise InvalidOptions(f"backend {name!r} needs the option 'dsn'; {missing_dsn()}")
    return make(options)


_CARES: Final[Mapping[str, Callable[[Mapping[str, object]], SourceAdmin]]] = {
    "postgres-notify": NotifyAdmin,
    "postgres-replication": ReplicationAdmin,
}
