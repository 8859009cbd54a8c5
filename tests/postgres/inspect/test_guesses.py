"""The words, spellings and settings of `stream-relay backend init`, without a database."""

import json
import shlex
import tomllib
from typing import Any
from urllib.parse import unquote

import pytest

from backends.postgres.findings import Verdict
from backends.postgres.inspect.column_faults import column_faults
from backends.postgres.inspect.facts import ColumnFacts, Rows, TableFacts
from backends.postgres.inspect.fields import fields_of
from backends.postgres.inspect.game_roles import GameNames, guess_game
from backends.postgres.inspect.propose import Proposal, propose_table
from backends.postgres.inspect.settings_text import as_toml, as_variables, without_password
from backends.postgres.inspect.words import words_of
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.replication.slot import ReplicationOptions
from rounds import Catalogue

NAMES = GameNames(Catalogue.load())


def table(*columns: ColumnFacts, name: str = "rounds", **more: Any) -> TableFacts:
    key = (columns[0].name,)
    return TableFacts(1, "public", name, "r", columns, primary_key=key, unique_keys=(key,), **more)


def column(name: str, base: str, **more: Any) -> ColumnFacts:
    return ColumnFacts(name, 25, base, base, **more)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("finishedAt", ["finished", "at"]),
        ("FECHA_FINALIZACIÓN", ["fecha", "finalizacion"]),
        ("HTTPStatus2", ["http", "status", "2"]),
        ("encerrada-em", ["encerrada", "em"]),
        ("日時", []),
    ],
)
def test_names_are_split_into_words(name: str, words: list[str]) -> None:
    """By case, by accents, by signs."""
    assert list(words_of(name)) == words


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("crash_rounds", "crash"),
        ("aviator_wars_results", "aviator-wars"),
        ("RodadasMotograuV2", "motograu-v2"),
        ("gaming_dice", "dice"),
        ("rounds", None),
    ],
)
def test_the_longest_game_in_a_name_of_a_table_counts(name: str, slug: str | None) -> None:
    """`motograu` and `motograu-v2` are two games."""
    assert NAMES.slug_in(name) == slug


def proposed(rows: Rows, *columns: ColumnFacts, name: str = "rounds") -> Proposal:
    return propose_table(table(*columns, name=name), rows, {}, {}, NAMES, {})


def test_games_in_words_of_the_owner_become_a_map() -> None:
    """Where neither the slug nor its dashed spelling is written, and one game is not known."""
    rows = [{"id": str(number), "juego": game, "fin": "2026-01-18 10:00:00+00", "punto": "1"}
            for number, game in enumerate(["wallstreet", "crash", "Ruleta"])]  # fmt: skip
    columns = (
        column("id", "int8", not_null=True), column("juego", "text", not_null=True),
        column("fin", "timestamptz", not_null=True), column("punto", "numeric", not_null=True),
    )  # fmt: skip

    proposal = proposed(rows, *columns)

    assert proposal.options["game_slug_map"] == {"wallstreet": "wall-street", "crash": "crash", "Ruleta": "ruleta"}
    assert proposal.unknown_games == ("ruleta",)


def test_columns_of_players_and_seeds_are_no_result() -> None:
    """Nobody wants them to reach clients by default."""
    columns = [column("id", "int8", not_null=True), column("game", "text"), column("ended_at", "timestamptz")]
    columns += [column(name, "text") for name in ("server_seed", "player_name", "result")]

    proposal = proposed([], *columns)

    assert proposal.options["extras_columns"] == ["result"]


def test_a_state_that_only_a_check_names_is_found() -> None:
    """An empty table says it too; a quote in a state is written as SQL does."""
    states = "CHECK ((status = ANY (ARRAY['open'::text, 'open''d'::text, 'settled'::text, 'refunded'::text])))"
    columns = [column("id", "int8"), column("game", "text"), column("status", "text"), column("at", "timestamptz")]
    found = propose_table(table(*columns, checks=(states,)), [], {}, {}, NAMES, {"finished_at_column": "at"})

    assert found.options["finished_when"] == "status = 'settled'"
    assert found.options["voided_when"] == "status = 'refunded'"


