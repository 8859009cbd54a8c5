"""The function and the triggers that copy the rounds of one table into the feed, as SQL. Pure.

Owns which changes of a row are copied. A trigger's condition decides it, and costs little where it is false; it runs as
the writer. The function is in ``sql/create_feed_function.sql``. Why so: docs/adr/0037-a-feed-by-trigger.md
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2s
from typing import Final

from backends.postgres.feed.feed_table import SCHEMA
from backends.postgres.identifiers import quote_identifier, quote_literal
from backends.postgres.statements import statement

PREFIX: Final = "stream_relay_feed_"
"""The names of the triggers begin with it."""
_DIFFERS: Final = "pg_catalog.record_image_ne(OLD, NEW)"
"""A column has changed, of any type: by its image, since json has no equality."""


@dataclass(frozen=True, slots=True)
class FeedMapping:
    """What of one table has to be in the feed."""

    source: str
    """The table's full name, without quotes; each row of the feed has it."""
    quoted_table: str
    columns: tuple[str, ...]
    """The columns that the mapping reads."""
    finished_old: str | None
    """SQL that is true if the old row is a finished round, and raises for no row. None: there is no such SQL, and every
    change of `columns` is copied."""
    finished_new: str | None
    deletes: bool = False
    """Whether deletions of finished rounds are copied."""
    keys: tuple[str, ...] = ()
    """Of a partitioned table, the columns that say which round a row is; else none. An UPDATE can move its rows: then
    its delete must not look like one of a round, nor its insert."""

    @property
    def function(self) -> str:
        """The name of the function, quoted."""
        return f"{SCHEMA}.{quote_identifier(function_name(self.source))}"


@dataclass(frozen=True, slots=True)
class FeedTrigger:
    """One trigger of a table."""

    name: str
    statement: str
    """CREATE TRIGGER as an argument of ``format``, with ``%1$s`` where the table is."""


def function_name(source: str) -> str:
    """Name the function of a table: by a hash, since the name of the table may have 63 bytes itself."""
    return f"feed_{_hash(source)}"


def version_of(mapping: FeedMapping) -> str:
    """Name what the function and the triggers do: a trigger has it as an argument, and another mapping another one."""
    made = [function_sql(mapping), *(trigger.statement for trigger in _triggers(mapping, ""))]
    return _hash("\n".join(made))


def _hash(text: str) -> str:
    return blake2s(text.encode(), digest_size=8).hexdigest()


def triggers_of(mapping: FeedMapping) -> list[FeedTrigger]:
    """Return the triggers that a table needs."""
    return _triggers(mapping, version_of(mapping))


def function_sql(mapping: FeedMapping) -> str:
    """Write the function of the triggers of a table."""
    return statement(
        "create_feed_function",
        function=function_name(mapping.source),
        source=mapping.source,
        old_values=_object("OLD", mapping.columns),
        new_values=_object("NEW", mapping.columns),
        memory=f"{SCHEMA}.moved_{_hash(mapping.source)}",
        is_same_key=" AND ".join(f"moved ->> {key} = after ->> {key}" for key in map(quote_literal, mapping.keys))
        or "TRUE",
    )


def _object(row: str, columns: Sequence[str]) -> str:
    """Write a JSON object of the columns as text, NULL as null."""
    names = ", ".join(quote_literal(column) for column in columns)
    values = ", ".join(_text(f"{row}.{quote_identifier(column)}") for column in columns)
    return f"pg_catalog.json_object(ARRAY[{names}], ARRAY[{values}]::text[])"


def _text(value: str) -> str:
    # format() calls the output function of the type; a cast to text may be a function that the type's owner wrote.
    return f"CASE WHEN {value} IS DISTINCT FROM NULL THEN pg_catalog.format('%s', {value}) END"


def _triggers(mapping: FeedMapping, version: str) -> list[FeedTrigger]:
    old, new = mapping.finished_old, mapping.finished_new
    inserted = ("replaced" if mapping.deletes else "inserted") if mapping.keys else "new"
    finished = "replaced" if inserted == "replaced" else "new"
    # Conditions are short, since the server parses them for each statement: here the whole rows are compared,
    # and the columns of the mapping by the function.
    if old is None or new is None:
        made = [("insert", "INSERT", None, inserted), ("change", "UPDATE", _DIFFERS, "both")]
    else:
        # Changes of finished rounds also without corrections: a row that was rejected may have been mended.
        made = [
            ("insert", "INSERT", new, inserted),
            ("finish", "UPDATE", f"{new} AND NOT ({old})", finished),
            ("change", "UPDATE", f"{old} AND {_DIFFERS}", "both"),
        ]
    if mapping.deletes or mapping.keys:
        rows = ("held" if mapping.deletes else "moved") if mapping.keys else "old"
        made.append(("delete", "DELETE", None if new is None else old, rows))
    if mapping.deletes and mapping.keys:
        made.append(("release", "DELETE", None if new is None else old, "release"))
    return [_trigger(mapping, version, *parts) for parts in made]


def _trigger(mapping: FeedMapping, version: str, name: str, event: str, when: str | None, rows: str) -> FeedTrigger:
    condition = "" if when is None else f" WHEN ({when.replace('%', '%%')})"
    call = f"{mapping.function}({quote_literal(rows)}, {quote_literal(version)})"
    name, body = f"{PREFIX}{name}", f"FOR EACH ROW{condition} EXECUTE FUNCTION {call}"
    if rows == "release":  # at the end of the transaction; such a trigger cannot be replaced
        create = f"CREATE CONSTRAINT TRIGGER {name} AFTER {event} ON %1$s DEFERRABLE INITIALLY DEFERRED {body}"
        return FeedTrigger(name, f"DROP TRIGGER IF EXISTS {name} ON %1$s; {create}")
    return FeedTrigger(name, f"CREATE OR REPLACE TRIGGER {name} AFTER {event} ON %1$s {body}")
