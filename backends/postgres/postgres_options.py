"""The options that both Postgres backends share: the database, and the tables with what they map.

Owns how options are checked and how faults are reported. Knows nothing of connections. Each backend adds its own
options in a subclass. The options of a table are in `mapping.table_options`.
"""

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator

from backends.contract import InvalidOptions
from backends.postgres.dsn import Dsn
from backends.postgres.feed.feed_table import FEED_TABLE
from backends.postgres.identifiers import Identifier as Identifier
from backends.postgres.identifiers import quote_identifier as quote_identifier
from backends.postgres.identifiers import quote_literal as quote_literal
from backends.postgres.mapping.table_options import TableOptions


def _tables(value: object) -> object:
    """Read an array of tables of TOML, or the JSON that an environment variable holds."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ValueError(f'must be a JSON array of objects, such as [{{"table":"dice"}}]: {error}') from None
    entries = value if isinstance(value, list | tuple) else [None]
    if not all(isinstance(entry, Mapping | TableOptions) for entry in entries):
        raise ValueError("must be an array of tables: [[backend.tables]] in TOML, a JSON array of objects elsewhere")
    return value


class PostgresOptions(TableOptions):
    """The options of every Postgres backend. Those of a table are defaults for each of `tables`."""

    dsn: SecretStr
    """``postgresql://user:password@host:port/database?sslmode=require``, also with several
    hosts: ``host:port,host:port``. Missing parts come from ``PGPASSWORD`` and the other variables of libpq."""
    tables: Annotated[tuple[TableOptions, ...], BeforeValidator(_tables)] = ()
    """Several tables, ``[[backend.tables]]``, each with its own mapping; in the environment a JSON array."""
    corrections: bool = False
    """Whether changes of finished rounds go into the log, for clients that ask for corrections."""
    feed: bool = False
    """Read the feed, a table that triggers fill, instead of the tables: docs/postgres-feed.md"""
    feed_keep_s: float = Field(default=600.0, ge=0, le=2_592_000)
    """The youngest age at which rows of the feed are deleted once every reader has stored them. Ten minutes of rows are
    few, and show what was read lately."""
    connect_timeout_s: float = Field(default=10.0, ge=0.1, le=300)
    """Limit of one attempt to connect."""
    retry_max_s: float = Field(default=10.0, ge=0.05, le=300)
    """The longest pause between attempts to reconnect. The first pause is 50 ms, then it doubles."""

    @field_validator("dsn")
    @classmethod
    def _check_dsn(cls, value: SecretStr) -> SecretStr:
        Dsn.parse(value.get_secret_value())
        return value

    @model_validator(mode="after")
    def _check_tables(self) -> Self:
        if self.tables and "table" in self.model_fields_set:
            raise ValueError("table and tables exclude each other; set one of them")
        if nameless := [number for number, table in enumerate(self.tables) if "table" not in table.model_fields_set]:
            raise ValueError(f"tables.{nameless[0]} has no 'table'; it must name a table, such as public.rounds")
        names = [table.source for table in self.all_tables]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"tables has {twice[0]} twice; a table has one mapping")
        return self

    @cached_property
    def all_tables(self) -> tuple[TableOptions, ...]:
        """Every table of rounds with all of its options; these options themselves if `tables` is unset."""
        if not self.tables:
            return (self,)
        return tuple(TableOptions.model_validate(table.over(self)) for table in self.tables)

    @property
    def without_effect(self) -> str:
        """One sentence on options that do nothing as the others are set; empty: there are none."""
        voiding = [table.source for table in self.all_tables if table.deletes == "void"]
        if self.corrections or not voiding:
            return ""
        return f"deletes = void of {', '.join(voiding)} has no effect without corrections = true: no void is published"

    @cached_property
    def reading(self) -> Self:
        """The options of what is read: these, or with `feed` those of the feed as one table."""
        if not self.feed:
            return self
        # The feed holds corrections as rows of its own, so that nothing else of it has to be published.
        left_out = {*TableOptions.model_fields, "tables", "corrections"}
        own = {name: value for name, value in self.given.items() if name not in left_out}
        return type(self).model_validate({**own, **self._reading_of_feed, **FEED_TABLE.over(FEED_TABLE)})

    @property
    def _reading_of_feed(self) -> dict[str, object]:
        """Options of a backend that are others for the feed."""
        return {}

    @property
    def feed_reader(self) -> str:
        """The name of the reader in ``stream_relay.positions``. What it has not stored of the feed is kept."""
        return ""

    @property
    def is_pooled(self) -> bool:
        """Whether connections for queries may go through a pooler in transaction mode."""
        return False

    @property
    def given(self) -> dict[str, object]:
        """The options that were set, as arguments for another instance."""
        return {name: getattr(self, name) for name in self.model_fields_set}

    @property
    def shown_dsn(self) -> str:
        """Host and database, without user, password and parameters: for logs and errors."""
        return self.target.shown

    @property
    def target(self) -> Dsn:
        """The parsed DSN."""
        return Dsn.parse(self.dsn.get_secret_value())

    @classmethod
    def read(cls, options: Mapping[str, object]) -> Self:
        """Check `options` as they come from the environment (strings) or a TOML file (typed).

        Raises:
            InvalidOptions: An option is unknown, missing or wrong.
        """
        return read_options(cls, options)


def missing_dsn() -> str:
    """Return the sentence that says how to set the DSN."""
    return "set RELAY_BACKEND_DSN, or give -o dsn=postgresql://user@host:5432/database and a password file"


M = TypeVar("M", bound=BaseModel)


def read_options(model: type[M], options: Mapping[str, object]) -> M:
    """Build `model` from `options`; raise `InvalidOptions` with one line for every fault."""
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        secret = {name for name, field in model.model_fields.items() if field.annotation is SecretStr}
        faults = error.errors(include_url=False, include_context=False)
        raise InvalidOptions("\n".join(_sentence(model, fault, secret) for fault in faults)) from None


def _sentence(model: type[BaseModel], fault: Any, secret: set[str]) -> str:
    where = fault["loc"]
    name = ".".join(str(part) for part in where)
    reason = fault["msg"].removeprefix("Value error, ")
    reason = f"{reason[:1].lower()}{reason[1:]}"
    if fault["type"] == "extra_forbidden":
        known = model if len(where) == 1 else TableOptions
        return f"unknown option {name!r}; allowed are {', '.join(sorted(known.model_fields))}"
    if fault["type"] == "missing":
        return f"option {name!r} is missing" + (f"; {missing_dsn()}" if name == "dsn" else "")
    if not where:  # of several options; the input is all of them, with their secrets
        return reason
    if where[0] in secret or isinstance(fault["input"], Mapping):  # an entry of tables
        return f"option {name!r} {reason}"
    return f"option {name} = {fault['input']!r:.80}: {reason}"
