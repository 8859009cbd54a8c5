"""Which game a value means: the map, the table of games, the spelling; and when the table is read again."""

from typing import Any

import pytest

from backends.contract import InvalidOptions
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.game_slugs import GameSlugs, UnknownGameKey
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.table_options import TableOptions
from rounds import Catalogue, InvalidRound

CATALOGUE = Catalogue.load()
FROM_TABLE = {"game_slug_column": "game_id", "game_slug_table": "games"}


def games(**options: Any) -> GameSlugs:
    return GameSlugs(TableOptions.model_validate(options), CATALOGUE, now=lambda: 0.0)


@pytest.mark.parametrize(
    ("value", "slug"),
    [("WALL_STREET", "wall-street"), ("Wall Street", "wall-street"), ("wall-street", "wall-street"),
     ("WallStreet", "wall-street"), (" Fortune  Dragon! ", "fortune-dragon"), ("CRASH", "crash"),
     ("MotograuV2", "motograu-v2"), ("freestyle_v2", "freestyle-v2"), ("Dice      ", "dice")],
)  # fmt: skip
def test_dashed_spelling_makes_slugs_of_names(value: str, slug: str) -> None:
    assert games(game_slug_spelling="dashed").game_of(value)[0] == slug


def test_exact_spelling_is_the_default() -> None:
    with pytest.raises(InvalidRound, match="game slug 'CRASH' is not allowed"):
        games().game_of("CRASH")


def test_one_game_of_a_table_has_to_exist() -> None:
    """Otherwise every row would be rejected."""
    with pytest.raises(
        InvalidOptions, match=r"option game_slug = 'crsh' of table gaming\.x: unknown game 'crsh'; known"
    ):
        games(table="gaming.x", game_slug="crsh")


def test_map_is_asked_first_and_then_the_value_itself() -> None:
    mapped = games(game_slug_map={"1": "crash", "wall street": "wall-street"})

    assert [mapped.game_of(value) for value in ("1", "1  ", "wall street", "dice")] == [
        ("crash", "multiplier"), ("crash", "multiplier"), ("wall-street", "trending"), ("dice", "multiplier"),
    ]  # fmt: skip
    with pytest.raises(InvalidRound, match=r"unknown game '2'; known games: .*; set game_slug_map"):
        mapped.game_of("2")


def test_table_of_games_is_asked_for_again_when_a_key_is_not_known() -> None:
    """A game that was added after the start; the map of the options has priority."""
    slugs = games(**FROM_TABLE, game_slug_map={"1": "dice"}, game_slug_spelling="dashed")
    slugs.learn({"1": "CRASH", "2": "DOUBLE"})
    assert [slugs.game_of(key)[0] for key in ("1", "2")] == ["dice", "double"]

    with pytest.raises(UnknownGameKey, match="game key '3' is not in table games; insert the game there"):
        slugs.game_of("3")
    slugs.learn({"1": "CRASH", "2": "DOUBLE", "3": "WALL_STREET"})

    assert slugs.game_of("3") == ("wall-street", "trending")


def test_renamed_game_is_known_after_a_reading() -> None:
    slugs = games(**FROM_TABLE)
    slugs.learn({"1": "crash"})
    assert slugs.game_of("1")[0] == "crash"
    slugs.learn({"1": "dice"})
    assert slugs.game_of("1")[0] == "dice"


def test_key_that_is_not_there_is_rejected_and_asked_for_again_later() -> None:
    """One row of a game that nobody has added must not cause a reading for each of its rows."""
    now = [0.0]
    slugs = GameSlugs(TableOptions.model_validate(FROM_TABLE), CATALOGUE, now=lambda: now[0])
    for seconds, asks in ((0.0, True), (1.0, False), (4.9, False), (5.1, True)):
        now[0] = seconds
        with pytest.raises(InvalidRound) as caught:
            slugs.game_of("9")
        assert isinstance(caught.value, UnknownGameKey) is asks
        if asks:
            slugs.learn({})


def test_readings_in_vain_become_rare() -> None:
    """A column that holds no keys at all: each row has another value."""
    now = [100.0]
    slugs = GameSlugs(TableOptions.model_validate(FROM_TABLE), CATALOGUE, now=lambda: now[0])
    readings = 0
    for key in range(1000):
        now[0] += 0.01
        with pytest.raises(InvalidRound) as caught:
            slugs.game_of(f"x{key}")
        if isinstance(caught.value, UnknownGameKey):
            readings += 1
            slugs.learn({"1": "crash"})

    assert readings <= 12


def test_remembered_values_are_bounded() -> None:
    """Each row may hold another value that is spelled as the same game."""
    slugs = games(game_slug_spelling="dashed")
    for number in range(5000):
        slugs.game_of("crash" + f"{number:b}".translate({48: "!", 49: "?"}))

    assert len(slugs.found) == 4096


def test_batch_says_whether_the_table_has_to_be_read() -> None:
    """Rows that are not ours, or not finished, need no game."""
    table = TableOptions.model_validate({**FROM_TABLE, "rows_when": "kind = 'r'"})
    columns = [Column(name) for name in ("round_id", "game_id", "finished_at", "extras", "kind")]
    mapper = TableMapper(table, CATALOGUE, columns)
    done, other = ["1", "7", "2026-01-18 10:00:30+00", "{}", "r"], ["1", "8", "2026-01-18 10:00:30+00", "{}", "x"]

    assert not mapper.needs_games([other, [*done[:2], None, None, "r"]])
    assert mapper.needs_games([other, done, done])
    mapper.games.learn({"7": "crash"})
    assert not mapper.needs_games([other, done])
    assert mapper.to_round(done, 7).game_slug == "crash"
