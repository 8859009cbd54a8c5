"""Read what a publication sends of the tables of rounds.

Owns the facts only, and what the tables need of a publication. What is wrong with it is in `publication_faults`, and
whether it was changed in `publication_note`.
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from backends.postgres.identifiers import quote_identifier
from backends.postgres.mapping.finishing import finished_by_options, finishes_by_update
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.statements import statement

_SCHEMAS_SINCE: Final = 150000
_CLEARED: Final = 10_000

Query = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]
"""Runs one statement and returns its rows, over a connection of either driver."""


class Wishes(NamedTuple):
    """What is to be published, as the options say it."""

    publication: str
    slot: str
    tables: Sequence[TableOptions]
    corrections: bool
    cleared: set[str]
    """Attached partitions and children that had no rows before, as `AttachedTable.text`: they need one look only."""


class PublishedColumn(msgspec.Struct, frozen=True):
    """A column of a table."""

    name: str
    type_oid: int
    generated: str
    """``s``: a stored generated column; ``v``: a virtual one; empty: another column."""
    not_null: bool


class RelationName(msgspec.Struct, frozen=True):
    """The name of a relation, for what is known of it."""

    schema_name: str
    table_name: str

    @property
    def source(self) -> str:
        """Its name without quotes."""
        return f"{self.schema_name}.{self.table_name}"

    @property
    def quoted(self) -> str:
        """Its name, quoted for SQL."""
        return quoted_name(self.schema_name, self.table_name)


class PublishedMember(RelationName, frozen=True):
    """A table, or a child of it by INHERITS, and how it is published."""

    oid: int
    is_partitioned: bool
    is_published: bool
    columns: list[str] | None
    """The columns that are sent; None: all but generated ones (PostgreSQL 14)."""
    row_filter: str | None
    placed: str | None
    """The version of the catalogue row that says in which schema it is: it changes when the table is moved."""
    memberships: list[str]
    """The catalogue rows that include it without a filter, as ``oid:version``."""


class LeafTable(RelationName, frozen=True):
    """A table that stores rows: the table itself, a partition or a child."""

    is_full: bool
    """Whether its replica identity is FULL."""
    has_identity: bool
    """Whether its rows can be changed while their updates are published."""
    is_logged: bool


class AttachedTable(RelationName, frozen=True):
    """A partition or a child that became part of a table not long ago."""

    oid: int
    is_child: bool
    since: str
    """The transaction from which on its rows are sent."""
    may_read: bool

    @property
    def text(self) -> str:
        """Name it and that transaction, in one word."""
        return f"{self.source}@{self.oid}:{self.since}"


class PublishedTable(RelationName, frozen=True):
    """A table of rounds; `oid` is None if it does not exist."""

    oid: int | None
    columns: list[PublishedColumn]
    members: list[PublishedMember]
    leaves: list[LeafTable]
    attached: list[AttachedTable]

    @property
    def is_partitioned(self) -> bool:
        return any(member.is_partitioned for member in self.members)


class PublicationFacts(msgspec.Struct, frozen=True):
    """What ``sql/read_publication.sql`` returns; `oid` is None if there is no such publication."""

    version: int
    oid: int | None
    row: str | None
    inserts: bool
    updates: bool
    deletes: bool
    via_root: bool
    all_tables: bool
    tables: list[PublishedTable]
    schemas: dict[str, str] = {}
    """The schemas that it includes as a whole, each with its catalogue row."""
    filled: list[str] = []
    """Partitions and children that had rows before they became part of a table, as `AttachedTable.text`."""

    @property
    def operations(self) -> str:
        """A letter for each operation that is published, and ``r`` for publish_via_partition_root."""
        flags = {"i": self.inserts, "u": self.updates, "d": self.deletes, "r": self.via_root}
        return "".join(letter for letter, is_on in flags.items() if is_on)


def quoted_name(schema: str, table: str) -> str:
    """Write the name of a table, quoted for SQL."""
    return f"{quote_identifier(schema)}.{quote_identifier(table)}"


async def read_facts(wishes: Wishes, query: Query) -> PublicationFacts:
    """Read the facts; errors are those of `query`."""
    tables = [{"schema_name": table.schema_name, "table_name": table.table_name} for table in wishes.tables]
    names = {"publication": wishes.publication, "slot": wishes.slot, "tables": json.dumps(tables, ensure_ascii=False)}
    (row,) = await query(statement("read_publication", **names))
    facts = msgspec.json.decode(row["facts"], type=PublicationFacts)
    if facts.oid is None:
        return facts
    schemas: dict[str, str] = {}
    if facts.version >= _SCHEMAS_SINCE:
        rows = await query(statement("read_schema_memberships", publication=wishes.publication))
        schemas = {row["schema_name"]: row["membership"] for row in rows}
    filled = [part.text for table in facts.tables for part in table.attached if await _had_rows(wishes, part, query)]
    return msgspec.structs.replace(facts, schemas=schemas, filled=filled)


async def _had_rows(wishes: Wishes, part: AttachedTable, query: Query) -> bool:
    """Whether it had rows before; False if our role may not look."""
    if not part.may_read or part.text in wishes.cleared:
        return False
    names = {"schema": part.schema_name, "table": part.table_name}
    (row,) = await query(statement("read_older_rows", **names, oid=str(part.oid), since=part.since))
    had_rows = row["has_older"] in (True, "t")
    if not had_rows:
        if len(wishes.cleared) >= _CLEARED:
            wishes.cleared.clear()
        wishes.cleared.add(part.text)
    return had_rows


# --- what the tables need -----------------------------------------------------------------------------------------


class Needs(NamedTuple):
    """What one table needs of its publication besides inserts."""

    updates: bool
    deletes: bool
    is_by_default: bool
    """Whether updates are needed only because the time may be NULL. A publication without them still works."""


def needs_of(table: TableOptions, facts: PublishedTable, *, corrections: bool) -> Needs:
    """Say what a table needs."""
    nullable = {column.name: not column.not_null for column in facts.columns}
    updates = finishes_by_update(table, nullable) or corrections
    # An update that moves a row to another partition comes as a delete and an insert.
    deletes = (corrections and table.deletes == "void") or (updates and facts.is_partitioned)
    is_by_default = finished_by_options(table) is None and not corrections
    return Needs(updates, deletes, is_by_default)


def operations_needed(wishes: Wishes, facts: PublicationFacts) -> str:
    """Write the list for the parameter ``publish`` of a publication of all tables."""
    needs = [
        needs_of(table, found, corrections=wishes.corrections)
        for table, found in zip(wishes.tables, facts.tables, strict=True)
    ]
    wanted = {
        "insert": True,
        "update": facts.updates or any(need.updates for need in needs),
        "delete": facts.deletes or any(need.deletes for need in needs),
    }
    return ", ".join(name for name, is_wanted in wanted.items() if is_wanted)
