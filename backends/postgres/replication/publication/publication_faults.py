"""Say what a publication does not send of the tables of rounds, and what to run.

Pure. The one place that knows what can make a publication send less: set-up, start, watch and check ask it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from backends.postgres.identifiers import quote_identifier
from backends.postgres.replication.publication.publication_facts import (
    Needs,
    PublicationFacts,
    PublishedMember,
    PublishedTable,
    Wishes,
    needs_of,
    operations_needed,
)
from backends.postgres.statements import one_line, statement

_GENERATED_SINCE: Final = 180000


class PublicationFault(NamedTuple):
    """One thing that is wrong with a publication."""

    what: str
    """What it does not do, as the end of a sentence whose subject is the publication, or a sentence of its own."""
    run: str
    """The SQL that mends it, each statement with its semicolon."""
    is_fatal: bool = True
    """Whether rounds would be passed over in silence. If not, the rows are rejected with the reason."""
    is_sql: bool = True
    """Whether `run` is SQL only, which a set-up may run."""


def publication_faults(
    wishes: Wishes, facts: PublicationFacts, needed: Mapping[str, Sequence[str]]
) -> list[PublicationFault]:
    """Return what is wrong with an existing publication, the worst first.

    Args:
        wishes: What is to be published.
        facts: What is published.
        needed: The columns that are read, by ``schema.table``.
    """
    faults = [
        fault
        for table, found in zip(wishes.tables, facts.tables, strict=True)
        for fault in _table_faults(
            wishes, facts, found, needs_of(table, found, corrections=wishes.corrections), needed.get(table.source, ())
        )
    ]
    return sorted(faults, key=lambda fault: not fault.is_fatal)


def _table_faults(
    wishes: Wishes, facts: PublicationFacts, table: PublishedTable, needs: Needs, needed: Sequence[str]
) -> Iterator[PublicationFault]:
    if table.oid is None:
        yield PublicationFault(f"table {table.quoted} does not exist", "set the option 'table';", is_sql=False)
        return
    unlogged = list(_unlogged_faults(table))
    yield from unlogged
    root = table.members[0]
    if facts.inserts and root.is_published:
        yield from _member_faults(wishes, table)
        yield from _column_faults(wishes, facts, table, needs, needed)
        yield from _operation_faults(wishes, facts, table, needs)
        return
    if unlogged:
        return  # no publication includes an unlogged table
    is_member = bool(root.memberships) or facts.all_tables or root.schema_name in facts.schemas
    add = "" if is_member or root.row_filter is not None else f"{_alter(wishes)} ADD TABLE {table.quoted}; "
    yield PublicationFault(
        f"publication {wishes.publication!r} does not publish inserts of {table.quoted}", f"{add}{_set(wishes, facts)}"
    )


def _alter(wishes: Wishes) -> str:
    return f"ALTER PUBLICATION {quote_identifier(wishes.publication)}"


def _set(wishes: Wishes, facts: PublicationFacts) -> str:
    operations = operations_needed(wishes, facts)
    identities = " ".join(map(one_line, identity_statements(wishes, facts)))
    return (
        f"{identities} {_alter(wishes)} SET (publish = '{operations}', publish_via_partition_root = true);"
    ).lstrip()


def _again(wishes: Wishes, member: PublishedMember) -> str:
    """Write what includes a table without a filter and without a list of columns."""
    return f"{_alter(wishes)} DROP TABLE {member.quoted}; {_alter(wishes)} ADD TABLE {member.quoted};"


def _member_faults(wishes: Wishes, table: PublishedTable) -> Iterator[PublicationFault]:
    name = repr(wishes.publication)
    for member in table.members:
        if not member.is_published:
            what = f"publication {name} does not publish rows of {member.quoted}, a child of {table.quoted} by INHERITS"
            yield PublicationFault(what, f"{_alter(wishes)} ADD TABLE {member.quoted};")
        elif member.row_filter is not None:
            what = f"publication {name} publishes only rows of {member.quoted} WHERE {member.row_filter}"
            yield PublicationFault(what, _again(wishes, member))


def _unlogged_faults(table: PublishedTable) -> Iterator[PublicationFault]:
    for leaf in table.leaves:
        if not leaf.is_logged:
            what = f"table {leaf.quoted} is unlogged, so its rows are not in the write-ahead log"
            yield PublicationFault(what, f"ALTER TABLE {leaf.quoted} SET LOGGED;")


def _operation_faults(
    wishes: Wishes, facts: PublicationFacts, table: PublishedTable, needs: Needs
) -> Iterator[PublicationFault]:
    name = repr(wishes.publication)
    if needs.updates and not facts.updates:
        what = f"publication {name} does not publish updates of {table.quoted}, "
        if needs.is_by_default:
            what += "whose rows may be finished by UPDATE, since their time of finishing may be NULL"
        else:
            what += "which finish or correct its rounds"
        yield PublicationFault(what, _set(wishes, facts), is_fatal=not needs.is_by_default)
        return
    for leaf in table.leaves if needs.updates else ():
        if not leaf.is_full:
            what = (
                f"the replica identity of {leaf.quoted} is not FULL, so an UPDATE does not show whether its round was "
                "finished before"
            )
            run = f"ALTER TABLE {leaf.quoted} REPLICA IDENTITY FULL;"
            yield PublicationFault(what, run, is_fatal=not needs.is_by_default)
    if needs.deletes and not facts.deletes:
        what = f"publication {name} does not publish deletes of {table.quoted}"
        yield PublicationFault(what, _set(wishes, facts))


def _column_faults(
    wishes: Wishes, facts: PublicationFacts, table: PublishedTable, needs: Needs, needed: Sequence[str]
) -> Iterator[PublicationFault]:
    name = repr(wishes.publication)
    generated = {column.name: column.generated for column in table.columns if column.generated}
    for member in table.members:
        sent = _sent(facts, table, member, generated)
        missing = next((name for name in needed if name not in sent), None)
        hidden = _hidden_from_identity(facts, table, sent, generated) if needs.updates and facts.updates else None
        if missing in generated:
            what = f"column {missing!r} of {member.quoted} is generated, and publication {name} does not send it"
            run = _generated_remedy(wishes, facts, member, generated[missing], missing)
            yield PublicationFault(what, run, is_sql="; and " not in run)
        elif missing is not None:
            what = f"publication {name} does not send column {missing!r} of {member.quoted}"
            yield PublicationFault(what, _again(wishes, member))
        elif hidden is not None:
            what = (
                f"publication {name} does not send column {hidden!r} of {member.quoted}, so an UPDATE of it with "
                "REPLICA IDENTITY FULL fails"
            )
            is_generated = hidden in generated
            run = f"{_alter(wishes)} SET (publish_generated_columns = stored);"
            yield PublicationFault(what, run if is_generated else _again(wishes, member))


def _sent(
    facts: PublicationFacts, table: PublishedTable, member: PublishedMember, generated: Mapping[str, str]
) -> set[str]:
    listed = [column.name for column in table.columns] if member.columns is None else member.columns
    can_send = facts.version >= _GENERATED_SINCE
    return {name for name in listed if name not in generated or (can_send and generated[name] == "s")}


def _hidden_from_identity(
    facts: PublicationFacts, table: PublishedTable, sent: set[str], generated: Mapping[str, str]
) -> str | None:
    """Return a column of the replica identity FULL that is not sent, so that the owner's UPDATE fails."""
    counts = [
        column.name for column in table.columns if column.name not in generated or facts.version >= _GENERATED_SINCE
    ]
    return next((name for name in counts if name not in sent), None)


