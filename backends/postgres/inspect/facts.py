"""What is known of the tables of a database: values only. Read by `backends.postgres.inspect.look`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from backends.postgres.identifiers import quote_identifier

INTEGERS: Final = frozenset({"int2", "int4", "int8"})
NUMBERS: Final = INTEGERS | {"numeric", "float4", "float8", "money"}
TEXTS: Final = frozenset({"text", "varchar", "bpchar", "name", "citext"})
DOCUMENTS: Final = frozenset({"json", "jsonb"})
TIMES: Final = frozenset({"timestamptz", "timestamp"})


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """One column, as the catalogue of the database describes it."""

    name: str
    type_oid: int
    base_type: str
    """The name of its type; of a domain, the name of the type below it."""
    type_name: str
    """Its type as SQL writes it: ``numeric(12,2)``."""
    is_enum: bool = False
    labels: tuple[str, ...] = ()
    """The labels of its enum type; empty: it is no enum."""
    not_null: bool = False
    is_generated: bool = False
    is_sequenced: bool = False
    """Whether the database numbers the rows: an identity column, or a default from a sequence."""
    default: str | None = None
    """Its default as SQL; None: there is none."""


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A reference to another table."""

    columns: tuple[str, ...]
    target_oid: int
    target_columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableFacts:
    """One table or view, as the catalogue of the database describes it."""

    oid: int
    schema: str
    name: str
    kind: str
    """``r`` table, ``p`` partitioned table, ``v`` view, ``m`` materialized view, ``f`` foreign table."""
    columns: tuple[ColumnFacts, ...]
    primary_key: tuple[str, ...] = ()
    unique_keys: tuple[tuple[str, ...], ...] = ()
    """With the primary key."""
    foreign_keys: tuple[ForeignKey, ...] = ()
    checks: tuple[str, ...] = ()
    """Its CHECK constraints as SQL."""
    persistence: str = "p"
    identity: str = "d"
    """Its replica identity: ``d`` default, ``n`` nothing, ``f`` full, ``i`` an index."""
    has_row_security: bool = False
    hides_rows: bool = False
    """Whether row level security applies to our role."""
    may_read: bool = True
    estimated_rows: int = 0
    inserted: int = 0
    updated: int = 0
    """Rows inserted and updated since the statistics of the server were reset."""
    children: tuple[str, ...] = ()
    """Tables that inherit from it, as SQL names; partitions are not listed."""
    is_child: bool = False
    owner: str = ""
    by_name: Mapping[str, ColumnFacts] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_name", {column.name: column for column in self.columns})

    @property
    def full_name(self) -> str:
        """``schema.table``, as the option ``table`` takes it."""
        return f"{self.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """Its name, quoted for SQL."""
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"

    @property
    def is_capturable(self) -> bool:
        """Whether its rows are in the write-ahead log and can have triggers: it is a table, not a view."""
        return self.kind in ("r", "p")

    def is_unique(self, *columns: str) -> bool:
        """Whether no two rows have the same values in these columns."""
        return any(set(key) <= set(columns) for key in self.unique_keys if key)


Rows = Sequence[Mapping[str, str | None]]
"""Rows of one table, newest first where a key orders them: the text of each value by column, NULL as None."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What is known of the server and the database."""

    version: int
    """``server_version_num``: 180000 is PostgreSQL 18."""
    wal_level: str
    is_standby: bool
    encoding: str
    role: str
    database: str
