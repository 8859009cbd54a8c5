"""Set-up and care of a Postgres source: check it, prepare it, look how it is, remove what is ours.

Owns what an operator is told, and what is run on whose behalf. Knows both backends, reads no rounds.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol

import asyncpg

from backends.contract import InvalidOptions, SourceError
from backends.postgres.capture import ColumnMissing, columns_of
from backends.postgres.link import Link, StreamLost
from backends.postgres.notify_options import NotifyOptions, faults_of, has_unique_order, read_source, warnings_of
from backends.postgres.notify_session import Connection, ConnectionLost, Session, ask, open_connection
from backends.postgres.options import PostgresOptions, quote_identifier
from backends.postgres.slot import ReplicationOptions
from backends.postgres.statements import statement
from backends.registry import UnknownBackend, known_backends

SETUP: Final = "stream-relay backend setup"


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


class Care(Protocol):
    """What can be done for one source besides reading it. Every method connects anew."""

    def setup_sql(self, grant_to: str | None) -> list[str]:
        """Return what a DBA has to run, in order; `grant_to` names the role of ingest when it is not the owner."""
        ...

    def teardown_sql(self) -> list[str]:
        """Return what removes all that `setup_sql` made."""
        ...

    async def check(self) -> list[Finding]:
        """Look at everything that reading needs; raise `SourceError` when the server cannot be asked."""
        ...

    async def status(self) -> dict[str, str]:
        """Say how reading stands now; raise `SourceError` when it cannot be told."""
        ...


def care_of(name: str, options: Mapping[str, object]) -> Care:
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
        raise InvalidOptions(
            f"backend {name!r} needs the option 'dsn'; set RELAY_BACKEND_DSN, or give "
            "-o dsn=postgresql://user:password@host:5432/database"
        )
    care: Care = make(options)
    return care


async def run_sql(care_options: PostgresOptions, statements: list[str]) -> None:
    """Run statements one after another; what is there already stays. Raise `SourceError` with the one that failed."""
    async with _connected(care_options) as connection:
        for sql in statements:
            try:
                with suppress(asyncpg.DuplicateObjectError):
                    await connection.execute(sql)
            except asyncpg.PostgresError as error:
                raise SourceError(f"{error} ({error.sqlstate}) in: {' '.join(sql.split())}") from error


class NotifyCare:
    """Care of `postgres-notify`."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self.options = NotifyOptions.read(options)

    def setup_sql(self, grant_to: str | None) -> list[str]:
        options = self.options
        names = {"schema": options.schema_name, "table": options.table_name}
        made = [statement("create_wake", **names, channel=options.channel)]
        return made if grant_to is None else [*made, statement("grant_notify", **names, role=grant_to)]

    def teardown_sql(self) -> list[str]:
        options = self.options
        names = {"schema": options.schema_name, "table": options.table_name}
        return [statement("drop_wake", **names, consumer=options.consumer, source=options.source)]

    async def check(self) -> list[Finding]:
        options = self.options
        async with _connected(options) as connection:
            source = await read_source(connection, options)
        findings = [Finding(Verdict.FAILURE, fault) for fault in faults_of(source, options)]
        findings += [Finding(Verdict.WARNING, warning) for warning in warnings_of(source, options)]
        if not findings or all(finding.verdict is not Verdict.FAILURE for finding in findings):
            findings.append(await self._check_session())
        return findings

    async def _check_session(self) -> Finding:
        try:
            session = await Session.connect(self.options)
        except (SourceError, ConnectionLost) as error:
            return Finding(Verdict.FAILURE, str(error))
        await session.close()
        heard = "a notification arrives" if self.options.notify else "rows can be polled"
        return Finding(Verdict.OK, f"{self.options.shown_dsn}: {heard}")

    async def status(self) -> dict[str, str]:
        options = self.options
        sql = statement(
            "read_notify_status",
            schema=options.schema_name,
            table=options.table_name,
            order_column=options.order,
            consumer=options.consumer,
            source=options.source,
        )
        async with _connected(options) as connection:
            source = await read_source(connection, options)
            if not source["has_positions"]:
                return {"state": "not set up", "run": f"{SETUP} --backend postgres-notify"}
            row = await ask(options, connection.fetchrow(sql))
        if row is None:
            return {"state": "never run"}
        return {
            "state": "reading" if row["active_pid"] else "nobody reads",
            "active": _holder(row["active_pid"], row["client"], None),
            "last confirmed": f"id {row['safe']}, {row['kept_s']:.1f} s ago",
            "lag": f"{row['lag_rows']} rows",
        }


