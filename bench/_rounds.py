"""Realistic rounds for benchmarks that need no recording: all games in turn, extras of a real length."""

import itertools
from collections.abc import Iterator
from typing import Final

from rounds import Catalogue, Round
from rounds.times import utc_text

_FIRST_S: Final = 1737194400
_SYMBOLS: Final = ("7", "bar", "bell", "cherry", "diamond", "lemon", "star", "wild")
_COLORS: Final = ("white", "red", "black")


def endless(*, first_id: int = 1) -> Iterator[Round]:
    """Yield rounds of all games of the bundled catalogue in turn, one a second, with ids counted from `first_id`."""
    games = [catalogue_game for _, catalogue_game in sorted(Catalogue.load().games.items())]
    for number, game in zip(itertools.count(), itertools.cycle(games)):
        round_id, finished_ms = first_id + number, 1000 * (_FIRST_S + number)
        yield Round.make(
            round_id=round_id,
            game_slug=game.slug,
            game_type=game.type,
            finished_at=utc_text(finished_ms),
            extras=_extras(game.type, round_id),
            timestamp=finished_ms + 1,
        )


def _extras(type_: str, round_id: int) -> str:
    """Make up a result of a game; results vary as in play, so that caches hit no more often than there."""
    chance = (round_id * 2654435761 % 2**32 + 1) / 2**32
    point = f"{max(1.0, 0.97 / chance):.2f}"
    if type_ == "color":
        number = int(chance * 15)
        return f'{{"color":"{_COLORS[(number > 0) + (number > 7)]}","number":"{number}"}}'
    if type_ == "trending":
        return f'{{"trend":"{"up" if chance < 0.5 else "down"}","point":"{point}"}}'
    if type_ == "slots":
        symbols = ",".join(f'"{_SYMBOLS[int(chance * 8**place) % 8]}"' for place in (1, 2, 3))
        return f'{{"symbols":[{symbols}],"point":"{point}"}}'
    return f'{{"point":"{point}"}}'
