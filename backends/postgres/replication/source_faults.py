"""What is wrong with the source of `postgres-replication`: the server, the tables, the publication, the slot.

Owns the checks that need no stream, and their sentences. The states are those of `slot`.
"""

from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, TypeVar

import asyncpg

from backends.contract import SourceError
from backends.postgres.database import Connection, ask
from backends.postgres.findings import SETUP_COMMAND
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.finishing import finished_by_options, finishes_by_update
from backends.postgres.mapping.table_mapper import ColumnMissing, TableMapper, check_columns
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import quote_identifier
from backends.postgres.replication.publication.publication_facts import PublicationFacts
from backends.postgres.replication.slot import (
    BACKFILL,
    PUBLICATION_SKIPPED,
    UNDEFINED,
    ReplicationOptions,
    SlotState,
    all_faults,
    settled_facts,
)
from backends.postgres.statements import statement
from backends.postgres.table import OLDEST_VERSION, relation_statement, why_no_table
from rounds import Catalogue

T = TypeVar("T")

RENEW: Final = f"{SETUP_COMMAND} --renew-slot; and, for the rounds in between, {BACKFILL}"
"""What to run where only a new slot helps."""
_PEEK_S: Final = 5.0
_SHOWN: Final = 5


class SetupFault(NamedTuple):
    """What is wrong with the publication or the slot."""

    state: SlotState
    text: str
    is_fatal: bool = True


