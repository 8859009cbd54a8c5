"""The replication slot and its publication: the options, the state now, and the errors when the slot is lost.

Owns the states of a slot, and the sentence for each: what is wrong and what to run. Knows nothing of the stream.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from backends.contract import SourceError
from backends.postgres.database import ConnectionLost
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.table_mapper import ColumnMissing, TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import Identifier, PostgresOptions
from backends.postgres.replication.protocol.replication_connection import (
    Record,
    ReplicationConnection,
    ServerError,
    StreamLost,
)
from backends.postgres.replication.protocol.wal import parse_lsn
from backends.postgres.replication.publication.publication_facts import (
    PublicationFacts,
    PublishedTable,
    Query,
    Wishes,
    read_facts,
)
from backends.postgres.replication.publication.publication_faults import (
    PublicationFault,
    creation_statements,
    publication_faults,
)
from backends.postgres.replication.publication.publication_note import PublicationNote
from backends.postgres.statements import one_line, statement
from rounds import Catalogue

BACKFILL: Final = (
    "`stream-relay backend backfill --from-id N`, N the newest id in the log (`stream-relay backend status`)"
)
"""From the newest round in the log: a backfill without it would send the whole table to live clients."""

UNDEFINED: Final = "42704"
"""The SQLSTATE of a stream whose publication was created after the offset of the slot."""
PUBLICATION_SKIPPED: Final = "55000"
"""The SQLSTATE of the warning that PostgreSQL 18 and later send instead; its text is in the language of the server."""

_READS: Final = 9
_DROPPED: Final = ("42P01", "42704", "XX000")
"""SQLSTATEs of a query that finds something dropped: a table, a publication, and what only an internal error names."""


class ReplicationOptions(PostgresOptions):
    """All options of `postgres-replication`."""

    slot: Annotated[str, StringConstraints(pattern="^[a-z0-9_]{1,63}$")] = "stream_relay"
    """Processes with the same slot are standbys of each other; different logs need different slots."""
    publication: Identifier = "stream_relay"
    create: bool = False
    """Create the publication and the slot if neither exists. If only the slot is missing, it was lost and is not
    recreated."""
    failover: bool = False
    """Create a slot that physical standbys synchronise, so that it survives a failover. PostgreSQL 17 and later."""
    on_lost: Literal["stop", "backfill"] = "stop"
    """When the slot is lost: stop with the command to run, or recreate it and backfill from the table."""
    accept_lsn: Annotated[str, StringConstraints(pattern="^([0-9A-F]{1,8}/[0-9A-F]{1,8})?$")] = ""
    """Continue from this offset of the slot, although rounds before it may be missing, after the slot was moved or its
    publication was changed. The error that ingest stopped with contains it. No other offset is accepted."""
    sender_timeout_s: float = Field(default=15.0, ge=1, le=3600)
    """After so long a silence the server ends the reader's connection, and the reader reconnects to the server. Sets
    ``wal_sender_timeout`` for this connection."""
    heartbeat_s: float = Field(default=0.0, ge=0, le=3600)
    """Interval of messages written into the server's log; 0: only as `release_wal_bytes` says."""
    release_wal_bytes: int = Field(default=16 << 20, ge=0, le=1 << 40)
    """Write a message once the server keeps so much WAL that nobody has to read; 0: never. One segment of WAL, the unit
    in which the server removes it: an idle server gets no message."""

    message_prefix: Annotated[str, StringConstraints(max_length=63)] = ""
    """Read rounds from transactional logical messages with this prefix, by the options of a table; without `table` and
    `tables` no table is read. Empty: none, since the server then sends the messages of other applications too."""

    @property
    def log_fields(self) -> dict[str, str]:
        """The log fields that name the slot."""
        return {"slot": self.slot, "database": self.shown_dsn}

    @property
    def feed_reader(self) -> str:
        return f"slot {self.slot}"

    @cached_property
    def wishes(self) -> Wishes:
        """What is to be published."""
        return Wishes(self.publication, self.slot, self.all_tables, self.corrections, set())

    @property
    def quoted_tables(self) -> str:
        """All tables of rounds, quoted for SQL."""
        return ", ".join(table.quoted_table for table in self.all_tables)

    @cached_property
    def all_tables(self) -> tuple[TableOptions, ...]:
        """Every table of rounds; none if rounds come from messages only."""
        if self.message_prefix and not {"table", "tables"} & self.model_fields_set:
            return ()
        return super().all_tables

    @model_validator(mode="after")
    def _check_messages(self) -> Self:
        if self.message_prefix and self.feed:
            raise ValueError("message_prefix and feed exclude each other; set one of them")
        if not self.all_tables and self.on_lost == "backfill":
            raise ValueError("on_lost = 'backfill' needs a table, and message_prefix alone reads none")
        if self.message_prefix:
            self.target.for_asyncpg(self.connect_timeout_s)  # see `BoundedConnection`
        return self

    @model_validator(mode="after")
    def _check_failover(self) -> Self:
        if self.failover and not self.create:
            raise ValueError("failover = true requires create = true")
        return self


