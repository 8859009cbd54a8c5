"""Set up, check and inspect the source of `postgres-replication`: the publication, the slot, and the server.

Owns what is created, in which order, and what stops that. What is wrong is found in `source_faults`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, Self

from backends.backlog import Backlog
from backends.contract import SourceError, SourceUnavailable
from backends.postgres.database import Connection, ask
from backends.postgres.findings import SETUP_COMMAND, STATEMENT_S, Finding, Verdict, connected, reader_name, run_sql
from backends.postgres.game_tables import grants_on_games
from backends.postgres.postgres_options import quote_identifier
from backends.postgres.replication.protocol.replication_connection import ReplicationConnection, StreamLost
from backends.postgres.replication.publication.publication_facts import PublicationFacts
from backends.postgres.replication.publication.publication_faults import creation_statements, refusal_of
from backends.postgres.replication.slot import (
    BACKFILL,
    ReplicationOptions,
    SlotState,
    all_faults,
    unread_facts,
)
from backends.postgres.replication.slot_heartbeat import KeptWal
from backends.postgres.replication.source_faults import RENEW, SourceFaults
from backends.postgres.replication.standby_server import standby_sentence
from backends.postgres.statements import statement
from backends.postgres.table import (
    has_unique_order,
    read_table,
    require_table,
)

_RENEWABLE: Final = (SlotState.PUBLICATION_MISSING, SlotState.PUBLICATION_LATE, SlotState.INVALIDATED)


_PUBLICATION_FAULTS: Final = (SlotState.PUBLICATION_MISSING, SlotState.TABLE_NOT_PUBLISHED)
"""Those that a new slot alone does not mend."""


class ReplicationAdmin:
    """The source admin of `postgres-replication`. Implements `backends.postgres.source_admin.SourceAdmin`."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self.options = ReplicationOptions.read(options)

    def acting_as(self, dsn: str | None) -> Self:
        return self if dsn is None else type(self)({**self.options.given, "dsn": dsn})

    # --- setting up ---------------------------------------------------------------------------------------------

    def setup_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        return self._setup_sql(unread_facts(self.options), grant_to, renew=renew)

    async def planned_sql(self, grant_to: str | None, *, renew: bool = False) -> list[str]:
        try:
            async with connected(self.options) as connection:
                facts = await SourceFaults(self.options, connection).facts()
        except SourceError:
            facts = unread_facts(self.options)
        return [*self._repairs(facts), *self._setup_sql(facts, grant_to, renew=renew)]

    def _setup_sql(self, facts: PublicationFacts, grant_to: str | None, *, renew: bool = False) -> list[str]:
        options = self.options
        slot = "create_failover_slot" if options.failover else "create_slot"
        publication, *identities = creation_statements(options.wishes, facts)
        made = [
            *([statement("drop_slot_if_there", slot=options.slot)] if renew else []),
            *_with_short_waits(identities),
            publication,
            statement(slot, slot=options.slot),
        ]
        if grant_to is None:
            return made
        names = [{"schema": table.schema_name, "table": table.table_name} for table in options.all_tables]
        grants = [statement("grant_replication", **name, role=grant_to) for name in names]
        return [*made, *grants, *grants_on_games(options, grant_to)]

    def _slot_sql(self) -> str:
        options = self.options
        return statement("create_failover_slot" if options.failover else "create_slot", slot=options.slot)

    def teardown_sql(self) -> list[str]:
        return [
            statement("drop_slot_if_there", slot=self.options.slot),
            statement("drop_publication", publication=self.options.publication),
        ]

    async def set_up(self, grant_to: str | None, *, renew: bool = False) -> str | None:
        options = self.options
        async with connected(options) as connection:
            await ask(options, connection.fetch(statement("lock_renewal"), options.slot, timeout=STATEMENT_S))
            look = SourceFaults(options, connection)
            if await look.is_standby():
                raise SourceError(standby_sentence(options))
            for table in options.all_tables:
                await ask(options, require_table(connection, options, table))
            faults = await look.of_setup()
            slot = await look.slot()
            for fault in faults:
                if fault.state is SlotState.FOREIGN or (slot and fault.state in _RENEWABLE and not renew):
                    # A publication created now would be younger than the slot, which could then not be read.
                    raise SourceError(fault.text)
            renews = renew and slot is not None
            facts = await look.facts()
            if (refusal := refusal_of(options.wishes, facts)) is not None:
                raise SourceError(refusal)
            repairs = self._repairs(facts)
            if repairs and (failing := await look.tables_without_identity()):
                raise SourceError(
                    f"publication {options.publication!r} would make every UPDATE and DELETE of {', '.join(failing)} "
                    f"fail, since they have no replica identity; run: ALTER TABLE {failing[0]} REPLICA IDENTITY FULL; "
                    "or use a publication of its own (option 'publication')"
                )
            await run_sql(options, [*repairs, *self._setup_sql(facts, grant_to, renew=renews)])
        return (
            f"replication slot {options.slot!r} begins now; for the rounds in between run {BACKFILL}" * renews or None
        )

    async def renew(self, *, always: bool) -> None:
        """Recreate the publication and the slot, unless another process has just done so.

        Args:
            always: Recreate them also if no fault is found.

        Nothing is dropped before it is known that all of it can be created again.

        Raises:
            SourceUnavailable: Another process reads the slot or changes it, or the server is away. Call this again.
            SourceError: The role may not do it, or the slot is not ours. Nothing was changed.
        """
        options = self.options
        async with connected(options) as connection:
            await ask(options, connection.fetch(statement("lock_renewal"), options.slot, timeout=STATEMENT_S))
            look = SourceFaults(options, connection)
            if await look.is_standby():
                raise SourceUnavailable(standby_sentence(options))
            faults = [fault for fault in await look.of_setup() if fault.is_fatal]
            if not (always or faults):
                return
            if foreign := [fault.text for fault in faults if fault.state is SlotState.FOREIGN]:
                raise SourceError(foreign[0])
            needs_publication = any(fault.state in _PUBLICATION_FAULTS for fault in faults)
            await self._check_rights(connection, needs_publication=needs_publication)
            if needs_publication:
                facts = await look.facts()
                await run_sql(options, [*self.teardown_sql(), *self._setup_sql(facts, None)])
            else:
                await run_sql(options, [statement("drop_slot_if_there", slot=options.slot), self._slot_sql()])

    async def _check_rights(self, connection: Connection, *, needs_publication: bool) -> None:
        """Raise `SourceError` if our role may not create the slot, or the publication where that is needed."""
        options = self.options
        sql = statement("read_renewal_rights", publication=options.publication)
        schemas = [table.schema_name for table in options.all_tables]
        names = [table.table_name for table in options.all_tables]
        rights: Any = await ask(options, connection.fetchrow(sql, schemas, names))
        role, missing = quote_identifier(rights["role"]), []
        if not rights["may_replicate"]:
            missing.append(f"ALTER ROLE {role} REPLICATION;")
        if needs_publication:
            if rights["owns_publication"] is False:
                missing.append(f"ALTER PUBLICATION {quote_identifier(options.publication)} OWNER TO {role};")
            if not rights["may_create"]:
                missing.append(f"GRANT CREATE ON DATABASE {quote_identifier(rights['database'])} TO {role};")
            missing += [f"ALTER TABLE {name} OWNER TO {role};" for name in rights["foreign_tables"] or []]
        if missing:
            raise SourceError(
                f"replication slot {options.slot!r} cannot be recreated: our role {role} lacks rights, and nothing was "
                f"changed; run: {' '.join(missing)} or run {RENEW}"
            )

    # --- inspecting ---------------------------------------------------------------------------------------------

    async def check(self) -> list[Finding]:
        options = self.options
        async with connected(options) as connection:
            look = SourceFaults(options, connection)
            if await look.is_standby():
                return [Finding(Verdict.FAILURE, standby_sentence(options))]
            found = await look.of_server()
            for table in options.all_tables:
                found += await look.of_table(table)
            ours = await look.of_setup()
            has_unfinished = await look.has_unfinished(await look.facts()) if ours else False
        certain = [fault.text for fault in ours if fault.is_fatal or has_unfinished]
        findings = [Finding(Verdict.FAILURE, fault) for fault in [*found, *certain]]
        findings += [Finding(Verdict.WARNING, fault.text) for fault in ours if fault.text not in certain]
        return [*findings, await self._check_connection()]

    async def status(self) -> dict[str, str]:
        options = self.options
        async with connected(options) as connection:
            row = await ask(options, connection.fetchrow(statement("read_slot_status", slot=options.slot)))
            look = SourceFaults(options, connection)
            if row is None and await look.is_standby():
                return {"state": "standby server", "run": standby_sentence(options)}
            if row is None:
                return {"state": "missing", "run": f"{SETUP_COMMAND} --backend postgres-replication"}
            faults = await look.of_setup()
            wal = statement("read_wal_size")
            wal_bytes = await ask(options, connection.fetchval(wal)) if row["may_list_wal"] else None
        faults = [fault for fault in faults if fault.is_fatal]
        fault = {"state": str(faults[0].state), "run": faults[0].text.partition("run: ")[2]} if faults else {}
        return {
            "state": "streaming" if row["active"] else "no reader",
            **fault,
            "active": reader_name(row["active_pid"], row["client"], row["application"]),
            "wal_status": str(row["wal_status"]),
            "confirmed": str(row["confirmed"]),
            "lag": f"{row['lag_bytes'] or 0:,} bytes, {_seconds(row)}",
            "kept for it": f"{row['kept_bytes'] or 0:,} bytes, from restart_lsn {row['restart_lsn'] or '-'}",
            "kept in the catalogue": f"from catalog_xmin {row['catalog_xmin']}, {row['catalog_age']:,} transactions ago"
            if row["catalog_xmin"]
            else "-",
            "WAL on the server": "not shown to this role" if wal_bytes is None else f"{wal_bytes:,} bytes",
            "until it is lost": "no limit" if row["left_bytes"] is None else f"{row['left_bytes']:,} bytes",
        }

    @asynccontextmanager
    async def measuring(self) -> AsyncIterator[Callable[[], Awaitable[Backlog]]]:
        options, sql = self.options, statement("read_slot_status", slot=self.options.slot)
        kept = KeptWal()
        async with connected(options) as connection:

            async def measure() -> Backlog:
                row = await ask(options, connection.fetchrow(sql, timeout=options.connect_timeout_s))
                if row is None or row["lag_bytes"] is None:
                    raise SourceError(f"replication slot {options.slot!r} on {options.shown_dsn} has no offset")
                kept_bytes = None
                if row["restart"] is not None:
                    kept_bytes = kept.kept_bytes(
                        head=row["head"], restart=row["restart"], catalog_xmin=row["catalog_xmin"]
                    )
                confirmed = row["head"] - row["lag_bytes"]
                return Backlog("bytes", row["head"], confirmed, max(0, row["lag_bytes"]), kept_bytes)

            yield measure

    async def has_unique_ids(self) -> bool:
        """Whether round ids are unique over all games; raise `SourceError` as `check` does."""
        async with connected(self.options) as connection:
            table = await read_table(connection, self.options)
        return has_unique_order(table, is_named=False)

    def _repairs(self, facts: PublicationFacts) -> list[str]:
        """Return the SQL that mends an existing publication, each statement once."""
        if facts.oid is None:
            return []
        sql = " ".join(fault.run for fault in all_faults(self.options, facts) if fault.is_sql)
        return _with_short_waits(list(dict.fromkeys(one.strip() for one in sql.split(";") if one.strip())))

    async def _check_connection(self) -> Finding:
        """Open a replication connection: only this shows what pg_hba.conf or a pooler forbids."""
        try:
            link = await ReplicationConnection.connect(self.options)
        except StreamLost as error:
            return Finding(
                Verdict.FAILURE,
                f"no replication connection: {error}; connect to the server itself and not to a pooler, and allow "
                "replication in pg_hba.conf",
            )
        await link.close()
        return Finding(Verdict.OK, f"{self.options.shown_dsn}: a replication connection opens")


def _with_short_waits(statements: list[str]) -> list[str]:
    """Bound the wait for locks that block readers of a table too."""
    if not any(sql.startswith("ALTER TABLE") for sql in statements):
        return statements
    return ["SET lock_timeout = '3s'", *statements, "RESET lock_timeout"]


def _seconds(row: Mapping[str, Any]) -> str:
    """Write the age of the oldest unconfirmed WAL. The server knows it only while the slot is read."""
    if row["active"]:
        lag_s = row["lag_s"] if row["lag_s"] is not None or row["lag_bytes"] else 0.0
        return "seconds unknown" if lag_s is None else f"{lag_s:.3f} s"
    if row["unread_s"] is None:  # before PostgreSQL 17
        return "seconds unknown without a reader"
    return f"unread for {row['unread_s']:.1f} s"
