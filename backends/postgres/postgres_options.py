"""The options that both Postgres backends share: the database, the table, and its columns.

Owns how options are checked and how faults are reported. Knows nothing of connections. Each backend adds its own
options in a subclass.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from backends.contract import InvalidOptions
from backends.postgres.dsn import Dsn

_IDENTIFIER_BYTES: Final = 63


def _identifier(text: str) -> str:
    if not text or "\0" in text or len(text.encode(errors="replace")) > _IDENTIFIER_BYTES:
        raise ValueError(f"must be a name of 1 to {_IDENTIFIER_BYTES} bytes, as it is in the catalogue, without quotes")
    return text


Identifier = Annotated[str, AfterValidator(_identifier)]
"""A name as it is in the database's catalogue: case-sensitive and without quotes."""


class PostgresOptions(BaseModel):
    """The options of every Postgres backend."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    dsn: SecretStr
    """``postgresql://user:password@host:port/database?sslmode=require``, also with several
    hosts: ``host:port,host:port``. Missing parts come from ``PGPASSWORD`` and the other variables of libpq."""
    table: str = "public.rounds"
    """The table of rounds, ``schema.table`` or ``table`` (in schema public); case-sensitive."""
    round_id_column: Identifier = "round_id"
    game_slug_column: Identifier = "game_slug"
    game_type_column: Identifier | None = None
    """Unset: column ``game_type`` if the table has one, else the type in the catalogue of games."""
    finished_at_column: Identifier = "finished_at"
    """timestamptz; a timestamp without time zone is read as UTC."""
    extras_column: Identifier = "extras"
    """json, jsonb or text with a JSON object. NULL is read as ``{}``."""
    connect_timeout_s: float = Field(default=10.0, ge=0.1, le=300)
    """Limit of one attempt to connect."""
    retry_max_s: float = Field(default=10.0, ge=0.05, le=300)
    """The longest pause between attempts to reconnect. The first pause is 50 ms, then it doubles."""

    @field_validator("dsn")
    @classmethod
    def _check_dsn(cls, value: SecretStr) -> SecretStr:
        Dsn.parse(value.get_secret_value())
        return value

    @field_validator("table")
    @classmethod
    def _check_table(cls, value: str) -> str:
        for part in value.split(".", 1):
            _identifier(part)
        return value

    @property
    def schema_name(self) -> str:
        schema, dot, _ = self.table.partition(".")
        return schema if dot else "public"

    @property
    def table_name(self) -> str:
        return self.table.partition(".")[2] or self.table

    @property
    def quoted_table(self) -> str:
        """The table's name, quoted for SQL."""
        return f"{quote_identifier(self.schema_name)}.{quote_identifier(self.table_name)}"

    @property
    def source(self) -> str:
        """The table's full name, without quotes."""
        return f"{self.schema_name}.{self.table_name}"

    @property
    def order(self) -> str:
        """The column whose order rows are read in."""
        return self.round_id_column

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
    name = ".".join(str(part) for part in fault["loc"]) or "options"
    if fault["type"] == "extra_forbidden":
        return f"unknown option {name!r}; allowed are {', '.join(sorted(model.model_fields))}"
    if fault["type"] == "missing":
        return f"option {name!r} is missing" + (f"; {missing_dsn()}" if name == "dsn" else "")
    reason = fault["msg"].removeprefix("Value error, ")
    if fault["loc"] and fault["loc"][0] in secret:
        return f"option {name!r} {reason[:1].lower()}{reason[1:]}"
    return f"option {name} = {fault['input']!r:.80}: {reason[:1].lower()}{reason[1:]}"


def quote_identifier(name: str) -> str:
    """Quote a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """Quote text as an SQL string constant (standard_conforming_strings, on since 9.1)."""
    return "'" + text.replace("'", "''") + "'"
