"""Turn a row of one table into a `Round`, or say why that is not possible, and whether the row is a round at all.

Pure. Takes values as PostgreSQL writes them as text in a session with the settings of `text_forms`, so that both
backends and the backfill make the same round of the same row. What a change of a row means is in `row_changes`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum, auto
from operator import itemgetter
from typing import Any, Final, TypeVar

import msgspec

from backends.contract import Captured, Rejected, SourceError
from backends.postgres.identifiers import quote_identifier
from backends.postgres.mapping.column_kinds import Column, ColumnType, Kind, column_type, output_sql
from backends.postgres.mapping.composed_extras import Reader, column_reader, compose, shifted
from backends.postgres.mapping.condition import Condition, tester
from backends.postgres.mapping.game_slugs import GameSlugs, UnknownGameKey
from backends.postgres.mapping.hashed_ids import hashed_id
from backends.postgres.mapping.json_documents import JsonColumn, Row, text_of
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.mapping.text_forms import extras_of, finished_at_of, round_id_of
from backends.postgres.mapping.value_path import Place, ValuePath
from rounds import Catalogue, InvalidRound, InvalidSlug, Round, check_slug, stringify_extras

P = TypeVar("P")

RAW_BYTES: Final = 64 << 10
"""Limit of the stored part of a rejected row."""
_TYPES_KEPT: Final = 256
_INTEGERS: Final = (20, 21, 23)

TextReader = Callable[[Row], str | None]


class ColumnMissing(SourceError):
    """The table has no column that the options name. No row was skipped."""

    def __init__(self, table: str, column: str, option: str, present: Sequence[str]) -> None:
        super().__init__(table, column, option, present)
        self.table, self.column, self.option, self.present = table, column, option, tuple(present)

    def __str__(self) -> str:
        return (
            f"table {self.table} has no column {self.column!r}; it has {', '.join(self.present)};"
            f" set the option {self.option!r}"
        )


class RowState(Enum):
    """What a row is."""

    OTHER = auto()  # the option rows_when says that it is no round
    UNFINISHED = auto()
    FINISHED = auto()
    VOIDED = auto()


class TableMapper:
    """Turns rows of one table into rounds, for the games of one catalogue."""

    to_round: Callable[[Row, int], Round]
    """Turn a row into a round. The arguments are the row, and when the source committed it, in Unix milliseconds.

    Raises:
        InvalidRound: A value is not allowed; the text names the field, the value, and what is allowed.
        UnknownGameKey: The table of games has to be read again, see `GameSlugs.learn`; an `InvalidRound` too.
    """

    def __init__(
        self,
        table: TableOptions,
        catalogue: Catalogue,
        columns: Sequence[Column],
        *,
        games: GameSlugs | None = None,
        own_types: Mapping[int, ColumnType] | None = None,
    ) -> None:
        """Find the columns of the options in those of the table.

        Args:
            table: The options.
            catalogue: The games of this installation.
            columns: All columns of the table, in any order.
            games: The games of this table, if an earlier mapper had them.
            own_types: How to read types that are not in pg_catalog, by OID.

        Raises:
            ColumnMissing: A column is not there.
        """
        self.table = table
        self.games = games or GameSlugs(table, catalogue)
        self._types = {column.name: column_type(column.type_oid, own_types) for column in columns}
        self._columns = tuple(columns)
        self._names = [column.name for column in columns]
        self._read: list[str] = []
        self._documents: dict[str, JsonColumn] = {}
        self._checked_types = {game.type for game in catalogue.games.values()}
        paths = [(table.round_id_column, "round_id_column")]
        if not table.game_slug:
            paths.insert(0, (table.game_slug_column, "game_slug_column"))
        self._key = [self._place(ValuePath.parse(path), option) for path, option in paths]
        self._round_id, self._game, self._game_type, self._finished_at = self._field_readers()
        self._extras = self._extras_reader()
        self._finished_when = (
            Condition.parse(table.finished_when)
            if table.finished_when is not None
            else Condition.not_null(table.finished_at_column)
        )
        self._is_finished = self._test_of(self._finished_when, "finished_when")
        self._is_voided = self._optional_test("voided_when")
        self._is_ours = self._optional_test("rows_when")
        self.columns = tuple(self._read)
        """The names of the columns that are read: the order of the values of a `Row`."""
        self.indexes = tuple(map(self._names.index, self._read))
        """The places of these columns in those that were given."""
        self.to_round = self._plain() or self._to_round

    @property
    def has_plain_key(self) -> bool:
        """Whether the game and the id of a round are the text of two columns, so that SQL can look for a round."""
        table = self.table
        is_spelled = not table.game_slug_map and table.game_slug_table is None and table.game_slug_spelling == "exact"
        if not is_spelled or table.game_slug is not None or table.round_ids != "integer":
            return False
        is_whole = {column.name: column.type_oid in _INTEGERS for column in self._columns}  # they have one text form
        return is_whole[self._key[1].column] and not any(place.members for place in self._key)

    def state(self, row: Row) -> RowState:
        """Say what a row is; raise `InvalidRound` if a column of a condition should hold JSON and does not."""
        if self._is_ours is not None and not self._is_ours(row):
            return RowState.OTHER
        if self._is_voided is not None and self._is_voided(row):
            return RowState.VOIDED
        return RowState.FINISHED if self._is_finished(row) else RowState.UNFINISHED

    def round_or_state(self, row: Row, timestamp_ms: int) -> Round | RowState:
        """Return the round of a finished row, or the state of another row; raise as `to_round` and `state` do."""
        if self._is_ours is None and self._is_voided is None:
            # The usual table, in the path of each round.
            return self.to_round(row, timestamp_ms) if self._is_finished(row) else RowState.UNFINISHED
        state = self.state(row)
        return self.to_round(row, timestamp_ms) if state is RowState.FINISHED else state

    def round_key(self, row: Row) -> tuple[str, int]:
        """Return the game and the round id of a row in any state; raise `InvalidRound`."""
        slug, _ = self.games.game_of(self.table.game_slug if self._game is None else self._game(row))
        text = self._round_id(row)
        return slug, _hashed(text) if self.table.round_ids == "hashed" else round_id_of(text)

    def needs_games(self, rows: Iterable[Row]) -> bool:
        """Whether the table of games has to be read before these rows are made rounds, see `GameSlugs.learn`."""
        if self.table.game_slug_table is None or self._game is None:
            return False
        needed = False
        for row in rows:
            try:
                if self.state(row) is RowState.FINISHED:
                    self.games.game_of(self._game(row))
            except UnknownGameKey:
                needed = True  # the others too, so that one read is enough
            except InvalidRound:
                continue
        return needed

    def reject(self, row: Row, reason: str, offset: P) -> Rejected[P]:
        """Describe a row that cannot become a round, with the key to find it in the table."""
        table, values = self.table, dict(zip(self._read, row, strict=True))
        game = table.game_slug or _shown(values, table.game_slug_column)
        key = f"{table.table}:{game:.64}:{_shown(values, table.round_id_column):.64}"
        return Rejected(key, reason, msgspec.json.encode(values)[:RAW_BYTES], offset)

    def sql_of(self, option: str, alias: str) -> str:
        """Write the condition of an option as SQL that is true or false, never NULL.

        Args:
            option: ``finished_when``, ``voided_when`` or ``rows_when``. Unset, the first is its default, the second is
                false and the third is true.
            alias: What the row is called in the statement, such as ``t`` or ``NEW``.
        """
        if option == "finished_when":
            condition = self._finished_when
        elif (text := getattr(self.table, option)) is not None:
            condition = Condition.parse(text)
        else:
            return "TRUE" if option == "rows_when" else "FALSE"
        return condition.sql(lambda path: self._place(path, option), self._kind_of, alias)

    def values_sql(self, alias: str) -> str:
        """Write the list of `columns` as text, each as an SQL expression of what pgoutput sends."""
        oids = {column.name: column.type_oid for column in self._columns}
        return ", ".join(output_sql(f"{alias}.{quote_identifier(name)}", oids[name]) for name in self._read)

    def key_sql(self, alias: str) -> str:
        """Write an SQL expression of text that no two rounds share: the columns of the game and of the round id."""
        names = [place.column for place in self._key]
        texts = [f"coalesce({alias}.{quote_identifier(name)}::text, '')" for name in dict.fromkeys(names)]
        joined = " || ':' || ".join(texts)
        return f"({joined})"

    # --- finding the values -------------------------------------------------------------------------------------

    def _field_readers(self) -> tuple[TextReader, TextReader | None, TextReader | None, TextReader]:
        table = self.table
        round_id = self._text_reader(table.round_id_column, "round_id_column")
        game = None if table.game_slug else self._text_reader(table.game_slug_column, "game_slug_column")
        game_type = None
        if table.game_type is None and (table.game_type_column or "game_type" in self._names):
            game_type = self._text_reader(table.game_type_column or "game_type", "game_type_column")
        return round_id, game, game_type, self._text_reader(table.finished_at_column, "finished_at_column")

    def _extras_reader(self) -> Callable[[Row], str]:
        table = self.table
        if table.extras_columns is None:
            place = self._place(ValuePath.parse(table.extras_column), "extras_column")
            if not place.members:
                index = self._index(place.column)
                return lambda row: extras_of(row[index])
            member = self._document(place.column).member(place.members)
            return lambda row: _nested_extras(member(row))
        members = []
        for name, path, digits in table.extras_columns:
            reader = self._value_reader(path, name)
            members.append((name, shifted(reader, digits, name) if digits else reader))
        return lambda row: compose(members, row)

    def _value_reader(self, path: str, name: str) -> Reader:
        place = self._place(ValuePath.parse(path), "extras_columns")
        if place.members:
            return self._document(place.column).member(place.members)
        return column_reader(self._index(place.column), self._types[place.column], name)

    def _text_reader(self, path: str, option: str) -> TextReader:
        place = self._place(ValuePath.parse(path), option)
        if not place.members:
            return itemgetter(self._index(place.column))
        member = self._document(place.column).member(place.members)
        return lambda row: text_of(member(row))

    def _optional_test(self, option: str) -> Callable[[Row], bool] | None:
        text = getattr(self.table, option)
        return None if text is None else self._test_of(Condition.parse(text), option)

    def _test_of(self, condition: Condition, option: str) -> Callable[[Row], bool]:
        parts = [
            (self._text_reader(test.path.text, option), tester(test, self._kind_of(test.path)))
            for test in condition.tests
        ]
        if len(parts) == 1:
            ((read, matches),) = parts
            place = self._place(condition.tests[0].path, option)
            if condition.is_not_null and not place.members:  # the default, in the path of each round
                index = self._index(place.column)
                return lambda row: row[index] is not None
            return lambda row: matches(read(row))
        return lambda row: all(matches(read(row)) for read, matches in parts)

    def _place(self, path: ValuePath, option: str) -> Place:
        place = path.place(self._names)
        if place is None:
            raise ColumnMissing(self.table.table, path.parts[0], option, self._names)
        return place

    def _kind_of(self, path: ValuePath) -> Kind:
        place = path.place(self._names)
        return Kind.TEXT if place is None or place.members else self._types[place.column].kind

    def _index(self, column: str) -> int:
        if column not in self._read:
            self._read.append(column)
        return self._read.index(column)

    def _document(self, column: str) -> JsonColumn:
        if column not in self._documents:
            self._documents[column] = JsonColumn(column, self._index(column))
        return self._documents[column]

    def _plain(self) -> Callable[[Row, int], Round] | None:
        """Return a faster `to_round` if a row has exactly the fields of a round, in their order; else None."""
        table = self.table
        usual = table.round_ids == "integer" and table.extras_columns is None
        if not usual or table.game_slug is not None or table.game_type is not None:
            return None
        before = [table.round_id_column, table.game_slug_column]
        after = [table.finished_at_column, table.extras_column]
        if self._read == [*before, *after]:
            return self._to_untyped_round
        typed = self._read == [*before, table.game_type_column or "game_type", *after]
        return self._to_typed_round if typed else None

    # --- making rounds ------------------------------------------------------------------------------------------

    def _to_untyped_round(self, row: Row, timestamp_ms: int) -> Round:
        round_id, game, finished_at, extras = row
        slug, game_type = self.games.found.get(game) or self.games.game_of(game)
        return Round(
            round_id_of(round_id), slug, game_type, finished_at_of(finished_at), extras_of(extras), timestamp_ms
        )

    def _to_typed_round(self, row: Row, timestamp_ms: int) -> Round:
        round_id, game, game_type, finished_at, extras = row
        slug, own_type = self.games.found.get(game) or self.games.game_of(game)
        if game_type is None:
            game_type = own_type
        elif game_type not in self._checked_types:
            game_type = self._check_type(game_type)
        return Round(
            round_id_of(round_id), slug, game_type, finished_at_of(finished_at), extras_of(extras), timestamp_ms
        )

    def _to_round(self, row: Row, timestamp_ms: int) -> Round:
        table = self.table
        slug, game_type = self.games.game_of(table.game_slug if self._game is None else self._game(row))
        if table.game_type is not None:
            game_type = table.game_type
        elif self._game_type is not None and (given := self._game_type(row)) is not None:
            game_type = given if given in self._checked_types else self._check_type(given)
        round_id = self._round_id(row)
        return Round(
            _hashed(round_id) if table.round_ids == "hashed" else round_id_of(round_id),
            slug,
            game_type,
            finished_at_of(self._finished_at(row)),
            self._extras(row),
            timestamp_ms,
        )

    def _check_type(self, game_type: str) -> str:
        stripped = game_type.rstrip(" ")  # char(n) is padded
        try:
            check_slug(stripped)
        except InvalidSlug as error:
            raise InvalidRound(str(error).replace("game slug", "game type")) from None
        if len(self._checked_types) < _TYPES_KEPT:
            self._checked_types.add(stripped)
        return stripped


def _hashed(text: str | None) -> int:
    text = text and text.rstrip(" ")  # char(n) is padded
    if not text:
        raise InvalidRound(f"round_id is {'NULL' if text is None else 'empty'}; it must be text to make an id of")
    return hashed_id(text)


def check_columns(table: TableOptions, columns: Sequence[Column]) -> None:
    """Raise `ColumnMissing` if the table does not have the columns that its options name."""
    TableMapper(table, Catalogue({}), columns)


def _nested_extras(value: object) -> str:
    """Read extras inside a document: an object, or a string that holds one."""
    return extras_of(value) if value is None or isinstance(value, str) else stringify_extras(value)


def _shown(values: Mapping[str, str | None], path: str) -> str:
    """Write a value of a row for its key; of a path, what its column holds."""
    place = ValuePath.parse(path).place(tuple(values))
    return path if place is None else str(values[place.column])


def item_of(row: Any, mapper: TableMapper, offset: P) -> Captured[P] | Rejected[P]:
    """Turn a row with ``row_values`` and ``committed_ms`` into an item.

    If the server keeps no commit times, the round's timestamp is its ``finished_at``: the same at every reading.
    """
    values, committed_ms = row["row_values"], row["committed_ms"]
    try:
        round_ = mapper.to_round(values, committed_ms or 0)
    except InvalidRound as error:
        return mapper.reject(values, str(error), offset)
    if committed_ms is None:
        round_ = msgspec.structs.replace(round_, timestamp=max(0, int(round_.finished.timestamp() * 1000)))
    return Captured(round_, offset)
