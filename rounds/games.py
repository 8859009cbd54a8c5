"""The catalogue of games and their types: data, bundled as TOML, that an operator can change and extend."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any, Final, Self

import msgspec

from rounds.subjects import InvalidSlug, check_slug


class InvalidCatalogue(ValueError):
    """A games file is invalid; the text names the entry and what is allowed there."""


class UnknownGame(LookupError):
    """No such game. Clients get 404."""

    def __init__(self, slug: str, known: Iterable[str]) -> None:
        super().__init__(slug)
        self.slug, self.known = slug, sorted(known)

    def __str__(self) -> str:
        return f"unknown game {self.slug[:64]!r}; known games: {', '.join(self.known)}"


class UnknownType(LookupError):
    """No such game type. Clients get 404."""

    def __init__(self, game_type: str, known: Iterable[str]) -> None:
        super().__init__(game_type)
        self.game_type, self.known = game_type, sorted(known)

    def __str__(self) -> str:
        return f"unknown game type {self.game_type[:64]!r}; known types: {', '.join(self.known)}"


@dataclass(frozen=True, slots=True)
class Game:
    """One game: the slug that clients use, the name that people read, and the type of its rounds."""

    slug: str
    name: str
    type: str
    value: str  # the member of extras that is the main figure of a round


class _TypeEntry(msgspec.Struct, forbid_unknown_fields=True):
    value: str


class _GameEntry(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    name: str = ""
    enabled: bool = True


class _File(msgspec.Struct, forbid_unknown_fields=True):
    types: dict[str, _TypeEntry] = {}
    games: dict[str, _GameEntry] = {}


@dataclass(frozen=True)
class Catalogue:
    """The games this installation knows. Immutable; look-ups are by slug."""

    games: Mapping[str, Game]
    _by_type: Mapping[str, frozenset[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        by_type: dict[str, set[str]] = {}
        for game in self.games.values():
            by_type.setdefault(game.type, set()).add(game.slug)
        object.__setattr__(self, "_by_type", {name: frozenset(slugs) for name, slugs in by_type.items()})

    @classmethod
    def load(cls, overlay: str | None = None) -> Self:
        """Read the bundled catalogue and lay the TOML text `overlay` over it, member by member.

        Raises:
            InvalidCatalogue: The overlay is no TOML, has unknown members, a bad slug or name of a type, or a game of an
                unknown type.
        """
        merged = tomllib.loads(resources.files("rounds").joinpath("games.toml").read_text("utf-8"))
        if overlay is not None:
            try:
                _lay_over(merged, tomllib.loads(overlay))
            except (tomllib.TOMLDecodeError, RecursionError) as error:  # nested too deeply to be meant
                raise InvalidCatalogue(f"games file is not TOML: {error}") from error
        try:
            file = msgspec.convert(merged, _File)
        except msgspec.ValidationError as error:
            raise InvalidCatalogue(f"games file: {error}") from error
        for name in file.types:
            _check_type(name)
        return cls({slug: _game(slug, entry, file.types) for slug, entry in file.games.items() if entry.enabled})

    def game(self, slug: str) -> Game:
        """Return the game called `slug`; raise `UnknownGame` for anything else."""
        try:
            return self.games[slug]
        except KeyError:
            raise UnknownGame(slug, self.games) from None

    def of_type(self, game_type: str) -> frozenset[str]:
        """Return the slugs of all games of a type; raise `UnknownType` when there is none."""
        try:
            return self._by_type[game_type]
        except KeyError:
            raise UnknownType(game_type, self._by_type) from None

    @cached_property
    def slugs(self) -> frozenset[str]:
        return frozenset(self.games)


_SECTIONS: Final = ("types", "games")


def _lay_over(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    for section, entries in overlay.items():
        if section not in _SECTIONS or not isinstance(entries, dict):
            raise InvalidCatalogue(
                f"games file: unknown section {section!r}; allowed are [types.NAME] and [games.SLUG]"
            )
        for name, entry in entries.items():
            if not isinstance(entry, dict):
                raise InvalidCatalogue(f"games file: {section}.{name} must be a table, got {entry!r}")
            base[section].setdefault(name, {}).update(entry)


def _check_type(name: str) -> None:
    # A type is part of URL paths and of every round of its games, so the rule of slugs applies.
    try:
        check_slug(name)
    except InvalidSlug as error:
        raise InvalidCatalogue(f"games file: {str(error).replace('game slug', 'type')}") from error


def _game(slug: str, entry: _GameEntry, types: Mapping[str, _TypeEntry]) -> Game:
    try:
        check_slug(slug)
    except InvalidSlug as error:
        raise InvalidCatalogue(f"games file: {error}") from error
    if entry.type not in types:
        raise InvalidCatalogue(
            f"games file: game {slug!r} has type {entry.type!r}; known types: {', '.join(sorted(types))}"
        )
    return Game(slug, entry.name or slug, entry.type, types[entry.type].value)
