"""Generate the bundled recording: ``python -m backends.recordings.generate [FILE]``. Same seed, same bytes.

Owns what a plausible round of each game looks like. All rounds are drawn from one seed; none comes from a real game.
Only `random.Random.random` and the four arithmetic operations are used: Python and IEEE 754 guarantee their results on
every machine and version, which they do not for `gauss`, `choices` or `log`.
"""

import heapq
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import zstandard

from backends.recordings import bundled
from rounds import Catalogue, Round
from rounds.times import utc_text

SEED: Final = 20260116
START_MS: Final = 1_768_564_800_000
"""2026-01-16T12:00:00Z, a Friday."""
DAYS: Final = 2.5

Draw = Callable[[], float]
"""A number from 0 up to but not including 1."""


def multiplier(draw: Draw, edge: float, cap: float) -> str:
    """Draw a crash game's point: at least x with probability (1 - edge) / x, between 1.00 and `cap`."""
    return _two_decimals(min(max((1 - edge) / (1 - draw()), 1.0), cap))


def crash(draw: Draw) -> str:
    return f'{{"point":"{multiplier(draw, 0.03, 10_000)}"}}'


def flight(draw: Draw) -> str:
    """Draw a point as `crash` does, with the higher edge and lower cap of the games with planes and motorbikes."""
    return f'{{"point":"{multiplier(draw, 0.05, 1_000)}"}}'


def dice(draw: Draw) -> str:
    """Draw what a bet on a chance of 5 % to 95 %, in steps of 5 %, pays: 0.97 / chance."""
    return f'{{"point":"{_two_decimals(0.97 / (0.05 * (1 + int(draw() * 19))))}"}}'


_PLINKO: Final = ("110", "41", "10", "5", "3", "1.5", "1", "0.5", "0.3")


def plinko(draw: Draw) -> str:
    """Draw the slot of a ball over 16 rows of pins (binomial); the outer slots pay most."""
    slot = int(draw() * 65536).bit_count()
    return f'{{"point":"{_two_decimals(float(_PLINKO[min(slot, 16 - slot)]))}"}}'


def double(draw: Draw) -> str:
    """Draw one of 15 equal fields: 0 is white, 1 to 7 red, 8 to 14 black."""
    number = int(draw() * 15)
    color = "white" if number == 0 else "red" if number <= 7 else "black"
    return f'{{"color":"{color}","number":"{number}"}}'


def wall_street(draw: Draw) -> str:
    """Draw whether a price rises or falls, and what a right guess pays; small moves are common."""
    trend = "up" if draw() < 0.5 else "down"
    return f'{{"trend":"{trend}","point":"{_two_decimals(1 + draw() * draw())}"}}'


_REEL: Final = ("7",) + ("dragon",) * 2 + ("bar",) * 3 + ("coin",) * 4 + ("lantern",) * 5 + ("orange",) * 5
_PAYS: Final = {"7": 250.0, "dragon": 100.0, "bar": 25.0, "coin": 10.0, "lantern": 5.0, "orange": 3.0}


def fortune_dragon(draw: Draw) -> str:
    """Draw three reels of 20 fields. Three alike pay by the symbol; two adjacent 7s or dragons pay 1.00."""
    one, two, three = (_REEL[int(draw() * len(_REEL))] for _ in range(3))
    pays = _PAYS[one] if one == two == three else 1.0 if two in ("7", "dragon") and two in (one, three) else 0.0
    return f'{{"symbols":["{one}","{two}","{three}"],"point":"{_two_decimals(pays)}"}}'


class Habit(NamedTuple):
    """The parameters of one game."""

    extras: Callable[[Draw], str]
    cadence_s: float
    """Mean time between two rounds."""
    spread_s: float
    """The time between two rounds differs from the mean by at most this. The sum of both is under 29 s: README.md."""
    first_id: int


HABITS: Final = {
    "crash": Habit(crash, 24.0, 4.5, 48_230_115),
    "dice": Habit(dice, 20.0, 1.0, 90_118_402),
    "plinko": Habit(plinko, 21.0, 2.0, 61_770_938),
    "aviador": Habit(flight, 25.0, 3.5, 33_415_207),
    "aviator-wars": Habit(flight, 26.5, 2.0, 7_802_554),
    "foguetinho": Habit(flight, 24.5, 4.0, 12_966_031),
    "motograu": Habit(flight, 26.0, 2.5, 9_315_870),
    "motograu-v2": Habit(flight, 25.5, 3.0, 2_204_619),
    "free-style": Habit(flight, 27.5, 1.0, 5_541_283),
    "freestyle-v2": Habit(flight, 27.0, 1.5, 1_387_746),
    "pipa-brazil": Habit(flight, 23.5, 5.0, 4_073_912),
    "double": Habit(double, 28.0, 0.5, 27_654_090),
    "wall-street": Habit(wall_street, 28.5, 0.3, 3_690_428),
    "fortune-dragon": Habit(fortune_dragon, 22.0, 3.0, 15_028_377),
}


def rounds(seed: int = SEED, days: float = DAYS) -> Iterator[Round]:
    """Yield the rounds of all games in the order in which they were committed."""
    catalogue = Catalogue.load()
    games = (_game(slug, catalogue.game(slug).type, habit, seed, days) for slug, habit in HABITS.items())
    yield from heapq.merge(*games, key=lambda round_: (round_.timestamp, round_.game_slug))


def _game(slug: str, game_type: str, habit: Habit, seed: int, days: float) -> Iterator[Round]:
    draw = random.Random(f"{seed}:{slug}").random  # noqa: S311 - one per game, so that games are independent
    span_ms = days * 86_400_000
    count = round(span_ms / (1000 * habit.cadence_s))
    gaps = [habit.cadence_s + habit.spread_s * (draw() + draw() - 1) for _ in range(count)]
    # Stretch the gaps slightly so that they fill the time exactly: then a loop has no longer pause at its seam.
    stretch_ms = span_ms / sum(gaps)
    finished_ms = START_MS + gaps[-1] * stretch_ms * draw()
    for round_id, gap in enumerate(gaps, habit.first_id):
        committed_ms = finished_ms + 18 + 12 * draw() + 12 * draw()  # the game takes this long to store a round
        yield Round.make(
            round_id=round_id,
            game_slug=slug,
            game_type=game_type,
            finished_at=utc_text(int(finished_ms)),
            extras=habit.extras(draw),
            timestamp=int(committed_ms),
        )
        finished_ms += gap * stretch_ms


def lines(seed: int = SEED, days: float = DAYS) -> Iterator[bytes]:
    """Yield the recording line by line, line ends included."""
    for round_ in rounds(seed, days):
        yield round_.to_json() + b"\n"


def write(path: Path) -> int:
    """Write the whole recording to `path`; return its size in bytes."""
    data = b"".join(lines())
    path.write_bytes(zstandard.ZstdCompressor(level=19, write_checksum=True).compress(data))
    return path.stat().st_size


def _two_decimals(value: float) -> str:
    # Truncate: a multiplier that has not been reached is not paid. The small addend corrects 1.15 * 100 = 114.99…
    cents = int(value * 100 + 1e-6)
    return f"{cents // 100}.{cents % 100:02}"


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else bundled()
    print(f"{target}: {write(target)} bytes")  # noqa: T201
