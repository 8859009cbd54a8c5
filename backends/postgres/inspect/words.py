"""The words that names and values in tables of rounds are made of, in the languages that schemas are written in.

Pure. Owns which word hints at what; the words are in a file beside it. A hint is never a fact: the rest of the room
weighs it.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from importlib import resources
from typing import Final

_PIECES: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_WORDS: Final = {
    name: frozenset(words.split())
    for name, words in tomllib.loads(resources.files(__package__).joinpath("words.toml").read_text("utf-8")).items()
}

ROUND: Final = _WORDS["round"]
RESULT: Final = _WORDS["result"]
ID: Final = _WORDS["id"]
GAME: Final = _WORDS["game"]
SLUG: Final = _WORDS["slug"]
KIND: Final = _WORDS["kind"]
STATE: Final = _WORDS["state"]
FINISHED: Final = _WORDS["finished"]
OPEN: Final = _WORDS["open"]
VOIDED: Final = _WORDS["voided"]
STARTED: Final = _WORDS["started"]
CREATED: Final = _WORDS["created"]
CHANGED: Final = _WORDS["changed"]
HANDLED: Final = _WORDS["handled"]
WHEN: Final = _WORDS["when"]
POINT: Final = _WORDS["point"]
COLOR: Final = _WORDS["color"]
NUMBER: Final = _WORDS["number"]
TREND: Final = _WORDS["trend"]
SYMBOLS: Final = _WORDS["symbols"]
PRIVATE: Final = _WORDS["private"]
MONEY: Final = _WORDS["money"]
ASIDE: Final = _WORDS["aside"]
FIGURES: Final = POINT | COLOR | NUMBER | TREND | SYMBOLS | RESULT | _WORDS["figure"]
DOCUMENT: Final = RESULT | _WORDS["document"]


@lru_cache(maxsize=4096)
def words_of(name: str) -> tuple[str, ...]:
    """Split a name or a value into words: lower case, without accents; ``finishedAt`` is ``finished``, ``at``."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return tuple(piece.lower() for piece in _PIECES.findall(plain))


def has_any(name: str, words: Iterable[str]) -> bool:
    """Whether one of the words of a name is among `words`."""
    return not frozenset(words_of(name)).isdisjoint(words)


def joined(text: str) -> str:
    """Write a name without anything between its words, to compare it with another spelling."""
    return "".join(words_of(text))