def _generated_remedy(wishes: Wishes, facts: PublicationFacts, member: PublishedMember, kind: str, column: str) -> str:
    quoted = quote_identifier(column)
    if facts.version >= _GENERATED_SINCE and kind == "s":
        return f"{_alter(wishes)} SET (publish_generated_columns = stored);"
    if facts.version >= _GENERATED_SINCE:
        return (
            f"ALTER TABLE {member.quoted} DROP COLUMN {quoted}; and add it as GENERATED ALWAYS AS (...) STORED, since "
            "virtual generated columns are never sent;"
        )
    return (
        f"ALTER TABLE {member.quoted} ALTER COLUMN {quoted} DROP EXPRESSION; and set the column by the INSERT or a "
        "trigger, since generated columns are sent by PostgreSQL 18 and later only;"
    )


# --- setting up ----------------------------------------------------------------------------------------------------


def identity_statements(wishes: Wishes, facts: PublicationFacts) -> list[str]:
    """Write what gives every table the replica identity that it needs if updates are published; empty: it has it.

    A table that is only inserted into needs one too, or its owner's UPDATE fails, if updates of another one are sent.
    """
    needs = [
        needs_of(table, found, corrections=wishes.corrections)
        for table, found in zip(wishes.tables, facts.tables, strict=True)
    ]
    has_updates = facts.updates or any(need.updates for need in needs)
    unread = [
        f"ALTER TABLE {found.quoted} REPLICA IDENTITY FULL"
        for need, found in zip(needs, facts.tables, strict=True)
        if need.updates and not found.leaves
    ]
    return unread + [
        f"ALTER TABLE {leaf.quoted} REPLICA IDENTITY FULL"
        for need, found in zip(needs, facts.tables, strict=True)
        for leaf in found.leaves
        if has_updates and not (leaf.is_full if need.updates else leaf.has_identity)
    ]


