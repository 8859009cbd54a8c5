"""The replication slot and what it needs around it: its options, how it stands now, and the words when it is lost.

Owns the states that a slot can be in and the words for each: what it is and what to run. Knows nothing of the stream.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from backends.contract import SourceError
from backends.postgres.options import Identifier, PostgresOptions, quote_identifier
from backends.postgres.replication.protocol.connection import Record, ReplicationConnection
from backends.postgres.replication.protocol.wal import parse_lsn
from backends.postgres.statements import one_line, statement

BACKFILL: Final = (
    "`stream-relay backend backfill --from-id N`, N the newest id in the log (`stream-relay backend status`)"
)
"""From the newest round that the log has: a plain backfill would send all of the table to live clients."""

UNDEFINED: Final = "42704"
"""The SQLSTATE of a stream whose publication was made after the offset that it is at."""
PUBLICATION_SKIPPED: Final = "skipped loading publication"
"""How the warning begins that takes its offset from PostgreSQL 18 on."""


class ReplicationOptions(PostgresOptions):
    """Everything that `postgres-replication` can be told."""

    slot: Annotated[str, StringConstraints(pattern="^[a-z0-9_]{1,63}$")] = "stream_relay"
    """Processes with the same slot stand by for each other; different logs need different slots."""
    publication: Identifier = "stream_relay"
    create: bool = False
    """Make publication and slot where neither exists. A slot alone that is missing was lost, and is never made anew."""
    failover: bool = False
    """Make a slot that physical standbys keep too, so that it survives a failover. PostgreSQL 17 and later."""
    on_lost: Literal["stop", "backfill"] = "stop"
    """When the slot is lost: stop and name the command to run, or make a new one and fill in from the table."""
    accept_lsn: Annotated[str, StringConstraints(pattern="^([0-9A-F]{1,8}/[0-9A-F]{1,8})?$")] = ""
    """A slot that was moved, or whose publication was changed, is read on from this offset, and no other, although
    rounds before it may be missing. What ingest stopped with names it."""
    sender_timeout_s: float = Field(default=15.0, ge=1, le=3600)
    """A reader that is silent for so long loses the slot to the next one, and a server so silent is connected to anew.
    Sets ``wal_sender_timeout`` for this connection."""
    heartbeat_s: float = Field(default=0.0, ge=0, le=3600)
    """How often to write a message into the server's log; 0: never. Who needs it: docs/postgres-replication.md"""

    @property
    def log_fields(self) -> dict[str, str]:
        """What names the slot in a line of the log."""
        return {"slot": self.slot, "database": self.shown_dsn}

    @model_validator(mode="after")
    def _check_failover(self) -> Self:
        if self.failover and not self.create:
            raise ValueError("failover = true only has a meaning with create = true")
        return self


class SlotState(StrEnum):
    """What is the matter with a slot. The same word in logs, status and metrics."""

    READY = "ready"  # it can be read
    STREAMING = "streaming"  # we read it
    STANDBY = "standby"  # another process reads it; we wait
    LEFT = "left"  # the log takes nothing, so the stream was left; it goes on there when it does
    CONNECTING = "connecting"  # there is no connection to the server
    MISSING = "missing"  # dropped, or never made
    INVALIDATED = "invalidated"  # the server has removed what it kept for it
    FOREIGN = "foreign"  # of another database, or for another plugin
    MOVED = "moved"  # somebody moved it, or dropped and made it again, while we were away
    PUBLICATION_MISSING = "publication_missing"
    PUBLICATION_LATE = "publication_late"  # made after the offset that the slot is at
    PUBLICATION_CHANGED = "publication_changed"  # it, its table, or that it holds it, was undone and done again
    TABLE_NOT_PUBLISHED = "table_not_published"


class SlotLost(SourceError):
    """The slot does not hold what comes next any more, or cannot give it. Nothing goes on without an operator."""

    def __init__(self, state: SlotState, options: ReplicationOptions, detail: str = "", *, at: str = "") -> None:
        """Say what is the matter; `at` is the slot's offset, from which it can be read on all the same."""
        super().__init__(_sentence(state, options, detail, at))
        self.state = state


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot that can be read, as the server described it."""

    confirmed_lsn: int
    publication: str
    """Which publication, table, and membership it is read with: none of the three is ever the same again when it was
    dropped and made anew."""
    holder: int | None
    """The server's process that reads it now."""


