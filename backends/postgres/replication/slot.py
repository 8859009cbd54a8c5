"""The replication slot and its publication: the options, the state now, and the errors when the slot is lost.

Owns the states of a slot, and the sentence for each: what is wrong and what to run. Knows nothing of the stream.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from backends.contract import SourceError
from backends.postgres.postgres_options import Identifier, PostgresOptions, quote_identifier
from backends.postgres.replication.protocol.replication_connection import Record, ReplicationConnection
from backends.postgres.replication.protocol.wal import parse_lsn
from backends.postgres.statements import one_line, statement

BACKFILL: Final = (
    "`stream-relay backend backfill --from-id N`, N the newest id in the log (`stream-relay backend status`)"
)
"""From the newest round in the log: a backfill without it would send the whole table to live clients."""

UNDEFINED: Final = "42704"
"""The SQLSTATE of a stream whose publication was created after the offset of the slot."""
PUBLICATION_SKIPPED: Final = "55000"
"""The SQLSTATE of the warning that PostgreSQL 18 and later send instead; its text is in the language of the server."""


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

    @property
    def log_fields(self) -> dict[str, str]:
        """The log fields that name the slot."""
        return {"slot": self.slot, "database": self.shown_dsn}

    @property
    def feed_reader(self) -> str:
        return f"slot {self.slot}"

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

    def __init__(self, state: SlotState, options: ReplicationOptions, detail: str = "", *, at: str = "") -> None:
        """Write the sentence; `at` is the offset for ``accept_lsn``, with which the slot can be read all the same."""
        super().__init__(_sentence(state, options, detail, at))
        self.state = state


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that can be read, as the server describes it."""

    confirmed_lsn: int
    publication: str
    """The ids of the publication, the table, and the table's membership in it. An id changes when its object is dropped
    and recreated."""
    active_pid: int | None
    """The server process that reads it now; None: none does."""


async def check_slot(link: ReplicationConnection, options: ReplicationOptions) -> Slot:
    """Check that the slot and its publication can be read.

    Raises:
        SlotLost: They cannot.
        StreamLost: The connection broke.
    """
    publication = await read_publication(link, options)
    slot = await read_slot(link, options)
    if slot is None:
        needed = "" if publication is not None else f"{one_line(creation_sql(options)[0])} "
        raise SlotLost(SlotState.MISSING, options, needed)
    if slot["slot_type"] != "logical" or slot["plugin"] != "pgoutput" or slot["database"] != slot["our_database"]:
        detail = f"{slot['slot_type']} {slot['plugin'] or ''} {slot['database'] or ''}".strip()
        raise SlotLost(SlotState.FOREIGN, options, detail)
    reason = slot.get("invalidation_reason")  # PostgreSQL 17 and later; before that only wal_status
    if reason or slot["wal_status"] == "lost":
        raise SlotLost(SlotState.INVALIDATED, options, reason or "its WAL was removed")
    if publication is None:
        raise SlotLost(SlotState.PUBLICATION_MISSING, options)
    if publication["pubinsert"] != "t" or publication["is_published"] != "t":
        needed = f"ALTER PUBLICATION {quote_identifier(options.publication)} ADD TABLE {options.quoted_table}; "
        raise SlotLost(SlotState.TABLE_NOT_PUBLISHED, options, "" if publication["is_member"] == "t" else needed)
    active_pid = slot["active_pid"]
    return Slot(
        parse_lsn(slot["confirmed_flush_lsn"] or "0/0"),
        publication["ids"] or "",
        int(active_pid) if active_pid else None,
    )


async def check_publication(link: ReplicationConnection, options: ReplicationOptions) -> str | None:
    """Return the ids of the publication and the table as `Slot.publication`; None: our rows are not published.

    Raises:
        StreamLost: The connection broke.
    """
    publication = await read_publication(link, options)
    if publication is None or publication["pubinsert"] != "t" or publication["is_published"] != "t":
        return None
    return publication["ids"] or ""


async def read_publication(link: ReplicationConnection, options: ReplicationOptions) -> Record | None:
    """Return the row of ``sql/read_publication.sql``; None: there is no such publication."""
    names = {"schema": options.schema_name, "table": options.table_name, "publication": options.publication}
    return next(iter(await run_statement(link, options, "read_publication", **names)), None)


async def read_slot(link: ReplicationConnection, options: ReplicationOptions) -> Record | None:
    """Return the row of ``sql/read_slot.sql``; None: there is no such slot."""
    return next(iter(await run_statement(link, options, "read_slot", slot=options.slot)), None)


async def run_statement(
    link: ReplicationConnection, options: ReplicationOptions, name: str, **values: str
) -> list[Record]:
    """Run the SQL file of that name; errors as in `ReplicationConnection.query`."""
    return await link.query(statement(name, **values), options.connect_timeout_s)


# --- errors ----------------------------------------------------------------------------------------------------------


def creation_sql(options: ReplicationOptions) -> tuple[str, str]:
    """Write the statements that create the publication, and the slot."""
    publication = statement(
        "create_publication",
        publication=options.publication,
        schema=options.schema_name,
        table=options.table_name,
    )
    return publication, statement("create_failover_slot" if options.failover else "create_slot", slot=options.slot)


def _sentence(state: SlotState, options: ReplicationOptions, detail: str, at: str) -> str:
    """Say what is wrong, and what to run."""
    slot, publication = f"replication slot {options.slot!r}", f"publication {options.publication!r}"
    where = options.shown_dsn
    create_publication, create_slot = map(one_line, creation_sql(options))
    renew = f"{one_line(statement('drop_slot', slot=options.slot))} {create_slot}"
    backfill = f"then, for the rounds in between, {BACKFILL}"
    quoted = quote_identifier(options.publication)
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
                f"{publication} on {where} or table {options.quoted_table} was dropped and recreated, or the table was "
                "removed from the publication and added again"
            )
            run = go_on
        case SlotState.TABLE_NOT_PUBLISHED:
            what = f"{publication} on {where} does not publish inserts of {options.quoted_table}"
            change = f"ALTER PUBLICATION {quoted} SET (publish = 'insert', publish_via_partition_root = true);"
            run = f"{detail}{change} {backfill}"
        case _:
            what = f"{slot} on {where} is not a pgoutput slot of this database: it is {detail}"
            return f"{what} ({state}); set the option 'slot' to another name"
    return f"{what} ({state}); run: {run}"
