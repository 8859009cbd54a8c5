"""Realistic rounds for benchmarks that need no recording: all games in turn, extras of a real length."""

import itertools
from collections.abc import Iterator
from typing import Final

from rounds import Catalogue, Round
from rounds.times import utc_text

_FIRST_S: Final = 1737194400
_EXTRAS: Final = {
    "multiplier": '{"point":"2.50"}',
    "color": '{"color":"red","number":"7"}',
    "trending": '{"trend":"up","point":"1.20"}',
    "slots": '{"symbols":["7","7","bar"],"point":"5.00"}',
}


def endless(*, first_id: int = 1) -> Iterator[Round]:
    """Yield rounds of all games of the bundled catalogue in turn, one a second, with ids counted from `first_id`."""
    games = [catalogue_game for _, catalogue_game in sorted(Catalogue.load().games.items())]
    for round_id, game in zip(itertools.count(first_id), itertools.cycle(games)):
        finished_ms = 1000 * (_FIRST_S + round_id)
        yield Round.make(
            round_id=round_id,
            game_slug=game.slug,
            game_type=game.type,
            finished_at=utc_text(finished_ms),
            extras=_EXTRAS[game.type],
            timestamp=finished_ms + 1,
        )
