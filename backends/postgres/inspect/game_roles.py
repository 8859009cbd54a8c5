"""Guess the game of the rounds of a table: a column, a table of games, a map, or one game for the whole table.

Pure. Owns how names in a database are matched with slugs of the catalogue.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from backends.postgres.inspect.facts import Rows, TableFacts
from backends.postgres.inspect.fields import Field, fields_of
from backends.postgres.inspect.words import GAME, ROUND, SLUG, has_any, joined, words_of
from backends.postgres.mapping.game_slugs import dashed
from rounds import Catalogue, Game

_GAMES_LISTED: Final = 60
"""Most games in a proposed map."""


@dataclass(frozen=True, slots=True)
class GameGuess:
    """The options that give each row its game, and why."""

    options: Mapping[str, object]
    reason: str
    points: int = 0
    column: str | None = None
    """The path that the game depends on; None: one game for the table."""
    unknown: tuple[str, ...] = ()
    """Games of the database that are not in the catalogue, as slugs."""
    unmapped: tuple[str, ...] = field(default=())
    """Values that no game was found for."""


class GameNames:
    """The games of the catalogue, by every spelling that stands for them."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.slugs = catalogue.slugs
        self._by_name: dict[str, str] = {}
        for slug, game in sorted(catalogue.games.items()):
            for spelling in _spellings(slug, game):
                self._by_name.setdefault(spelling, slug)

    def slug_of(self, text: str) -> str | None:
        """Return the game that a text names in any spelling; None: none."""
        return self._by_name.get(joined(text))

    def slug_in(self, name: str) -> str | None:
        """Return the game that is part of the name of a table, such as ``crash_rounds``; None: none."""
        words = words_of(name)
        found = [
            (length, slug)
            for length in range(len(words), 0, -1)
            for start in range(len(words) - length + 1)
            for text in {"".join(words[start : start + length]), "".join(words[start : start + length]).rstrip("s")}
            if (slug := self._by_name.get(text)) is not None
        ]
        return max(found, default=(0, None), key=lambda pair: pair[0])[1]


def guess_game(
    table: TableFacts,
    fields: Sequence[Field],
    referenced: Mapping[int, TableFacts],
    samples: Mapping[int, Rows | None],
    names: GameNames,
) -> GameGuess | None:
    """Guess the game of the rows of a table.

    Args:
        referenced: Tables that may be the table of games, by oid.
        samples: The rows of these tables.
    """
    guesses = [
        *(guess for each in fields if (guess := _by_value(each, names)) is not None),
        *(guess for each in fields if (guess := _by_key(table, each, referenced, samples, names)) is not None),
    ]
    if guesses:
        best = max(guesses, key=lambda guess: guess.points)
        if best.points > 0:
            return best
    for name in (table.name, f"{table.schema}_{table.name}"):
        if (slug := names.slug_in(name)) is not None:
            return GameGuess({"game_slug": slug}, f"the name of table {table.full_name}", 3)
    if guesses:
        return max(guesses, key=lambda guess: guess.points)
    if table.schema != "public" and not has_any(table.name, ROUND | GAME):
        slug = dashed(table.name)[0]
        return GameGuess({"game_slug": slug}, f"the name of table {table.full_name}", 0, None, (slug,))
    words = [word for word in words_of(table.name) if word not in ROUND | GAME | {"result", "results", "finished"}]
    if words and set(words_of(table.name)) & ROUND:
        slug = "-".join(words)
        return GameGuess({"game_slug": slug}, f"the name of table {table.full_name}", 0, None, (slug,))
    return None


# --- by the value in the row -----------------------------------------------------------------------------------------


def _by_value(each: Field, names: GameNames) -> GameGuess | None:
    """Guess that a column or a member names the game."""
    if each.kind != "text":
        return None
    values = [value.rstrip(" ") for value in each.distinct]
    values = [value for value in dict.fromkeys(values) if value]
    named = each.has(GAME)
    known = {value: slug for value in values if (slug := names.slug_of(value)) is not None}
    if not known and not named:
        return None
    if not values:
        points = 4 if named and each.has(SLUG) else 2
        return GameGuess({"game_slug_column": each.path}, f"{each.path} by its name", points, each.path)
    if len(values) > _GAMES_LISTED and not known:
        return None
    share = len(known) / len(values)
    if not named and share < 0.2:
        return None
    points = round(8 * share) + 3 * named - each.path.count(".") + each.has({"slug"})
    return _spelled("game_slug_column", each.path, values, names, points, {}, each.path)


