"""Which game a row is of: the slug and the type of what its column holds. Pure.

Owns the map of the options, the rows of the table of games, and the spelling. Remembers what it has found.
"""

import re
from collections.abc import Mapping
from typing import Final

from backends.postgres.mapping.table_options import TableOptions
from rounds import Catalogue, InvalidRound, InvalidSlug, UnknownGame, check_slug

_REMEMBERED: Final = 4096
"""Limit of remembered values, since each row may hold another one."""
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class UnknownGameKey(InvalidRound):
    """The table of games has no row with this key, or had none when it was read."""

    def __init__(self, key: str, table: str) -> None:
        super().__init__(f"game key {key[:40]!r} is not in {table}; insert the game there, or set game_slug_map")
        self.key = key


class GameSlugs:
    """The games of one table of rounds."""

    def __init__(self, table: TableOptions, catalogue: Catalogue) -> None:
        self._table = table
        self._catalogue = catalogue
        self._from_table: Mapping[str, str] = {}
        self.found: dict[str | None, tuple[str, str]] = {}
        """What `game_of` has returned, by its argument; a part of it."""

    def learn(self, slugs: Mapping[str, str]) -> None:
        """Take the rows of the table of games: slugs by key, both as text."""
        self._from_table = slugs
        self.found.clear()

    def game_of(self, value: str | None) -> tuple[str, str]:
        """Return the slug and the type of the game; `value` is what the column holds, as text.

        Raises:
            UnknownGameKey: The table of games has to be read again.
            InvalidRound: The value names no game.
        """
        found = self.found.get(value)
        if found is None:
            found = self._find(value)
            if len(self.found) < _REMEMBERED:
                self.found[value] = found
        return found

    def _find(self, value: str | None) -> tuple[str, str]:
        table = self._table
        if value is None:
            raise InvalidRound("game_slug is NULL; it must name a game")
        key = value.rstrip(" ")  # char(n) is padded
        text = table.game_slug_map.get(key) or self._from_table.get(key)
        if text is None:
            if table.game_slug_table is not None:
                raise UnknownGameKey(key, table.game_slug_table)
            text = key
        slugs = [text.rstrip(" ")] if table.game_slug_spelling == "exact" else _dashed(text)
        for slug in slugs:
            if slug in self._catalogue.games:
                return slug, self._catalogue.games[slug].type
        try:
            self._catalogue.game(check_slug(slugs[0]))
        except (InvalidSlug, UnknownGame) as error:
            raise InvalidRound(str(error)) from None
        raise AssertionError(slugs)


def _dashed(text: str) -> list[str]:
    """Spell a name as a slug: in lower case, with one dash between words; capitals may begin words."""
    spellings = (text, _CAMEL.sub("-", text))
    return list(dict.fromkeys(_SEPARATORS.sub("-", spelling.lower()).strip("-") for spelling in spellings))