def test_settings_mean_the_same_in_a_file_and_in_the_environment() -> None:
    """Every kind of value, with names that need quotes."""
    options = {
        "table": 'we"ird.täble',
        "round_id_column": 'a."b.c"',
        "game_slug_map": {"1": "crash", "W S": "wall-street"},
        "finished_when": "\"Estado Final\" = 'it''s over'",
        "extras_columns": ['point="x, y"/100', "color"],
        "corrections": True,
    }
    shared = {"dsn": "postgresql://relay@db/games", "slot": "one"}

    read = tomllib.loads(as_toml("postgres-replication", shared, [options]))["backend"]
    lines = [shlex.split(line)[0].partition("=") for line in as_variables("postgres-replication", shared, [options])]
    variables = {name.removeprefix("RELAY_BACKEND_").lower(): value for name, _, value in lines}

    assert read.pop("name") == variables.pop("name") == "postgres-replication"
    assert ReplicationOptions.read(read).given == ReplicationOptions.read(variables).given
    tables = [{"table": "one", "game_slug": "crash"}, {"table": "two", "game_slug": "dice"}]
    several = tomllib.loads(as_toml("postgres-notify", shared, tables))["backend"]
    assert several["tables"] == tables
    assert json.loads(shlex.split(as_variables("postgres-notify", shared, tables)[-1])[0].partition("=")[2]) == tables


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://relay:se%40cret@db:5/games?sslmode=require", "postgresql://relay@db:5/games?sslmode=require"),
        ("postgres://relay@a:1,b:2/games", "postgresql://relay@a:1,b:2/games"),
        ("postgresql:///games?host=/run/pg&user=relay&password=secret", "postgresql:///games?host=/run/pg&user=relay"),
    ],
)  # fmt: skip
def test_shown_dsn_has_no_password(dsn: str, shown: str) -> None:
    """Neither beside the user nor among the parameters; the rest still connects."""
    assert unquote(without_password(dsn)) == shown


def test_a_column_that_cannot_hold_what_it_is_named_for_is_a_failure() -> None:
    """Each with the SQL or the option that helps; members of documents need a document."""
    facts = table(column("id", "bool"), column("g", "int4"), column("t", "time"), column("x", "xml"), name="r")
    options = TableOptions(
        table="r", round_id_column="id", game_slug_column="g", finished_at_column="t", extras_column="x"
    )

    failures = [finding.text for finding in column_faults(facts, options) if finding.verdict is Verdict.FAILURE]

    assert len(failures) == 4
    assert all('of "public"."r"' in text for text in failures)
    nested = TableOptions(
        table="r", round_id_column="id", game_slug="crash", finished_at_column="t.at", extras_column="x"
    )
    assert any("is no JSON document" in finding.text for finding in column_faults(facts, nested))


def test_a_document_offers_its_members() -> None:
    """With quotes where a name has a dot, and what kind each is."""
    facts = table(column("id", "int8"), column("pay", "jsonb"))
    rows = [{"id": "1", "pay": '{"a.b": {"no": 5}, "at": "2026-01-18T10:00:30Z", "ms": 1768730430000}'}]

    found = {field.path: field.kind for field in fields_of(facts, rows)}

    assert found == {
        "id": "integer", "pay": "object", 'pay."a.b"': "object", 'pay."a.b".no': "integer", "pay.at": "time",
        "pay.ms": "epoch",
    }  # fmt: skip


def test_no_game_is_guessed_where_nothing_names_one() -> None:
    """The owner is asked."""
    facts = table(column("id", "int8"), column("kind", "int4"), name="events")

    assert guess_game(facts, fields_of(facts, []), {}, {}, NAMES) is None
