"""Say what capture reads of each table, by what the publication sends of it. Pure."""

from collections.abc import Sequence
from typing import Final

from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.capture import SourceTable
from backends.postgres.replication.publication.publication_facts import (
    Needs,
    PublicationFacts,
    PublishedTable,
    needs_of,
)
from backends.postgres.replication.rows.row_reader import Wanted

_NO_UPDATES: Final = (
    "the row is not finished, and it would not become a round when it is: {reason}; run: stream-relay backend setup"
)


def source_tables(options: PostgresOptions, facts: PublicationFacts) -> Sequence[SourceTable]:
    """Return the tables of the options as capture reads them."""
    return [
        SourceTable(
            table,
            {member.oid: member.source for member in found.members},
            _wanted(options, table, found, facts),
        )
        for table, found in zip(options.all_tables, facts.tables, strict=True)
    ]


def _wanted(options: PostgresOptions, table: TableOptions, found: PublishedTable, facts: PublicationFacts) -> Wanted:
    needs: Needs = needs_of(table, found, corrections=options.corrections)
    is_full = all(leaf.is_full for leaf in found.leaves)
    if needs.updates and needs.is_by_default and not (facts.updates and is_full):
        # An installation from before rounds could finish by UPDATE: its finished rows are captured as they were.
        reason = "a replica identity is not FULL" if facts.updates else "the publication sends no updates"
        return Wanted(updates=False, deletes=False, unfinished_reason=_NO_UPDATES.format(reason=reason))
    return Wanted(
        needs.updates, needs.deletes or table.deletes == "void", rejects_unknown=needs.updates and needs.is_by_default
    )
