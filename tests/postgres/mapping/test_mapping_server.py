"""On a real server: both ways of reading a row give the same round, and conditions mean the same in SQL and here."""

import json
from typing import Any

import pytest

from backends.postgres.game_tables import games_of, read_games
from backends.postgres.mapping.column_kinds import Column, own_types_of
from backends.postgres.mapping.hashed_ids import hashed_id
from backends.postgres.mapping.table_mapper import TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.protocol.pgoutput import Insert, decode
from backends.postgres.session_settings import TEXT
from backends.postgres.statements import statement
from backends.postgres.table import columns_of, page_statement, read_table, scan_statement
from rounds import Catalogue
from tests.postgres.mapping.test_condition import CONDITIONS
from tests.postgres.mapping.value_forms import FORMS
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.service

CATALOGUE = Catalogue.load()
OWN_TYPES = """
CREATE TYPE mood AS ENUM ('good', 'bad');
CREATE DOMAIN flag AS bool;
CREATE DOMAIN flag2 AS flag;
CREATE DOMAIN code AS char(4);
CREATE DOMAIN moods AS mood[];
CREATE DOMAIN doc AS jsonb;
"""
OWN_FORMS = (
    ("mood", "good", "good"),
    ("mood[]", "{good,NULL}", ["good", None]),
    ("flag", "true", True),
    ("flag2", "false", False),
    ("flag[]", "{t,f}", [True, False]),
    ("code", "ab", "ab"),
    ("moods", "{bad}", ["bad"]),
    ("doc", '{"a": 1.50}', {"a": "1.50"}),
    ("int2vector", "1 2", "1 2"),
)


async def test_live_and_read_rows_make_the_same_rounds(any_postgres: PostgresServer) -> None:
    """Columns of every kind, read from the slot as pgoutput writes them, and by both queries as a cast writes them."""
    server = any_postgres
    forms = [(form.type, form.literal, form.extras) for form in FORMS] + list(OWN_FORMS)
    columns = [f"c{number} {type_}" for number, (type_, _, _) in enumerate(forms)]
    literals = [literal.replace("'", "''") for _, literal, _ in forms]
    connection = await server.connect()
    for name, value in TEXT.items():
        await connection.execute(f"SET {name} = '{value}'")
    await connection.execute(
        f"""{OWN_TYPES}
        CREATE TABLE games (id int PRIMARY KEY, code char(20) NOT NULL);
        INSERT INTO games VALUES (1, 'CRASH');
        CREATE TABLE results (no bigint PRIMARY KEY, game_id int, done_at timestamptz, gone int, {", ".join(columns)});
        ALTER TABLE results DROP COLUMN gone;
        CREATE PUBLICATION all_types FOR TABLE results"""  # noqa: S608
    )
    await connection.execute("SELECT pg_create_logical_replication_slot('types', 'pgoutput')")
    values = ", ".join(f"'{literal}'" for literal in literals)
    await connection.execute(f"INSERT INTO results VALUES (1, 1, '2026-01-18 10:00:30.25+00', {values})")  # noqa: S608

    options = PostgresOptions.model_validate(
        {
            "dsn": server.dsn(),
            "table": "results",
            "round_id_column": "no",
            "game_slug_column": "game_id",
            "game_slug_table": "games",
            "game_slug_table_slug_column": "code",
            "game_slug_spelling": "dashed",
            "finished_at_column": "done_at",
            "extras_columns": [f"c{number}" for number in range(len(forms))],
        }
    )
    games = games_of(options, CATALOGUE)["public.results"]
    await read_games(connection, options, [games])
    table = await read_table(connection, options)
    own_types = own_types_of(await connection.fetch(statement("read_types", schema="public", table="results")))
    mapper = TableMapper(options, CATALOGUE, columns_of(table), games=games, own_types=own_types)

    rows: list[Any] = await connection.fetch(scan_statement(mapper), [0], [9], 10)
    rows += await connection.fetch(page_statement(mapper), 0, "", 9, 10)
    (insert,) = [
        message
        for row in await connection.fetch(
            "SELECT data FROM pg_logical_slot_get_binary_changes('types', NULL, NULL, "
            "'proto_version', '1', 'publication_names', 'all_types')"
        )
        if isinstance(message := decode(row["data"]), Insert)
    ]
    live = [None if value is None else value.decode() for value in insert.values]
    written = ", ".join(f"c{number}::text" for number in range(len(FORMS)))
    (cast,) = await connection.fetch(f"SELECT {written} FROM results")  # noqa: S608
    await connection.close()

    read, paged = (mapper.to_round(row["row_values"], 7) for row in rows)
    assert mapper.to_round([live[index] for index in mapper.indexes], 7) == read == paged
    assert (read.game_slug, read.round_id, read.finished_at) == ("crash", 1, "2026-01-18T10:00:30.25Z")
    expected = {f"c{number}": extras for number, (_, _, extras) in enumerate(forms) if extras is not None}
    assert json.loads(read.extras) == expected
    assert live[3 : 3 + len(FORMS)] == [form.pgoutput for form in FORMS]
    assert list(cast) == [form.cast for form in FORMS]


async def test_conditions_mean_the_same_in_sql(postgres: PostgresServer) -> None:
    """Triggers and queries use the SQL of a condition, live capture the function; also the hash exists in SQL."""
    types = {"text": 25, "bool": 16, "char(5)": 1042, "numeric": 1700, "uuid": 2950}
    connection = await postgres.connect()
    wrong = []
    for text, kind, meant, others in CONDITIONS:
        type_ = {"char": "char(5)", "number": "numeric", "boolean": "bool"}.get(kind.value, kind.value)
        table = TableOptions(finished_when=text, voided_when="payload.a = 5", round_id_column="a", game_slug="crash")
        names = ("a", "payload", "finished_at", "extras")
        mapper = TableMapper(table, CATALOGUE, [Column(name, types[type_] if name == "a" else 25) for name in names])
        sql = mapper.sql_of("finished_when", "r")
        for value, expected in [(value, True) for value in meant] + [(value, False) for value in others]:
            found = await connection.fetchval(f"SELECT {sql} FROM (SELECT $1::text::{type_} AS a) AS r", value)  # noqa: S608
            if found is not expected:
                wrong.append((text, type_, value, found))
    void = mapper.sql_of("voided_when", "r")
    voided = [
        await connection.fetchval(f"SELECT {void} FROM (SELECT $1::{type_} AS payload) AS r", payload)  # noqa: S608
        for type_ in ("text", "json", "jsonb")
        for payload in ('{"a": 5.0}', '{"a": "5"}', '{"a": 6}', "{}", None)
    ]
    digits = "left(encode(sha256(convert_to($1::text, 'UTF8')), 'hex'), 16)"
    hashed = f"SELECT ('x' || {digits})::bit(64)::bigint & 9223372036854775807"
    ids = [(await connection.fetchval(hashed, text), hashed_id(text)) for text in ("a", "runde-ä-1", "")]
    await connection.close()

    assert wrong == []
    assert voided == [True, True, False, False, False] * 3
    assert [one for one, other in ids if one != other] == []