async def check_slot(link: ReplicationConnection, options: ReplicationOptions) -> Slot:
    """See that the slot and its publication stand.

    Raises:
        SlotLost: They do not.
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
    reason = slot.get("invalidation_reason")  # of 17 and later; before, only that it is so
    if reason or slot["wal_status"] == "lost":
        raise SlotLost(SlotState.INVALIDATED, options, reason or "what it kept is gone")
    if publication is None:
        raise SlotLost(SlotState.PUBLICATION_MISSING, options)
    if publication["pubinsert"] != "t" or publication["covers"] != "t":
        needed = f"ALTER PUBLICATION {quote_identifier(options.publication)} ADD TABLE {options.quoted_table}; "
        raise SlotLost(SlotState.TABLE_NOT_PUBLISHED, options, "" if publication["member"] == "t" else needed)
    holder = slot["active_pid"]
    return Slot(
        parse_lsn(slot["confirmed_flush_lsn"] or "0/0"),
        publication["incarnation"] or "",
        int(holder) if holder else None,
    )


async def check_publication(link: ReplicationConnection, options: ReplicationOptions) -> str | None:
    """Return which publication and table stand now, as `Slot.publication`; None: rows of ours are not published.

    Raises:
        StreamLost: The connection broke.
    """
    publication = await read_publication(link, options)
    if publication is None or publication["pubinsert"] != "t" or publication["covers"] != "t":
        return None
    return publication["incarnation"] or ""


async def read_publication(link: ReplicationConnection, options: ReplicationOptions) -> Record | None:
    """Return the publication as `sql/read_publication.sql` describes it; None: there is none."""
    names = {"schema": options.schema_name, "table": options.table_name, "publication": options.publication}
    return next(iter(await ask(link, options, "read_publication", **names)), None)


async def read_slot(link: ReplicationConnection, options: ReplicationOptions) -> Record | None:
    """Return the slot as `sql/read_slot.sql` describes it; None: there is none."""
    return next(iter(await ask(link, options, "read_slot", slot=options.slot)), None)


async def ask(link: ReplicationConnection, options: ReplicationOptions, name: str, **values: str) -> list[Record]:
    """Run the statement of that name; errors as in `ReplicationConnection.query`."""
    return await link.query(statement(name, **values), options.connect_timeout_s)


# --- words -----------------------------------------------------------------------------------------------------------


def creation_sql(options: ReplicationOptions) -> tuple[str, str]:
    """Write the statements that make the publication, and the slot."""
    publication = statement(
        "create_publication",
        publication=options.publication,
        schema=options.schema_name,
        table=options.table_name,
    )
    return publication, statement("create_failover_slot" if options.failover else "create_slot", slot=options.slot)


def _sentence(state: SlotState, options: ReplicationOptions, detail: str, at: str) -> str:
    """Say what is the matter, and what to run."""
    slot, publication = f"replication slot {options.slot!r}", f"publication {options.publication!r}"
    where = options.shown_dsn
    create_publication, create_slot = map(one_line, creation_sql(options))
    renew = f"{one_line(statement('drop_slot', slot=options.slot))} {create_slot}"
    backfill = f"then, for the rounds in between, {BACKFILL}"
    quoted = quote_identifier(options.publication)
    go_on = f"for the rounds in between {BACKFILL}, and start again; or go on without them: accept_lsn = {at}"
    match state:
        case SlotState.MISSING:
            what, run = f"{slot} does not exist on {where}", f"{detail}{create_slot} {backfill}"
        case SlotState.INVALIDATED:
            what, run = f"{slot} on {where} was invalidated: {detail}", f"{renew} {backfill}"
        case SlotState.MOVED:
            what = f"{slot} on {where} was moved {detail} by somebody else"
            run = go_on
        case SlotState.PUBLICATION_MISSING:
            what, run = f"{publication} does not exist on {where}", f"{create_publication} {renew} {backfill}"
        case SlotState.PUBLICATION_LATE:
            what = f"{publication} was made after the offset that {slot} is at on {where}"
            run = f"{renew} {backfill}"
        case SlotState.PUBLICATION_CHANGED:
            what = f"{publication} on {where}, or what it holds of {options.quoted_table}, was dropped and made anew"
            run = go_on
        case SlotState.TABLE_NOT_PUBLISHED:
            what = f"{publication} on {where} does not publish inserts of {options.quoted_table}"
            change = f"ALTER PUBLICATION {quoted} SET (publish = 'insert', publish_via_partition_root = true);"
            run = f"{detail}{change} {backfill}"
        case _:
            what = f"{slot} on {where} is not a pgoutput slot of this database but {detail}"
            return f"{what} ({state}); set the option 'slot' to another name"
    return f"{what} ({state}); run: {run}"
