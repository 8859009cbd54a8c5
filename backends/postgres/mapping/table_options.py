"""The options of one table: where the fields of a round are in its rows, and which rows are rounds.

Owns how the options are written, also as text in the environment, and which of them exclude each other. What they mean
for a row is decided in `table_mapper` and `row_changes`.
"""

import json
import tomllib
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, field_validator, model_validator

from backends.postgres.identifiers import Identifier, check_identifier, quote_identifier
from backends.postgres.mapping.condition import Condition
from backends.postgres.mapping.value_path import ValuePath
from rounds import InvalidSlug, check_slug


class ExtrasMember(NamedTuple):
    """A member of composed extras."""

    name: str
    path: str
    shift: int = 0
    """How many digits the decimal point moves to the left."""


def _path(text: str) -> str:
    ValuePath.parse(text)
    return text


def _condition(text: str) -> str:
    Condition.parse(text)
    return text


def _slug(text: str) -> str:
    try:
        return check_slug(text)
    except InvalidSlug:
        raise ValueError("must be 1 to 64 of a-z, 0-9 and '-', not starting with '-'") from None


def _parsed(text: str) -> object:
    """Read text of the environment that is JSON or an inline table of TOML; other text stays as it is."""
    if text.lstrip()[:1] not in ("[", "{"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"must be JSON or TOML: {error}") from None


def _split(text: str) -> list[str]:
    """Split at commas outside of double quotes."""
    parts, quoted = [""], False
    for character in text:
        quoted ^= character == '"'
        if character == "," and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _pairs(value: object) -> object:
    """Read ``1=crash, 2=double``."""
    if not isinstance(value, str):
        return value
    read = _parsed(value)
    if not isinstance(read, str):
        return read
    pairs = [part.partition("=") for part in _split(read)]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise ValueError(f"has {wrong[0]!r} without a slug; write key=slug, key=slug")
    return {name.strip().strip('"'): slug.strip().strip('"') for name, _, slug in pairs}


_SCALES: Final = {str(10**digits): digits for digits in range(1, 19)}


def _member(text: object, name: str | None = None) -> ExtrasMember:
    """Read ``column``, ``member=column`` or ``member=column/100``."""
    if not isinstance(text, str):
        raise ValueError(f"has {text!r:.40}; members are text: 'column', 'member=path' or 'member=path/100'")
    if name is None:
        before, equals, after = text.partition("=")
        name, text = (before.strip(), after) if equals and not before.count('"') % 2 else (None, text)
    path, slash, scale = text.rpartition("/")
    path = (path if slash and not path.count('"') % 2 else text).strip()
    if path == text.strip():
        shift = 0
    elif (scale := scale.strip()) in _SCALES:
        shift = _SCALES[scale]
    else:
        raise ValueError(f"has the scale {scale!r}; scales are 10, 100, … 10^18; quote a name with a slash")
    parsed = ValuePath.parse(path)
    name = parsed.parts[-1] if name is None else name
    if not name:
        raise ValueError(f"has a member without a name: {text!r}")
    return ExtrasMember(name, path, shift)


def _members(value: object) -> object:
    """Read members from a list, a table of TOML, or text of the environment."""
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, str):
        value = _split(value)
    if isinstance(value, Mapping):
        members = [_member(path, str(name)) for name, path in value.items()]
    elif isinstance(value, list | tuple):
        members = [entry if isinstance(entry, ExtrasMember) else _member(entry) for entry in value]
    else:
        raise ValueError("must be a list of columns, or a table of members and their columns")
    if not members:
        raise ValueError("must have at least one column")
    names = [member.name for member in members]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"has the member {twice[0]!r} twice; write member=column to give it another name")
    return tuple(members)


ColumnPath = Annotated[str, AfterValidator(_path)]
"""A column, or a path into the JSON document of a column, see `ValuePath`."""
Test = Annotated[str, AfterValidator(_condition)]
"""A condition, see `Condition`."""
Slug = Annotated[str, AfterValidator(_slug)]
SlugMap = Annotated[dict[str, Slug], BeforeValidator(_pairs)]
Members = Annotated[tuple[ExtrasMember, ...], BeforeValidator(_members)]

