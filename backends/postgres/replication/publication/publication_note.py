"""What the log remembers of a publication, and whether the publication was changed since.

Pure. A publication that is changed and changed back looks the same, and did not send rows in between: so the versions
of its catalogue rows are compared. What makes it send more is not a change: further tables, and further operations.
"""

from typing import Final, NamedTuple, Self

import msgspec

from backends.postgres.replication.publication.publication_facts import PublicationFacts, PublishedMember

_ALL: Final = "all"


class _Table(msgspec.Struct, omit_defaults=True):
    oid: int
    members: dict[str, list[str]] = {}
    """What includes the table and its children, by their oids."""


class PublicationNote(msgspec.Struct, omit_defaults=True):
    """The catalogue rows of a publication that decide which rows of our tables it sends."""

    oid: int
    row: str = ""
    operations: str = ""
    tables: dict[str, _Table] = {}
    filled: list[str] = []
    """Partitions and children that had rows before they became part of a table."""
    legacy: str = ""
    """What an earlier release has stored: the oids of the publication, of the table, and of its membership."""

    @classmethod
    def of(cls, facts: PublicationFacts) -> Self:
        """Take what matters from the facts of an existing publication."""
        tables = {
            table.source: _Table(
                table.oid or 0, {str(member.oid): _includes(facts, member) for member in table.members}
            )
            for table in facts.tables
        }
        return cls(facts.oid or 0, facts.row or "", facts.operations, tables, facts.filled)

    @classmethod
    def read(cls, text: str) -> Self:
        """Read a note back; of an unknown form only that it is there is known."""
        if not text.startswith("{"):
            return cls(0, legacy=text)
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return cls(0, legacy=text)

    def __str__(self) -> str:
        return msgspec.json.encode(self).decode()

    def legacy_text(self) -> str:
        """Write what an earlier release would have stored."""
        first = next(iter(self.tables.values()), None)
        parts = [str(self.oid)]
        if first is not None:
            rows = first.members.get(str(first.oid), [])
            parts += [str(first.oid), *(row.partition(":")[0] for row in rows[-1:] if row[:1].isdigit())]
        return ".".join(parts)


class Change(NamedTuple):
    """What has changed of a publication."""

    lost: str
    """Why rows may not have been sent; empty: all were."""
    widened: str = ""
    """What it sends more than before; empty: nothing."""


def change_between(before: str, now: str) -> Change:
    """Compare two notes, as ``str(PublicationNote)``."""
    if before == now:
        return Change("")
    old, new = PublicationNote.read(before), PublicationNote.read(now)
    if old.legacy:
        is_same = old.legacy in (new.legacy, new.legacy_text())
        return Change("" if is_same else "the publication or its table was dropped and recreated")
    if old.oid != new.oid:
        return Change("the publication was dropped and recreated")
    widened = ""
    if old.row != new.row:
        if set(new.operations) <= set(old.operations):
            return Change("the publication was altered, and perhaps altered back")
        if not set(old.operations) <= set(new.operations):
            return Change("the publication sends other operations than before")
        widened = "operations"
    for name in old.tables.keys() & new.tables.keys():
        if lost := _lost_of(name, old.tables[name], new.tables[name]):
            return Change(lost)
    if filled := [part for part in new.filled if part not in old.filled]:
        name = filled[0].rpartition("@")[0]
        return Change(f"{name} became part of a table of rounds with rows in it, which were not sent")
    return Change("", widened)


def _lost_of(name: str, old: _Table, new: _Table) -> str:
    if old.oid != new.oid:
        return f"table {name} was dropped and recreated, or another table has its name now"
    for oid, rows in old.members.items():
        if oid in new.members and not set(rows) & set(new.members[oid]):
            return f"table {name} or a child of it was removed from the publication and added again"
    return ""


def _includes(facts: PublicationFacts, member: PublishedMember) -> list[str]:
    """Say what includes the table: while one of these stays as it is, all of its rows are sent."""
    schema = facts.schemas.get(member.schema_name)
    wide = [*([_ALL] if facts.all_tables else []), *([f"s{schema}/{member.placed}"] if schema else [])]
    return [*wide, *member.memberships]