class ReplicationCare:
    """Care of `postgres-replication`."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self.options = ReplicationOptions.read(options)

    def setup_sql(self, grant_to: str | None) -> list[str]:
        options = self.options
        names = {"schema": options.schema_name, "table": options.table_name}
        slot = "create_failover_slot" if options.failover else "create_slot"
        made = [
            statement("create_publication", **names, publication=options.publication),
            statement(slot, slot=options.slot),
        ]
        return made if grant_to is None else [*made, statement("grant_replication", **names, role=grant_to)]

    def teardown_sql(self) -> list[str]:
        return [
            statement("drop_slot_if_there", slot=self.options.slot),
            statement("drop_publication", publication=self.options.publication),
        ]

    async def check(self) -> list[Finding]:
        options = self.options
        names = {"schema": options.schema_name, "table": options.table_name}
        async with _connected(options) as connection:
            server = await ask(options, connection.fetchrow(statement("read_replication_server")))
            columns = await ask(options, connection.fetch(statement("read_columns", **names)))
            slot = await ask(options, connection.fetchrow(statement("read_slot", slot=options.slot)))
            ours = await self._faults_of_ours(connection)
        faults = [*self._server_faults(server, slot), *self._table_faults(columns), *ours]
        findings = [Finding(Verdict.FAILURE, fault) for fault in faults]
        return [*findings, await self._check_link()]

    async def renew(self, *, certainly: bool) -> None:
        """Make publication and slot anew, unless another process just has; `certainly`: even if they look whole.

        Raises:
            SourceError: It may not be done, or another process reads the slot by now.
        """
        options = self.options
        async with _connected(options) as connection:
            await ask(options, connection.fetch(statement("lock_renewal"), options.slot))
            if certainly or await self._faults_of_ours(connection):
                await run_sql(options, [*self.teardown_sql(), *self.setup_sql(None)])

    async def _faults_of_ours(self, connection: Connection) -> list[str]:
        options = self.options
        names = {"schema": options.schema_name, "table": options.table_name, "publication": options.publication}
        publication = await ask(options, connection.fetchrow(statement("read_publication", **names)))
        slot = await ask(options, connection.fetchrow(statement("read_slot", slot=options.slot)))
        return [*self._publication_faults(publication), *self._slot_faults(slot)]

    def _server_faults(self, server: Mapping[str, Any], slot: object) -> list[str]:
        where, faults = self.options.shown_dsn, []
        if server["version"] < _OLDEST:
            faults.append(f"{where} is PostgreSQL {server['version'] // 10000}; 14 is the oldest that can be read")
        if server["wal_level"] != "logical":
            faults.append(
                f"wal_level is {server['wal_level']!r}; run: "
                "ALTER SYSTEM SET wal_level = 'logical'; and restart the server"
            )
        if not server["may_replicate"]:
            faults.append(f"role {server['role']} may not replicate; run: {self._grant(server['role'])}")
        if slot is None and server["free_slots"] < 1:
            faults.append(
                "all replication slots are taken; drop one, or run: ALTER SYSTEM SET max_replication_slots = "
                "20; and restart the server"
            )
        if server["free_senders"] < 1:
            faults.append(
                "all WAL senders are taken; run: ALTER SYSTEM SET max_wal_senders = 20; and restart the server"
            )
        return faults

    def _table_faults(self, columns: list[asyncpg.Record]) -> list[str]:
        options = self.options
        if not columns:
            return [f"{options.shown_dsn} has no table {options.quoted_table}; set the option 'table'"]
        if columns[0]["relpersistence"] != b"p":
            return [f"table {options.quoted_table} is not logged; run: ALTER TABLE {options.quoted_table} SET LOGGED;"]
        try:
            columns_of(options, [column["attname"] for column in columns])
        except ColumnMissing as error:
            return [str(error)]
        return []

    def _publication_faults(self, publication: Mapping[str, Any] | None) -> list[str]:
        name = self.options.publication
        if publication is None:
            return [f"publication {name!r} does not exist; run: {SETUP}"]
        if not (publication["pubinsert"] and publication["covers"]):
            quoted, table = quote_identifier(name), self.options.quoted_table
            add = "" if publication["member"] else f"ALTER PUBLICATION {quoted} ADD TABLE {table}; "
            change = f"ALTER PUBLICATION {quoted} SET (publish = 'insert', publish_via_partition_root = true);"
            return [f"publication {name!r} does not send inserts of {table}; run: {add}{change}"]
        return []

    def _slot_faults(self, slot: Mapping[str, Any] | None) -> list[str]:
        name = self.options.slot
        if slot is None:
            return [f"replication slot {name!r} does not exist; run: {SETUP}"]
        if slot["plugin"] != "pgoutput" or slot["database"] != slot["our_database"]:
            found = f"{slot['plugin']} in database {slot['database']}"
            return [f"replication slot {name!r} is for {found}; set the option 'slot' to another name"]
        if slot["wal_status"] == "lost" or slot.get("invalidation_reason"):
            reason = slot.get("invalidation_reason") or "wal_removed"
            renew = f"stream-relay backend teardown; {SETUP}; stream-relay backend backfill"
            return [f"replication slot {name!r} is lost ({reason}); run: {renew}"]
        return []

    async def has_unique_ids(self) -> bool:
        """Whether ids are unique over all games, and so grow with the table; raise `SourceError` as `check` does."""
        options = NotifyOptions.read({name: getattr(self.options, name) for name in PostgresOptions.model_fields})
        async with _connected(options) as connection:
            source = await read_source(connection, options)
        return has_unique_order(source, options)

    def _grant(self, role: str) -> str:
        return f"ALTER ROLE {quote_identifier(role)} REPLICATION;"

    async def _check_link(self) -> Finding:
        """Open a replication connection: what pg_hba.conf or a pooler forbids shows only so."""
        try:
            link = await Link.connect(self.options)
        except StreamLost as error:
            return Finding(
                Verdict.FAILURE,
                f"no replication connection: {error}; connect to the server itself and not to a pooler, and allow it "
                "in pg_hba.conf",
            )
        await link.close()
        return Finding(Verdict.OK, f"{self.options.shown_dsn}: a replication connection opens")

    async def status(self) -> dict[str, str]:
        options = self.options
        async with _connected(options) as connection:
            row = await ask(options, connection.fetchrow(statement("read_slot_status", slot=options.slot)))
        if row is None:
            return {"state": "missing", "run": f"{SETUP} --backend postgres-replication"}
        return {
            "state": "streaming" if row["active"] else "nobody reads",
            "active": _holder(row["active_pid"], row["client"], row["application"]),
            "wal_status": str(row["wal_status"]),
            "last confirmed": str(row["confirmed"]),
            "lag": f"{row['lag_bytes'] or 0:,} bytes, {row['lag_s']:.3f} s",
            "kept for it": f"{row['kept_bytes'] or 0:,} bytes",
            "until it is lost": "no limit" if row["left_bytes"] is None else f"{row['left_bytes']:,} bytes",
        }


_OLDEST: Final = 140000
_CARES: Final[Mapping[str, Callable[[Mapping[str, object]], Any]]] = {
    "postgres-notify": NotifyCare,
    "postgres-replication": ReplicationCare,
}


@asynccontextmanager
async def _connected(options: PostgresOptions) -> AsyncIterator[Connection]:
    try:
        connection = await open_connection(options, "care")
    except ConnectionLost as error:
        raise SourceError(f"{options.shown_dsn} cannot be reached: {error}") from error
    try:
        yield connection
    except ConnectionLost as error:
        raise SourceError(f"{options.shown_dsn} was lost: {error}") from error
    finally:
        await connection.close()


def _holder(pid: int | None, client: str | None, application: str | None) -> str:
    if pid is None:
        return "-"
    return f"process {pid} of {client or 'a local client'}{f' ({application})' if application else ''}"


def options_as(care: Any, dsn: str | None) -> PostgresOptions:
    """Return the options of a care, with another DSN where one is given: that of a DBA."""
    options: PostgresOptions = care.options
    return options if dsn is None else type(options).read({**_given(options), "dsn": dsn})


def _given(options: PostgresOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in options.model_fields_set}
