"""How the options of tables are written: in TOML, in the environment, as defaults of several tables."""

from pathlib import Path
from typing import Any

import pytest

from backends.contract import InvalidOptions
from backends.postgres.mapping.table_options import ExtrasMember, TableOptions
from backends.postgres.postgres_options import PostgresOptions
from relay.config.settings import load

DSN = "postgresql://writer:hunter2@db.example:5433/games"
TOML = f"""
[backend]
name = "postgres-replication"
dsn = "{DSN}"
round_id_column = "id"

[backend.game_slug_map]
1 = "crash"

[[backend.tables]]
table = "gaming.dice"
game_slug = "dice"
extras_columns = ["roll"]

[[backend.tables]]
table = "gaming.plinko"
game_slug = "plinko"
round_id_column = "no"
[backend.tables.extras_columns]
point = "payout_cents/100"
path = "result.path"
"""


def options(**given: object) -> PostgresOptions:
    return PostgresOptions.read({"dsn": DSN, **given})


def test_one_table_is_all_tables() -> None:
    """Settings with a single table are what they were."""
    one = options(table="play.rounds")

    assert one.all_tables == (one,)
    assert one.source == "play.rounds"


def test_several_tables_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options at the top are defaults of each table; an option of a table replaces what it excludes."""
    (tmp_path / "relay.toml").write_text(TOML)
    monkeypatch.setenv("RELAY_CONFIG", str(tmp_path / "relay.toml"))

    dice, plinko = PostgresOptions.read(load().backend.options).all_tables

    assert (dice.source, dice.round_id_column, dice.game_slug, dice.game_slug_map) == ("gaming.dice", "id", "dice", {})
    assert dice.extras_columns == (ExtrasMember("roll", "roll"),)
    assert (plinko.source, plinko.round_id_column) == ("gaming.plinko", "no")
    assert plinko.extras_columns == (ExtrasMember("point", "payout_cents", 2), ExtrasMember("path", "result.path"))


def test_several_tables_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value is text: tables are JSON, a map and columns are lists with commas."""
    monkeypatch.setenv("RELAY_BACKEND_DSN", DSN)
    monkeypatch.setenv("RELAY_BACKEND_TABLES", '[{"table": "dice", "game_slug": "dice"}, {"table": "results"}]')
    monkeypatch.setenv("RELAY_BACKEND_GAME_SLUG_MAP", '1=crash, "a,b" = double')
    monkeypatch.setenv("RELAY_BACKEND_EXTRAS_COLUMNS", 'point=cents/100, roll , "odd, name", no=doc."a.b".no')

    dice, results = PostgresOptions.read(load().backend.options).all_tables

    assert (dice.game_slug, dice.game_slug_map) == ("dice", {})
    assert results.game_slug_map == {"1": "crash", "a,b": "double"}
    assert results.extras_columns == (
        ExtrasMember("point", "cents", 2),
        ExtrasMember("roll", "roll"),
        ExtrasMember("odd, name", '"odd, name"'),
        ExtrasMember("no", 'doc."a.b".no'),
    )


@pytest.mark.parametrize(
    ("given", "members"),
    [
        (["a", "b=c"], [("a", "a", 0), ("b", "c", 0)]),
        ({"b": "c/10"}, [("b", "c", 1)]),
        ('{"b": "c"}', [("b", "c", 0)]),
        ('{b = "c"}', [("b", "c", 0)]),
        ('["a", "b=c"]', [("a", "a", 0), ("b", "c", 0)]),
        ("a", [("a", "a", 0)]),
        ("payload.round.no", [("no", "payload.round.no", 0)]),
        (['"a/b"'], [("a/b", '"a/b"', 0)]),
        (['"x=y"'], [("x=y", '"x=y"', 0)]),
    ],
)  # fmt: skip
def test_extras_columns_in_every_form(given: object, members: list[tuple[str, str, int]]) -> None:
    read = options(extras_columns=given)

    assert read.extras_columns == tuple(ExtrasMember(*member) for member in members)
    assert options(**read.given).extras_columns == read.extras_columns, "an admin makes options of options"