class SlotState(StrEnum):
    """The state of a slot. Logs, status and metrics use the same word."""

    STREAMING = "streaming"  # we read it
    STANDBY = "standby"  # another process reads it
    LEFT = "left"  # the stream was closed while the log stored nothing; it resumes when the log does
    CONNECTING = "connecting"  # there is no connection to the server
    MISSING = "missing"  # dropped, or never created
    INVALIDATED = "invalidated"  # the server has removed the WAL that it needs
    FOREIGN = "foreign"  # of another database or another plugin
    MOVED = "moved"  # advanced by another program, or dropped and recreated
    PUBLICATION_MISSING = "publication_missing"
    PUBLICATION_LATE = "publication_late"  # created after the offset of the slot
    PUBLICATION_CHANGED = "publication_changed"  # it, its table, or the table's membership was dropped and recreated
    TABLE_NOT_PUBLISHED = "table_not_published"


class SlotLost(SourceError):
    """The slot no longer has the next rounds, or cannot be read. An operator has to act."""

    def __init__(
        self,
        state: SlotState,
        options: ReplicationOptions,
        detail: str = "",
        *,
        at: str = "",
        fault: PublicationFault | None = None,
        facts: PublicationFacts | None = None,
    ) -> None:
        """Write the sentence.

        Args:
            state: What is wrong.
            options: The slot and the tables.
            detail: More about it.
            at: The offset for ``accept_lsn``, with which the slot can be read all the same.
            fault: What the publication does not send.
            facts: The tables, where the sentence says how to create the publication.
        """
        super().__init__(_sentence(state, options, detail, at, fault, facts))
        self.state = state


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that can be read, as the server describes it."""

    confirmed_lsn: int
    publication: str
    """The catalogue rows that decide which rows are sent: `PublicationNote` as text."""
    active_pid: int | None
    """The server process that reads it now; None: none does."""
    facts: PublicationFacts | None = None
    """What the publication sends."""


async def check_slot(link: ReplicationConnection, options: ReplicationOptions) -> Slot:
    """Check that the slot and its publication can be read.

    Raises:
        SlotLost: They cannot.
        StreamLost: The connection broke.
    """
    # The slot first: who creates both begins with the publication, which is then there if the slot was.
    slot = await read_slot(link, options)
    facts = await facts_of(link, options)
    if slot is None:
        needed = "" if facts.oid is not None else f"{creation_sql(options, facts)[0]} "
        raise SlotLost(SlotState.MISSING, options, needed, facts=facts)
    if slot["slot_type"] != "logical" or slot["plugin"] != "pgoutput" or slot["database"] != slot["our_database"]:
        detail = f"{slot['slot_type']} {slot['plugin'] or ''} {slot['database'] or ''}".strip()
        raise SlotLost(SlotState.FOREIGN, options, detail)
    reason = slot.get("invalidation_reason")  # PostgreSQL 17 and later; before that only wal_status
    if reason or slot["wal_status"] == "lost":
        raise SlotLost(SlotState.INVALIDATED, options, reason or "its WAL was removed")
    if facts.oid is None:
        raise SlotLost(SlotState.PUBLICATION_MISSING, options, facts=facts)
    if fault := next(iter(fatal_faults(options, facts)), None):
        raise SlotLost(SlotState.TABLE_NOT_PUBLISHED, options, fault=fault)
    active_pid = slot["active_pid"]
    return Slot(
        parse_lsn(slot["confirmed_flush_lsn"] or "0/0"),
        str(PublicationNote.of(facts)),
        int(active_pid) if active_pid else None,
        facts,
    )


async def check_publication(link: ReplicationConnection, options: ReplicationOptions) -> str | None:
    """Return the note of the publication as `Slot.publication`; None: it does not send all of our rows.

    Raises:
        StreamLost: The connection broke.
    """
    facts = await facts_of(link, options)
    return None if facts.oid is None or fatal_faults(options, facts) else str(PublicationNote.of(facts))


async def facts_of(link: ReplicationConnection, options: ReplicationOptions) -> PublicationFacts:
    """Read what is published; errors as in `ReplicationConnection.query`."""

    async def query(sql: str) -> Sequence[Mapping[str, Any]]:
        return await link.query(sql, options.connect_timeout_s)

    return await settled_facts(options, query)


async def settled_facts(options: ReplicationOptions, query: Query) -> PublicationFacts:
    """Read what is published; errors are those of `query`.

    From PostgreSQL 16 on the query waits for a change of a table, such as DROP COLUMN, and then sees a part of the
    catalogue as it was before; it fails if a table or the publication was dropped. So faults and such errors are
    believed when they are read twice.
    """
    before: PublicationFacts | None = None
    for _ in range(_READS):
        try:
            facts = await read_facts(options.wishes, query)
        except (StreamLost, ConnectionLost, SourceError) as error:
            if not _is_about_dropped(error):
                raise
            continue
        if facts.oid is None or facts == before or not fatal_faults(options, facts):
            return facts
        before = facts
    return await read_facts(options.wishes, query)


def _is_about_dropped(error: Exception) -> bool:
    """Whether something was dropped while the query ran, or was never there."""
    cause = error if isinstance(error, ServerError) else error.__cause__
    return getattr(cause, "sqlstate", "") in _DROPPED


def fatal_faults(options: ReplicationOptions, facts: PublicationFacts) -> list[PublicationFault]:
    """Return the faults with which rounds would be passed over in silence."""
    return [fault for fault in all_faults(options, facts) if fault.is_fatal]


def all_faults(options: ReplicationOptions, facts: PublicationFacts) -> list[PublicationFault]:
    """Return every fault of the publication; a column that the table does not have is none of its faults."""
    needed: dict[str, Sequence[str]] = {}
    for table, found in zip(options.all_tables, facts.tables, strict=True):
        columns = [Column(column.name, column.type_oid) for column in found.columns]
        try:
            needed[table.source] = TableMapper(table, Catalogue({}), columns).columns
        except ColumnMissing:
            needed[table.source] = ()
    return publication_faults(options.wishes, facts, needed)


async def read_slot(link: ReplicationConnection, options: ReplicationOptions) -> Record | None:
    """Return the row of ``sql/read_slot.sql``; None: there is no such slot."""
    return next(iter(await run_statement(link, options, "read_slot", slot=options.slot)), None)


async def run_statement(
    link: ReplicationConnection, options: ReplicationOptions, name: str, **values: str
) -> list[Record]:
    """Run the SQL file of that name; errors as in `ReplicationConnection.query`."""
    return await link.query(statement(name, **values), options.connect_timeout_s)


# --- errors ----------------------------------------------------------------------------------------------------------


def creation_sql(options: ReplicationOptions, facts: PublicationFacts) -> tuple[str, str]:
    """Write the SQL that creates the publication, and the slot; each statement has its semicolon."""
    slot = statement("create_failover_slot" if options.failover else "create_slot", slot=options.slot)
    return " ".join(map(one_line, creation_statements(options.wishes, facts))), one_line(slot)


def renewal_sql(options: ReplicationOptions) -> str:
    """Write the SQL that drops the slot and creates it again, at the present end of the write-ahead log."""
    create = statement("create_failover_slot" if options.failover else "create_slot", slot=options.slot)
    return f"{one_line(statement('drop_slot', slot=options.slot))} {one_line(create)}"


def _sentence(
    state: SlotState,
    options: ReplicationOptions,
    detail: str,
    at: str,
    fault: PublicationFault | None,
    facts: PublicationFacts | None,
) -> str:
    """Say what is wrong, and what to run."""
    slot, publication = f"replication slot {options.slot!r}", f"publication {options.publication!r}"
    where = options.shown_dsn
    create_publication, create_slot = creation_sql(options, facts or unread_facts(options))
    renew = renewal_sql(options)
    backfill = f"then, for the rounds in between, {BACKFILL}"
    go_on = (
        f"{BACKFILL} for the rounds in between, and start ingest again; or, to continue without them, set the option "
        f"accept_lsn = {at}"
    )
    match state:
        case SlotState.MISSING:
            what, run = f"{slot} does not exist on {where}", f"{detail}{create_slot} {backfill}"
        case SlotState.INVALIDATED:
            what, run = f"{slot} on {where} was invalidated: {detail}", f"{renew} {backfill}"
        case SlotState.MOVED:
            what = f"{slot} on {where} was moved {detail} by another program, or the log lost its newest rounds"
            run = go_on
        case SlotState.PUBLICATION_MISSING:
            what, run = f"{publication} does not exist on {where}", f"{create_publication} {renew} {backfill}"
        case SlotState.PUBLICATION_LATE:
            what = f"{publication} was created after the offset of {slot} on {where}"
            run = f"{renew} {backfill}"
        case SlotState.PUBLICATION_CHANGED:
            what = (
                f"{publication} on {where} may not have sent all rows: {detail}"
                if detail
                else f"{publication} on {where} or a table of rounds was dropped and recreated"
            )
            run = go_on
        case SlotState.TABLE_NOT_PUBLISHED:
            what = detail if fault is None else f"{fault.what}, on {where}"
            run = f"{'' if fault is None else fault.run} {backfill}".lstrip()
        case _:
            what = f"{slot} on {where} is not a pgoutput slot of this database: it is {detail}"
            return f"{what} ({state}); set the option 'slot' to another name"
    return f"{what} ({state}); run: {run}"


def unread_facts(options: ReplicationOptions) -> PublicationFacts:
    """Stand in for facts that were not read: only the options say what is needed."""
    tables = [PublishedTable(table.schema_name, table.table_name, None, [], [], [], []) for table in options.all_tables]
    return PublicationFacts(0, None, None, False, False, False, False, False, tables)
