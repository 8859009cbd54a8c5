"""Which game a row is of: the slug and the type of what its column holds. Pure, except for a clock.

Owns the map of the options, the rows of the table of games, and the spelling. Remembers what it has found, and which
keys the table of games did not have. The table is read by `backends.postgres.game_tables`.
"""

import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from backends.contract import InvalidOptions
from backends.postgres.mapping.table_options import TableOptions
from rounds import Catalogue, InvalidRound, InvalidSlug, UnknownGame, check_slug

_REMEMBERED: Final = 4096
"""Limit of remembered values, since each row may hold another one."""
_AGAIN_S: Final = 5.0
"""How long a key that the table of games did not have is not looked for again."""
_IN_VAIN: Final = 10
"""So many reads of the table in a row that found no key: then it is read only every `_AGAIN_S`."""
_SEPARATORS: Final = re.compile(r"[^a-z0-9]+")
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class UnknownGameKey(InvalidRound):
    """The table of games had no such key when it was read. Read it again, call `GameSlugs.learn`, and try again."""

    def __init__(self, key: str, table: str) -> None:
        super().__init__(_unknown(key, table))
        self.key = key


class GameSlugs:
    """The games of one table of rounds. Lives longer than its mappers."""

    def __init__(self, table: TableOptions, catalogue: Catalogue, *, now: Callable[[], float] = time.monotonic) -> None:
        """Prepare; raise `InvalidOptions` if the catalogue does not have the one game of the table.

        A catalogue without games is for checks of columns.
        """
        if table.game_slug is not None and catalogue.games and table.game_slug not in catalogue.games:
            unknown = UnknownGame(table.game_slug, catalogue.games)
            raise InvalidOptions(f"option game_slug = {table.game_slug!r} of table {table.source}: {unknown}")
        self._table = table
        self._catalogue = catalogue
        self._now = now
        self._from_table: Mapping[str, str] = {}
        self._asked: set[str] = set()  # keys that are not known, since the table was last read
        self._missing: dict[str, float] = {}  # keys that the table did not have, and when
        self._in_vain = 0
        self._learnt_at = 0.0
        self.found: dict[str | None, tuple[str, str]] = {}
        """What `game_of` has returned, by its argument; a part of it."""

    @property
    def table(self) -> TableOptions:
        """The options with the table of games."""
        return self._table

    def learn(self, slugs: Mapping[str, str]) -> None:
        """Take the rows of the table of games: slugs by key, both as text."""
        self._learnt_at = now = self._now()
        missing = {key for key in self._asked if key not in slugs}
        self._in_vain = self._in_vain + 1 if missing and missing == self._asked else 0
        if len(self._missing) + len(missing) > _REMEMBERED:
            self._missing.clear()
        self._missing |= dict.fromkeys(missing, now)
        self._asked.clear()
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
                raise self._not_there(key, table.game_slug_table)
            text = key
        slugs = [text.rstrip(" ")] if table.game_slug_spelling == "exact" else dashed(text)
        for slug in slugs:
            if slug in self._catalogue.games:
                return slug, self._catalogue.games[slug].type
        try:
            self._catalogue.game(check_slug(slugs[0]))
        except (InvalidSlug, UnknownGame) as error:
            hint = "; set game_slug_map" if table.game_slug_map else ""
            raise InvalidRound(f"{error}{hint}") from None
        raise AssertionError(slugs)

    def _not_there(self, key: str, table: str) -> InvalidRound:
        now = self._now()
        looked_at = self._missing.get(key, now - _AGAIN_S)
        if now - looked_at < _AGAIN_S or (self._in_vain >= _IN_VAIN and now - self._learnt_at < _AGAIN_S):
            return InvalidRound(_unknown(key, table))
        if len(self._asked) < _REMEMBERED:
            self._asked.add(key)
        return UnknownGameKey(key, table)


def _unknown(key: str, table: str) -> str:
    return f"game key {key[:40]!r} is not in table {table}; insert the game there, or set game_slug_map"


def dashed(text: str) -> list[str]:
    """Spell a name as a slug: in lower case, with one dash between words; capitals may begin words."""
    spellings = (text, _CAMEL.sub("-", text))
    return list(dict.fromkeys(_SEPARATORS.sub("-", spelling.lower()).strip("-") for spelling in spellings))