@pytest.mark.parametrize("own", ["game_slug_column", "game_slug_map", "game_slug_table"])
def test_table_may_say_otherwise_than_the_defaults(own: str) -> None:
    """One table has a column of games, all others are of one game."""
    value = {"1": "dice"} if own == "game_slug_map" else "x"
    first, second = options(game_slug="crash", tables=[{"table": "a", own: value}, {"table": "b"}]).all_tables

    assert (first.game_slug, getattr(first, own)) == (None, value)
    assert second.game_slug == "crash"


def test_default_of_each_table_is_not_the_value_of_another() -> None:
    first, second = options(tables=[{"table": "a", "order_column": "n"}, {"table": "b"}]).all_tables

    assert (first.order, second.order) == ("n", "round_id")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"tables": {"table": "x"}}, "must be an array of tables: [[backend.tables]] in TOML"),
        ({"tables": ["x"]}, "must be an array of tables"),
        ({"tables": '[{"table"'}, "must be a JSON array of objects"),
        ({"tables": [{"game_slug": "x"}]}, "tables.0 has no 'table'; it must name a table"),
        ({"tables": [{"table": "a"}, {"table": "public.a"}]}, "tables has public.a twice"),
        ({"tables": [{"table": "a"}], "table": "b"}, "table and tables exclude each other"),
        ({"tables": [{"table": "a", "tabel": "x"}]}, "unknown option 'tables.0.tabel'; allowed are deletes, extras"),
        ({"tables": [{"table": "a", "dsn": "x"}]}, "unknown option 'tables.0.dsn'"),
        ({"tables": [{"table": "a", "game_type": "x y"}]}, "option tables.0.game_type = 'x y': must be 1 to 64 of a-z"),
        (
            {"finished_when": "state = done"},
            "option finished_when = 'state = done': has 'done' where a value has to be",
        ),
        ({"game_slug": "CRASH"}, "option game_slug = 'CRASH': must be 1 to 64 of a-z, 0-9 and '-'"),
        ({"game_slug": "crash", "game_slug_column": "g"}, "game_slug and game_slug_column exclude each other"),
        ({"game_type": "x", "game_type_column": "g"}, "game_type and game_type_column exclude each other"),
        ({"extras_columns": ["a"], "extras_column": "b"}, "extras_column and extras_columns exclude each other"),
        ({"extras_columns": []}, "must have at least one column"),
        ({"extras_columns": ["a", "a"]}, "has the member 'a' twice; write member=column"),
        ({"extras_columns": ["a/3"]}, "has the scale '3'; scales are 10, 100"),
        ({"extras_columns": {"a": 5}}, "option 'extras_columns' has 5; members are text"),
        ({"extras_columns": 5}, "must be a list of columns, or a table of members"),
        ({"game_slug_map": "1"}, "option game_slug_map = '1': has '1' without a slug; write key=slug"),
        ({"game_slug_map": {"1": "CRASH"}}, "option game_slug_map.1 = 'CRASH': must be 1 to 64 of a-z"),
        ({"game_slug_map": "{1"}, "must be JSON or TOML"),
        ({"round_ids": "uuid"}, "option round_ids = 'uuid': input should be 'integer' or 'hashed'"),
        ({"round_id_column": ""}, "option round_id_column = '': must be a name of 1 to 63 bytes"),
        ({"game_slug_table": ""}, "option game_slug_table = '': must be a name of 1 to 63 bytes"),
    ],
)
def test_wrong_option_of_a_table_is_one_sentence(given: dict[str, Any], sentence: str) -> None:
    """It names the option with its table, the value, and what is allowed; never the password."""
    with pytest.raises(InvalidOptions) as caught:
        options(**given)

    assert sentence in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_option_of_a_table_is_described() -> None:
    """One page lists all of them."""
    page = (Path(__file__).parents[3] / "docs/postgres-mapping.md").read_text("utf-8")

    assert [name for name in TableOptions.model_fields if f"`{name}`" not in page] == []