def _spelled(
    option: str,
    path: str,
    values: Sequence[str],
    names: GameNames,
    points: int,
    others: Mapping[str, object],
    column: str,
    keys: Mapping[str, str] | None = None,
) -> GameGuess:
    """Choose how slugs are read from their spelling: as they are, dashed, or by a map.

    Args:
        keys: The key of each value in the table of games, which the map would be of; None: the values themselves.
    """
    known = {value: slug for value in values if (slug := names.slug_of(value)) is not None}
    lost = [value for value in values if value not in known]
    if all(value == slug for value, slug in known.items()):
        return GameGuess({option: path, **others}, f"{column} holds slugs of games", points, column, tuple(lost))
    if all(slug in dashed(value) for value, slug in known.items()):
        unknown = tuple(dict.fromkeys(dashed(value)[0] for value in lost))
        options = {option: path, **others, "game_slug_spelling": "dashed"}
        return GameGuess(options, f"{column} holds names of games in another spelling", points, column, unknown)
    mapped = {(keys or {}).get(value, value): known.get(value, dashed(value)[0]) for value in values[:_GAMES_LISTED]}
    unknown = tuple(slug for slug in dict.fromkeys(mapped.values()) if slug not in names.slugs)
    options = {"game_slug_column": column, "game_slug_map": mapped}
    return GameGuess(options, f"{column} names games by other words", points - 1, column, unknown)


# --- by a table of games ---------------------------------------------------------------------------------------------


def _by_key(
    table: TableFacts,
    each: Field,
    referenced: Mapping[int, TableFacts],
    samples: Mapping[int, Rows | None],
    names: GameNames,
) -> GameGuess | None:
    """Guess that a column refers to a table of games: by a foreign key, or by its name."""
    for target, key_column in _targets(table, each, referenced):
        rows = samples.get(target.oid)
        slug_fields = [column for column in fields_of(target, rows) if column.kind == "text" and not column.is_member]
        best: GameGuess | None = None
        for column in slug_fields:
            values = [value.rstrip(" ") for value in column.present]
            known = [value for value in values if names.slug_of(value) is not None]
            is_games = has_any(target.name, GAME) or each.has(GAME)
            if not (known or (is_games and column.has(SLUG))):
                continue
            share = len(known) / len(values) if values else 0.0
            exact = sum(value in names.slugs for value in values)
            points = 5 + round(6 * share) + 2 * bool(exact) + column.has({"slug"}) + (exact == len(values) > 0)
            others = {
                "game_slug_table": target.full_name,
                "game_slug_table_key_column": key_column,
                "game_slug_table_slug_column": column.path,
            }
            keys = {
                str(row[column.path]).rstrip(" "): str(row[key_column])
                for row in rows or ()
                if row.get(column.path) is not None and row.get(key_column) is not None
            }
            guess = _spelled("game_slug_column", each.path, values, names, points, others, each.path, keys)
            if best is None or guess.points > best.points:
                best = guess
        if best is not None:
            return best
    return None


def _targets(table: TableFacts, each: Field, referenced: Mapping[int, TableFacts]) -> list[tuple[TableFacts, str]]:
    """List the tables that a column may refer to, with the column there."""
    found = [
        (referenced[key.target_oid], key.target_columns[key.columns.index(each.path)])
        for key in table.foreign_keys
        if each.path in key.columns and key.target_oid in referenced and key.target_oid != table.oid
    ]
    if found or not each.has(GAME) or each.kind not in ("integer", "uuid", "text"):
        return found
    return [
        (target, target.primary_key[0])
        for target in referenced.values()
        if has_any(target.name, GAME)
        and not has_any(target.name, ROUND)
        and target.oid != table.oid
        and len(target.primary_key) == 1
        and (each.is_member or target.by_name[target.primary_key[0]].base_type == each.column.base_type)
    ]


def _spellings(slug: str, game: Game) -> set[str]:
    return {joined(slug), joined(game.name)} - {""}