def creation_statements(wishes: Wishes, facts: PublicationFacts) -> list[str]:
    """Write what creates the publication, and then the replica identities that it needs.

    Run them in one transaction: in between, the owner's UPDATE fails.
    """
    has_updates = any(
        needs_of(table, found, corrections=wishes.corrections).updates
        for table, found in zip(wishes.tables, facts.tables, strict=True)
    )
    has_generated = facts.version >= _GENERATED_SINCE and _has_stored(facts)
    if not (has_updates or has_generated) and len(wishes.tables) == 1:
        (table,) = wishes.tables
        names = {"schema": table.schema_name, "table": table.table_name}
        return [statement("create_publication", publication=wishes.publication, **names)]
    listed = ", ".join(table.quoted_table for table in wishes.tables)
    settings = f"publish = '{operations_needed(wishes, facts)}', publish_via_partition_root = true"
    if has_generated:
        # Rounds may need them, and with REPLICA IDENTITY FULL an UPDATE fails while a column is not published.
        settings += ", publish_generated_columns = stored"
    published = f"FOR TABLE {listed} WITH ({settings})" if listed else ""
    names = {"publication": wishes.publication, "published_tables": published}
    return [statement("create_wide_publication", **names), *identity_statements(wishes, facts)]


def _has_stored(facts: PublicationFacts) -> bool:
    return any(column.generated == "s" for table in facts.tables for column in table.columns)


def refusal_of(wishes: Wishes, facts: PublicationFacts) -> str | None:
    """Say why the publication may not be created: the owner's UPDATE would fail. None: it may."""
    if facts.version < _GENERATED_SINCE:
        return None
    for table, found in zip(wishes.tables, facts.tables, strict=True):
        virtual = next((column.name for column in found.columns if column.generated == "v"), None)
        if virtual is not None and needs_of(table, found, corrections=wishes.corrections).updates:
            return (
                f"table {found.quoted} has the virtual generated column {virtual!r}, so every UPDATE of it would fail "
                "while its updates are published with REPLICA IDENTITY FULL; make the column STORED, drop it, or use "
                "postgres-notify"
            )
    return None