class SourceFaults:
    """Looks at the source over one connection. Errors are those of `backends.postgres.database.ask`."""

    def __init__(self, options: ReplicationOptions, connection: Connection) -> None:
        self._options = options
        self._connection = connection

    async def of_setup(self) -> list[SetupFault]:
        options = self._options
        slot = await self.slot()  # first: see `check_slot`
        facts = await self.facts()
        faults = [*self._slot_faults(slot), *self._publication_faults(facts, slot)]
        if not any(fault.is_fatal for fault in faults) and await self._is_late():
            what = (
                f"publication {options.publication!r} was created after the offset of replication slot {options.slot!r}"
            )
            faults.append(SetupFault(SlotState.PUBLICATION_LATE, f"{what}, so the slot cannot be read; run: {RENEW}"))
        return faults

    async def is_standby(self) -> bool:
        sql = statement("read_standby", slot=self._options.slot)
        return bool(await self._ask(self._connection.fetchval(sql)))

    async def facts(self) -> PublicationFacts:
        async def query(sql: str) -> Sequence[Mapping[str, Any]]:
            rows: Sequence[Mapping[str, Any]] = await self._ask(self._connection.fetch(sql))
            return rows

        return await settled_facts(self._options, query)

    async def tables_without_identity(self) -> list[str]:
        """Return other tables of the publication whose UPDATE would fail if it sent updates."""
        sql = statement("read_unidentified", publication=self._options.publication)
        rows = await self._ask(self._connection.fetch(sql))
        own = {table.source for table in self._options.all_tables}
        return [row["quoted"] for row in rows if row["quoted"].replace('"', "") not in own][:_SHOWN]

    async def has_unfinished(self, facts: PublicationFacts) -> bool:
        """Whether a table that should finish by UPDATE has rows that wait for it; False if our role may not look."""
        for table, found in zip(self._options.all_tables, facts.tables, strict=True):
            nullable = {column.name: not column.not_null for column in found.columns}
            if finished_by_options(table) is not None or not finishes_by_update(table, nullable):
                continue
            with suppress(SourceError):
                columns = [Column(column.name, column.type_oid) for column in found.columns]
                mapper = TableMapper(table, Catalogue({}), columns)
                names = {"schema": table.schema_name, "table": table.table_name}
                names |= {
                    "is_finished": mapper.sql_of("finished_when", "t"),
                    "is_ours": mapper.sql_of("rows_when", "t"),
                }
                if await self._ask(self._connection.fetchval(statement("has_unfinished", **names), timeout=_PEEK_S)):
                    return True
        return False

    async def slot(self) -> Mapping[str, Any] | None:
        sql = statement("read_slot", slot=self._options.slot)
        row: Mapping[str, Any] | None = await self._ask(self._connection.fetchrow(sql))
        return row

    async def _is_late(self) -> bool:
        """Whether the publication was created after the offset of the slot. Decodes the slot as a stream would.

        The first change in the slot then finds no publication: an error, or a warning in PostgreSQL 18 and later. The
        slot is decoded only if the transaction ids do not rule this out, and if no process reads it: otherwise it
        works.
        """
        options = self._options
        names = {"slot": options.slot, "publication": options.publication}
        if not await self._ask(self._connection.fetchval(statement("may_be_late", **names))):
            return False
        notices: list[str] = []

        def listen(_connection: object, notice: Any) -> None:
            notices.append(str(notice.sqlstate))

        self._connection.add_log_listener(listen)
        sql = statement("peek_slot", slot=options.slot, publications=quote_identifier(options.publication))

        async def peek() -> bool:
            try:
                with suppress(TimeoutError):  # much was decoded without a fault
                    await self._connection.fetchval(sql, timeout=_PEEK_S)
            except asyncpg.PostgresError as error:
                return error.sqlstate == UNDEFINED  # other errors say nothing: a missing right, or a new reader
            return False

        try:
            if await self._ask(peek()):
                return True
        finally:
            self._connection.remove_log_listener(listen)
        return PUBLICATION_SKIPPED in notices

    async def of_server(self) -> list[str]:
        """Say why the server cannot replicate, one sentence each."""
        server: Any = await self._ask(self._connection.fetchrow(statement("read_replication_server")))
        slot = await self.slot()
        where, faults = self._options.shown_dsn, []
        if server["version"] < OLDEST_VERSION:
            faults.append(f"{where} is PostgreSQL {server['version'] // 10000}; 14 is the oldest supported version")
        if server["wal_level"] != "logical":
            faults.append(
                f"wal_level is {server['wal_level']!r}; run: "
                "ALTER SYSTEM SET wal_level = 'logical'; and restart the server"
            )
        if not server["may_replicate"]:
            grant = f"ALTER ROLE {quote_identifier(server['role'])} REPLICATION;"
            faults.append(f"role {server['role']} may not replicate; run: {grant}")
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

    async def of_table(self, table: TableOptions) -> list[str]:
        """Say why a table cannot be captured, in one sentence."""
        relation: Any = await self._ask(self._connection.fetchrow(relation_statement(table)))
        if (fault := why_no_table(self._options, table, relation)) is not None:
            return [fault]
        names = {"schema": table.schema_name, "table": table.table_name}
        columns = await self._ask(self._connection.fetch(statement("read_columns", **names)))
        if not columns:
            return [f"table {table.quoted_table} has no columns"]
        if columns[0]["relpersistence"] != b"p":
            return [f"table {table.quoted_table} is not logged; run: ALTER TABLE {table.quoted_table} SET LOGGED;"]
        try:
            check_columns(table, [Column(column["attname"], column["column_type"]) for column in columns])
        except ColumnMissing as error:
            return [str(error)]
        return []

    def _publication_faults(self, facts: PublicationFacts, slot: object) -> list[SetupFault]:
        name = self._options.publication
        if facts.oid is None:
            what = f"publication {name!r} does not exist"
            if slot is None:
                return [SetupFault(SlotState.PUBLICATION_MISSING, f"{what}; run: {SETUP_COMMAND}")]
            older = f"replication slot {self._options.slot!r} could not be read with a new one"
            return [SetupFault(SlotState.PUBLICATION_MISSING, f"{what}, and {older}; run: {RENEW}")]
        then = f"and, for rounds that were inserted before, {BACKFILL}"
        return [
            SetupFault(SlotState.TABLE_NOT_PUBLISHED, f"{fault.what}; run: {fault.run} {then}", fault.is_fatal)
            for fault in all_faults(self._options, facts)
        ]

    def _slot_faults(self, slot: Mapping[str, Any] | None) -> list[SetupFault]:
        name = self._options.slot
        if slot is None:
            return [SetupFault(SlotState.MISSING, f"replication slot {name!r} does not exist; run: {SETUP_COMMAND}")]
        if slot["plugin"] != "pgoutput" or slot["database"] != slot["our_database"]:
            found = f"{slot['plugin']} in database {slot['database']}"
            what = f"replication slot {name!r} is for {found}; set the option 'slot' to another name"
            return [SetupFault(SlotState.FOREIGN, what)]
        if slot["wal_status"] == "lost" or slot.get("invalidation_reason"):
            reason = slot.get("invalidation_reason") or "wal_removed"
            return [SetupFault(SlotState.INVALIDATED, f"replication slot {name!r} is lost ({reason}); run: {RENEW}")]
        return []

    async def _ask(self, answer: Awaitable[T]) -> T:
        return await ask(self._options, answer)