_EXCLUSIONS: Final = (
    ({"game_slug"}, {"game_slug_column", "game_slug_map", "game_slug_table"}),
    ({"game_type"}, {"game_type_column"}),
    ({"extras_column"}, {"extras_columns"}),
)
"""Options of the first set exclude those of the second."""


class TableOptions(BaseModel):
    """The options of one table of rounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    table: str = "public.rounds"
    """The table of rounds, ``schema.table`` or ``table`` (in schema public); case-sensitive."""
    round_id_column: ColumnPath = "round_id"
    """A column, or a path into JSON such as ``payload.round.no``; so are the other columns."""
    round_ids: Literal["integer", "hashed"] = "integer"
    """hashed: the id is text, such as a uuid, and the round id is 63 bits of its hash."""
    game_slug: Slug | None = None
    """The game of every row, for a table of one game."""
    game_slug_column: ColumnPath = "game_slug"
    game_slug_map: SlugMap = {}
    """Slugs by what the column holds, such as ``{"1" = "crash"}``. Other values are slugs themselves."""
    game_slug_table: str | None = None
    """A table of games: rows of ours have its key. Read at start, and when a key is not known."""
    game_slug_table_key_column: Identifier = "id"
    game_slug_table_slug_column: Identifier = "slug"
    game_slug_spelling: Literal["exact", "dashed"] = "exact"
    """dashed: ``WALL_STREET`` and ``Wall Street`` are ``wall-street``."""
    game_type: Slug | None = None
    """The type of every row. Unset: `game_type_column`."""
    game_type_column: ColumnPath | None = None
    """Unset: column ``game_type`` if the table has one, else the type in the catalogue of games."""
    finished_at_column: ColumnPath = "finished_at"
    """timestamptz; a timestamp without time zone is read as UTC."""
    extras_column: ColumnPath = "extras"
    """json, jsonb or text with a JSON object. NULL is read as ``{}``."""
    extras_columns: Members | None = None
    """Columns that make the object, instead of `extras_column`: ``point``, ``point=payout``, ``point=cents/100``."""
    finished_when: Test | None = None
    """Which rows are finished rounds; unset: those whose `finished_at_column` is not NULL."""
    voided_when: Test | None = None
    """Which rows are rounds that were taken back."""
    rows_when: Test | None = None
    """Which rows are rounds at all; other rows are no errors."""
    finished_by: Literal["auto", "insert", "update"] = "auto"
    """What finishes a round. auto: an UPDATE if `finished_when` is set or `finished_at_column` may be NULL."""
    deletes: Literal["ignore", "void"] = "ignore"
    """Whether a deleted row voids its round."""
    order_column: Identifier | None = None
    """A unique integer column that grows with every row, by a sequence; unset: the round id. Set it if round ids are
    unique only within their game, or are no integers of a column."""

    @field_validator("table", "game_slug_table")
    @classmethod
    def _check_table(cls, value: str | None) -> str | None:
        for part in (value or "").split(".", 1) if value is not None else ():
            check_identifier(part)
        return value

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        for one, others in _EXCLUSIONS:
            if (first := one & self.model_fields_set) and (second := others & self.model_fields_set):
                raise ValueError(f"{min(first)} and {min(second)} exclude each other; set one of them")
        return self

    @property
    def schema_name(self) -> str:
        return schema_and_name(self.table)[0]

    @property
    def table_name(self) -> str:
        return schema_and_name(self.table)[1]

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
        return self.order_column or self.round_id_column

    @property
    def has_ordered_ids(self) -> bool:
        """Whether rows are read in the order of their round ids."""
        return self.order == self.round_id_column and self.round_ids == "integer"

    def over(self, defaults: "TableOptions") -> Mapping[str, Any]:
        """Return the options that were set, here or else in `defaults`.

        An option replaces all those of the defaults that it excludes.
        """
        own = {name: getattr(self, name) for name in self.model_fields_set}
        hidden = {
            name for pair in _EXCLUSIONS for one, other in (pair, pair[::-1]) if one & own.keys() for name in other
        }
        inherited = (defaults.model_fields_set & TableOptions.model_fields.keys()) - hidden
        return {name: getattr(defaults, name) for name in inherited} | own


def schema_and_name(table: str) -> tuple[str, str]:
    """Split ``schema.table``; the schema of ``table`` is public."""
    schema, dot, name = table.partition(".")
    return (schema, name) if dot else ("public", table)
