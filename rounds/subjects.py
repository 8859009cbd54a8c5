"""The names a round has in NATS: its subjects and its de-duplication id.

Owns the one rule that keeps untrusted text out of subjects: a slug is checked before it becomes a subject token,
because NATS itself accepts a publish to ``rounds.*`` or ``rounds.a.b`` and stores it.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NamedTuple

SLUG_PATTERN: Final = r"\A[a-z0-9][a-z0-9-]{0,63}\Z"
"""Lower-case letters, digits and ``-``, 1 to 64 of them. ``\\Z``, since ``$`` would let a trailing newline through."""

LOG_SUBJECTS: Final = "rounds.*"
LIVE_SUBJECTS: Final = "live.rounds.*"
LIVE_TEMPLATE: Final = "live.rounds.{{wildcard(1)}}"
"""Where the stream republishes what it has stored, see `docs/adr/0002-republish-for-live.md`."""

_CORRECTIONS: Final = "~corrections"
_SLUG: Final = re.compile(SLUG_PATTERN)


class InvalidSlug(ValueError):
    """The text is not a game slug. It was not used for anything."""

    def __init__(self, text: object) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return (
            f"game slug {_shortened(self.text)} is not allowed; use 1 to 64 of a-z, 0-9 and '-', not starting with '-'"
        )


def is_slug(text: str) -> bool:
    """Whether `text` can stand as a game or type slug."""
    return len(text) <= 64 and _is_slug(text)  # long texts stay out of the cache


@lru_cache(maxsize=4096)
def _is_slug(text: str) -> bool:
    return _SLUG.match(text) is not None


def check_slug(text: object) -> str:
    """Return `text` if it can stand as a game or type slug; raise `InvalidSlug` for anything else."""
    if not isinstance(text, str) or not is_slug(text):
        raise InvalidSlug(text)
    return text


def log_subject(game_slug: str) -> str:
    """Name the subject under which the log stores a game's rounds: ``rounds.<game>``."""
    return f"rounds.{check_slug(game_slug)}"


def live_subject(game_slug: str) -> str:
    """Name the subject on which the stored rounds of a game are republished: ``live.rounds.<game>``."""
    return f"live.rounds.{check_slug(game_slug)}"


def corrections_of(game_slug: str) -> str:
    """Name what stands for a game's corrections wherever a game's slug stands for its rounds: ``<game>~corrections``.

    No slug has a ``~``, so no game, no client and no older relay can name it.
    """
    return f"{check_slug(game_slug)}{_CORRECTIONS}"


def corrections_subject(game_slug: str) -> str:
    """Name the subject under which the log stores corrections of a game's rounds: ``rounds.<game>~corrections``."""
    return f"rounds.{corrections_of(game_slug)}"


def is_corrections(name: str) -> bool:
    """Whether a name that stands for a game, or for its corrections, is the latter; or a subject of such a name."""
    return name.endswith(_CORRECTIONS)


@lru_cache(maxsize=256)
def has_corrections(names: frozenset[str]) -> bool:
    """Whether any of the names stands for a game's corrections."""
    return any(map(is_corrections, names))


def game_of(name: str) -> str:
    """Return the game of a name that stands for it or for its corrections."""
    return name.removesuffix(_CORRECTIONS)


def games_of(names: Iterable[str]) -> frozenset[str]:
    """Return the games among names that stand for games and for their corrections."""
    return _games_of(frozenset(names))


@lru_cache(1024)
def _games_of(names: frozenset[str]) -> frozenset[str]:
    games = frozenset([name for name in names if not is_corrections(name)])
    return names if len(games) == len(names) else games


def with_corrections(games: Iterable[str]) -> frozenset[str]:
    """Return names that stand for games and for their corrections."""
    names = frozenset(games)
    return names | {corrections_of(game) for game in names}


def only_game(names: frozenset[str]) -> str | None:
    """Return the one game that names stand for, with its corrections or without; None: they stand for several."""
    games = {game_of(name) for name in names}
    return games.pop() if len(games) == 1 else None


def stored_subject(name: str) -> str:
    """Name the subject under which the log stores what a name stands for: a game's rounds, or their corrections."""
    return corrections_subject(game_of(name)) if is_corrections(name) else log_subject(name)


def live_subject_of(name: str) -> str:
    """Name the subject on which what a name stands for is republished, when it has been stored."""
    return f"live.{stored_subject(name)}"


def dedup_id(game_slug: str, round_id: int, revision: int = 1) -> str:
    """Name a round for ``Nats-Msg-Id``. The same round has the same id whatever backend, slot or process sends it.

    ``<game>:<round_id>``, and ``<game>:<round_id>:<revision>`` for a correction.
    """
    return f"{game_slug}:{round_id}" if revision == 1 else f"{game_slug}:{round_id}:{revision}"


class ParsedId(NamedTuple):
    """What an id of `dedup_id` names."""

    game_slug: str
    round_id: int
    revision: int


def parse_dedup_id(text: str) -> ParsedId | None:
    """Read back what `dedup_id` wrote; None: it has another form, of another program."""
    game, *numbers = text.split(":")
    if not 1 <= len(numbers) <= 2 or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    return ParsedId(game, int(numbers[0]), int(numbers[1]) if len(numbers) == 2 else 1)


def resent_id(msg_id: bytes, times: int) -> bytes:
    """Name an entry for ``Nats-Msg-Id`` that the server takes for stored although the log lacks it: ``<id>~<times>``.

    `times` is how often it was found missing; 0: the id itself.
    """
    return b"%b~%d" % (msg_id, times) if times else msg_id


def plain_id(text: str) -> str:
    """Return the id of which `resent_id` was made."""
    return text.partition("~")[0]


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"
