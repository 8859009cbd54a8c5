"""Whether the rows of a table become rounds by an UPDATE, or are rounds when they are inserted. Pure."""

from collections.abc import Mapping

from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.value_path import ValuePath


def finished_by_options(table: TableOptions) -> bool | None:
    """Whether the options say that an UPDATE finishes rounds; None: the time decides, by whether it may be NULL."""
    if table.finished_by != "auto":
        return table.finished_by == "update"
    return True if table.finished_when is not None else None


def finishes_by_update(table: TableOptions, nullable: Mapping[str, bool]) -> bool:
    """Whether an UPDATE may finish a round.

    A member of a JSON document may always be NULL. ``sql/create_update_wake.sql`` decides the same.

    Args:
        table: The options.
        nullable: Whether a column may be NULL, for each column of the table.
    """
    if (by_options := finished_by_options(table)) is not None:
        return by_options
    place = ValuePath.parse(table.finished_at_column).place(tuple(nullable))
    return place is not None and (bool(place.members) or nullable[place.column])
