"""The bundled recording is what its README describes, and can be generated again."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from functools import cache

import msgspec
import pytest
import zstandard

from backends.recordings import bundled, generate
from rounds import Catalogue, Round
from tests.backends.file.replaying import StoppedClock, played, replay, rounds_of

SEAM_MS = 1000


@cache
def recorded() -> Sequence[Round]:
    return [Round.parse(line) for line in data().splitlines()]


@cache
def data() -> bytes:
    return zstandard.ZstdDecompressor().decompress(bundled().read_bytes())


def points(slug: str) -> list[float]:
    return [float(extras(round_)["point"]) for round_ in recorded() if round_.game_slug == slug]


def extras(round_: Round) -> dict[str, str]:
    return msgspec.json.decode(round_.extras, type=dict[str, str])


def test_generating_it_again_gives_the_same_bytes() -> None:
    """The file in the repository equals the output of the generator in the repository."""
    assert b"".join(generate.lines()) == data()


def test_another_seed_gives_another_recording() -> None:
    """The generator uses its seed."""
    first, other = (list(generate.rounds(seed=seed, days=0.01)) for seed in (generate.SEED, 1))

    assert first != other
    assert first == list(generate.rounds(days=0.01))


def test_it_holds_days_of_all_games_of_the_catalogue_in_under_2_mb() -> None:
    """Types are those of the catalogue, ids are unique within a game, and rounds are in commit order."""
    catalogue = Catalogue.load()
    all_rounds = recorded()

    assert bundled().stat().st_size < 2_000_000
    assert len(all_rounds) == 122_629
    assert {round_.game_slug: round_.game_type for round_ in all_rounds} == {
        slug: game.type for slug, game in catalogue.games.items()
    }
    assert len({(round_.game_slug, round_.round_id) for round_ in all_rounds}) == len(all_rounds)
    times = [round_.timestamp for round_ in all_rounds]
    assert times == sorted(times)
    assert timedelta(milliseconds=times[-1] - times[0]) > timedelta(days=2.49)
    assert all(18 <= round_.timestamp - round_.finished.timestamp() * 1000 < 43 for round_ in all_rounds[::97])


def test_no_game_is_silent_for_30_s_not_even_where_a_loop_begins_again() -> None:
    """So at ten times the cadence every game finishes a round at least every 3 s, from the start on."""
    all_rounds = recorded()
    again_ms = all_rounds[-1].timestamp - all_rounds[0].timestamp + SEAM_MS
    last = dict.fromkeys(Catalogue.load().slugs, all_rounds[0].timestamp)
    longest: Counter[str] = Counter()
    for shift_ms in (0, again_ms):
        for round_ in all_rounds:
            time_ms = round_.timestamp + shift_ms
            longest[round_.game_slug] = max(longest[round_.game_slug], time_ms - last[round_.game_slug])
            last[round_.game_slug] = time_ms

    assert max(longest.values()) < 30_000
    per_game = Counter(round_.game_slug for round_ in all_rounds)
    assert len(set(per_game.values())) == len(per_game)  # each game has its own cadence


async def test_demo_shows_every_game_within_three_seconds() -> None:
    """The recording and options of `stream-relay dev`, for a minute of the test's clock."""
    clock = StoppedClock()
    backend = replay(clock, path=str(bundled()), speed="10", loop="true", shift_to_now="true")
    seen = dict.fromkeys(Catalogue.load().slugs, clock.wall_ms())
    longest_ms = 0

    for round_ in rounds_of(await played(backend, stop_after=340)):
        longest_ms = max(longest_ms, round_.timestamp - seen[round_.game_slug])
        seen[round_.game_slug] = round_.timestamp

    assert clock.passed_s > 55
    assert longest_ms <= 3000


@pytest.mark.parametrize(("slug", "edge"), [("crash", 0.03), ("aviador", 0.05), ("pipa-brazil", 0.05)])
def test_crash_games_follow_the_law_of_their_house_edge(slug: str, edge: float) -> None:
    """A point of at least x has probability (1 - edge) / x."""
    all_points = points(slug)

    assert min(all_points) == 1
    for x in (1.5, 2, 5, 10):
        share = sum(point >= x for point in all_points) / len(all_points)
        assert share == pytest.approx((1 - edge) / x, abs=0.02)


def test_double_has_fifteen_equal_fields() -> None:
    """White is 0, red 1 to 7, black 8 to 14."""
    fields = Counter(tuple(extras(round_).values()) for round_ in recorded() if round_.game_slug == "double")
    total = fields.total()

    assert set(fields) == {("white", "0")} | {("red", str(n)) for n in range(1, 8)} | {
        ("black", str(n)) for n in range(8, 15)
    }
    assert all(count / total == pytest.approx(1 / 15, abs=0.012) for count in fields.values())


def test_other_games_have_plausible_figures() -> None:
    """The game can pay every point, and trends go up and down equally often."""
    assert len(set(points("dice"))) == 19
    assert (min(points("dice")), max(points("dice"))) == (1.02, 19.4)
    assert set(points("plinko")) <= {110, 41, 10, 5, 3, 1.5, 1, 0.5, 0.3}
    assert all(1 <= point < 2 for point in points("wall-street"))
    trends = Counter(extras(round_)["trend"] for round_ in recorded() if round_.game_slug == "wall-street")
    assert trends["up"] / trends.total() == pytest.approx(0.5, abs=0.02)
    for round_ in recorded():
        if round_.game_slug == "fortune-dragon":
            found = msgspec.json.decode(round_.extras)
            assert len(found["symbols"]) == 3
            assert (float(found["point"]) >= 3) == (len(set(found["symbols"])) == 1)
