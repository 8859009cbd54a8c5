"""Rows of tables as people have them: which round each is, whichever way it was read."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.table_mapper import ColumnMissing, RowState, TableMapper
from backends.postgres.mapping.table_options import TableOptions
from rounds import Catalogue, InvalidRound, Round
from tests.postgres.mapping.value_forms import FORMS, Form

CATALOGUE = Catalogue.load()
TIME = "2026-01-18 10:00:30+00"


class Table:
    """A table with columns of some types, and the options of one test."""

    def __init__(self, columns: dict[str, int], **options: Any) -> None:
        named = [Column(name, oid) for name, oid in columns.items()]
        self.mapper = TableMapper(TableOptions.model_validate(options), CATALOGUE, named)

    def row(self, **values: str | None) -> list[str | None]:
        return [values.get(name) for name in self.mapper.columns]

    def round(self, **values: str | None) -> Round:
        return self.mapper.to_round(self.row(**values), 7)

    def state(self, **values: str | None) -> RowState:
        return self.mapper.state(self.row(**values))


def usual(**options: Any) -> Table:
    return Table({"round_id": 20, "game_slug": 25, "finished_at": 1184, "extras": 3802}, **options)


def extras_of(form: Form, text: str) -> object:
    table = Table({"id": 20, "at": 1184, "v": form.oid}, round_id_column="id", finished_at_column="at",
                  game_slug="crash", extras_columns=["v"])  # fmt: skip
    return json.loads(table.round(id="1", at=TIME, v=text).extras).get("v")


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.type} {form.literal}")
def test_value_of_each_type_is_the_same_either_way(form: Form) -> None:
    """From the write-ahead log and from a query, digit for digit; only JSON, booleans and arrays are no strings."""
    assert extras_of(form, form.pgoutput) == form.extras
    assert extras_of(form, form.cast) == form.extras


# --- extras ----------------------------------------------------------------------------------------------------------


def test_columns_make_the_extras() -> None:
    """NULL is omitted, and a column may have another name in the object, or a scale."""
    columns = {
        "round_id": 20,
        "game_slug": 25,
        "finished_at": 1184,
        "point": 1700,
        "color": 25,
        "cents": 23,
        "doc": 114,
    }
    table = Table(columns, extras_columns=["point", "color", "payout=cents/100", "no=doc.a.no", "list=doc.a.l"])

    composed = table.round(
        round_id="1", game_slug="crash", finished_at=TIME, point="11.7200", color=None, cents="1172",
        doc='{"a": {"no": 3.140, "l": [1, true, null]}}',
    )  # fmt: skip

    assert composed.extras == '{"point":"11.7200","payout":"11.72","no":"3.140","list":["1",true,null]}'


@pytest.mark.parametrize(
    ("text", "scale", "expected"),
    [("1172", 100, "11.72"), ("1100", 100, "11.00"), ("5", 100, "0.05"), ("-5", 100, "-0.05"), ("0", 100, "0.00"),
     ("11.5", 100, "0.115"), ("123456789012345678901234567890", 10, "12345678901234567890123456789.0"),
     ("7", 10**18, "0.000000000000000007")],
)  # fmt: skip
def test_scale_moves_the_decimal_point(text: str, scale: int, expected: str) -> None:
    """Digits are neither lost nor rounded."""
    table = Table({"round_id": 20, "game_slug": 25, "finished_at": 1184, "c": 23}, extras_columns=[f"point=c/{scale}"])

    made = table.round(round_id="1", game_slug="crash", finished_at=TIME, c=text)

    assert json.loads(made.extras) == {"point": expected}


def test_value_without_digits_has_no_scale() -> None:
    table = Table({"round_id": 20, "game_slug": 25, "finished_at": 1184, "c": 25}, extras_columns=["point=c/100"])

    with pytest.raises(InvalidRound, match="extras member 'point' is 'NaN'; a value with a scale must be a number"):
        table.round(round_id="1", game_slug="crash", finished_at=TIME, c="NaN")


def test_array_without_its_end_is_named() -> None:
    """A column whose type has changed while a backfill runs."""
    for text in ("5", "{1", '{"', "{{1}", "[1:2]={1"):
        with pytest.raises(InvalidRound, match="extras member 'v' is"):
            extras_of(next(form for form in FORMS if form.type == "int4[]"), text)


def test_outbox_holds_everything_in_its_payload() -> None:
    """Ids, times and extras are members of a document; other events are no rounds."""
    table = Table(
        {"aggregate": 25, "type": 25, "payload": 3802},
        round_id_column="payload.round.no",
        game_slug_column="aggregate",
        finished_at_column="payload.at",
        extras_column="payload.round.result",
        rows_when="type = 'RoundFinished'",
    )
    payload = '{"at": "2026-01-18T10:00:30Z", "round": {"no": 501, "result": {"point": 3.14}}}'

    assert table.state(aggregate="crash", type="RoundFinished", payload=payload) is RowState.FINISHED
    assert table.round(aggregate="crash", type="RoundFinished", payload=payload) == Round(
        501, "crash", "multiplier", "2026-01-18T10:00:30Z", '{"point":"3.14"}', 7
    )
    assert table.state(aggregate="wallet", type="Paid", payload='{"amount": 10}') is RowState.OTHER


@pytest.mark.parametrize(
    ("result", "extras"),
    [('{"point": 3.10}', '{"point":"3.10"}'), ('"{\\"point\\": 3.10}"', '{"point":"3.10"}'), ("null", "{}")],
)
def test_extras_inside_a_document_may_be_text(result: str, extras: str) -> None:
    """A document within a document was written twice."""
    table = Table({"p": 114}, round_id_column="p.no", game_slug="crash", finished_at_column="p.at",
                  extras_column="p.r")  # fmt: skip

    made = table.round(p=f'{{"no": 1, "at": "2026-01-18T10:00:30Z", "r": {result}}}')

    assert made.extras == extras


def test_document_is_read_again_for_each_row() -> None:
    """Several paths share one reading of a document, and never that of another row."""
    table = Table({"p": 114}, round_id_column="p.no", game_slug="crash", finished_at_column="p.at", extras_column="p.r")

    made = [table.round(p=f'{{"no": {no}, "at": "2026-01-18T10:00:30Z", "r": {{"n": {no}}}}}') for no in (1, 2)]

    assert [(round_.round_id, round_.extras) for round_ in made] == [(1, '{"n":"1"}'), (2, '{"n":"2"}')]


def test_text_that_should_be_json_rejects_the_row() -> None:
    """Also when a condition reads it; the state of such a row is not known."""
    table = Table({"id": 20, "p": 25, "extras": 25}, round_id_column="id", game_slug="crash", finished_at_column="p.at")

    with pytest.raises(InvalidRound, match=r"p 'no json' are not JSON"):
        table.state(id="1", p="no json")


# --- ids, games, types, times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "number"), [("5", 5), ("5.0", 5), ("5.000", 5), ("5.", 5), ("7  ", 7), ("0009", 9)])
def test_numeric_and_padded_ids_are_integers(text: str, number: int) -> None:
    """numeric(20,2) and char(20) hold integers too."""
    assert usual().round(round_id=text, game_slug="crash", finished_at=TIME).round_id == number


@pytest.mark.parametrize(
    "text", ["5.5", "5.01", "1e3", "-1", ".0", "", " ", "5.0.0", "\u0665", "5.\u0660", "9223372036854775808.0"]
)
def test_other_numbers_are_no_ids(text: str) -> None:
    with pytest.raises(InvalidRound, match="it must be an integer from 0 to 2"):
        usual().round(round_id=text, game_slug="crash", finished_at=TIME)


def test_text_is_hashed_as_an_id() -> None:
    """A uuid in any letter case, and a padded id, are one id each."""
    table = usual(round_ids="hashed")
    ids = [
        table.round(round_id=text, game_slug="crash", finished_at=TIME).round_id
        for text in ("0b8d9df0-6c34-4a9b-8f1e-2f6f2a4c7d10", "0B8D9DF0-6C34-4A9B-8F1E-2F6F2A4C7D10", "a", "a  ")
    ]

    assert ids == [7277068681513134711] * 2 + [5374906597990186442] * 2
    for text, shown in ((None, "NULL"), ("", "empty"), ("  ", "empty")):
        with pytest.raises(InvalidRound, match=f"round_id is {shown}"):
            table.round(round_id=text, game_slug="crash", finished_at=TIME)


def test_padding_of_char_is_no_part_of_slug_and_type() -> None:
    """char(n) is padded by pgoutput and not by a cast."""
    table = Table({"round_id": 20, "game_slug": 1042, "game_type": 1042, "finished_at": 1184, "extras": 3802})
    rows = [
        table.round(round_id="1", game_slug=slug, game_type=type_, finished_at=TIME)
        for slug, type_ in (("crash     ", "own-type  "), ("crash", "own-type"))
    ]

    assert rows[0] == rows[1]
    assert (rows[0].game_slug, rows[0].game_type) == ("crash", "own-type")


def test_game_and_type_may_be_constants() -> None:
    table = Table({"id": 20, "done_at": 1184, "roll": 23}, round_id_column="id", finished_at_column="done_at",
                  game_slug="dice", game_type="slots", extras_columns="roll")  # fmt: skip

    made = table.round(id="1", done_at=TIME, roll="42")

    assert (made.game_slug, made.game_type, made.extras) == ("dice", "slots", '{"roll":"42"}')


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-18 10:00:30+00", "2026-01-18T10:00:30Z"),
        ("2016-12-31 23:59:60+00", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2017-01-01T01:59:60.25+02:00", "2017-01-01T00:00:00.250000Z"),
        ("2026-01-18 10:00:30.123456789+00", "2026-01-18T10:00:30.123456789Z"),
        ("2026-01-18t10:00:30z", "2026-01-18T10:00:30Z"),
        ("2026-01-18 10:00:30 ", "2026-01-18T10:00:30Z"),
        ("2026-01-18 15:30:30+0530", "2026-01-18T10:00:30Z"),
        ("1768730430", "2026-01-18T10:00:30Z"),
        ("1768730430.5", "2026-01-18T10:00:30.5Z"),
        ("1768730430123", "2026-01-18T10:00:30.123Z"),
        ("1768730430123456", "2026-01-18T10:00:30.123456Z"),
        ("1768730430123456789", "2026-01-18T10:00:30.123456789Z"),
    ],
)
def test_times_of_other_columns_are_read(text: str, expected: str) -> None:
    """Text and members of JSON hold ISO 8601 or Unix time; a leap second is the next second, as in PostgreSQL."""
    assert usual().round(round_id="1", game_slug="crash", finished_at=text).finished_at == expected


@pytest.mark.parametrize(
    "text",
    ["2026-01-18 10:00:61+00", "2026-01-18 24:00:00+00", "2026-02-30 10:00:60+00", "9999-12-31 23:59:60+00", "0", "17",
     "99999999", "2026-01-18", "10:00:30", "18/01/2026 10:00:30 CET", "Sun Jan 18 10:00:30 2026 UTC", "-infinity",
     "2026-01-18 10:00:3\u0660+00", "2026-01-18 10:00:30.+00", "2026-01-18 10:00:30.1234567891+00",
     "20000000000000000000"],
)  # fmt: skip
def test_other_text_is_no_time(text: str) -> None:
    """Among them what other settings of DateStyle write: guessing days and months would be wrong half of the time."""
    with pytest.raises(InvalidRound, match=r"^finished_at '.*' is not "):
        usual().round(round_id="1", game_slug="crash", finished_at=text)


ISO = r"[0-9]{4}-[01][0-9]-[0-3][0-9][ T][0-2][0-9]:[0-6][0-9]:[0-6][0-9]"
ZONE = r"(\.[0-9]{1,10})?(Z|[+-][0-9]{2}(:?[0-9]{2})?)?"


@settings(max_examples=40)
@given(
    st.none()
    | st.text(max_size=30)
    | st.from_regex(r"\A[0-9]{1,20}(\.[0-9]{1,10})?\Z")
    | st.from_regex(rf"\A{ISO}{ZONE}\Z")
)
def test_any_time_is_a_valid_one_or_rejected(text: str | None) -> None:
    try:
        made = usual().round(round_id="1", game_slug="crash", finished_at=text)
    except InvalidRound:
        return
    assert Round.parse(made.to_json()) == made


@pytest.mark.parametrize(
    ("columns", "options", "plain"),
    [
        ({}, {}, True),
        ({"round_id": 23, "game_slug": 1042}, {"voided_when": "game_slug = 'x'"}, True),
        ({"round_id": 1700}, {}, False),
        ({"round_id": 25}, {}, False),
        ({"game_slug": 3802}, {"game_slug_column": "game_slug.name"}, False),
        ({}, {"round_ids": "hashed"}, False),
        ({}, {"game_slug": "crash"}, False),
        ({}, {"game_slug_map": {"1": "crash"}}, False),
        ({}, {"game_slug_table": "games"}, False),
        ({}, {"game_slug_spelling": "dashed"}, False),
    ],
)
def test_plain_keys_can_be_looked_for_in_sql(columns: dict[str, int], options: dict[str, Any], plain: bool) -> None:
    """Others are found only by mapping rows: 5.00 is round 5, and CRASH is crash."""
    usual_columns = {"round_id": 20, "game_slug": 25, "finished_at": 1184, "extras": 3802}

    assert Table({**usual_columns, **columns}, **options).mapper.has_plain_key is plain


@pytest.mark.parametrize("typed", [True, False])
@settings(max_examples=40)
@given(
    number=st.sampled_from(["1", "5.0", "x", None]),
    game=st.sampled_from(["crash", "dice ", "CRASH", None]),
    kind=st.sampled_from(["slots", "own-type ", "No Type", None]),
    at=st.sampled_from([TIME, "2026-01-18 10:00:60+00", "2026-01-18 10:00:30.5+00", "x", None]),
    extras=st.sampled_from(['{"a": 1.0}', '{"a": "1"}', "[]", "x", None]),
)
def test_fast_path_makes_the_same_rounds(typed: bool, number: str, game: str, kind: str, at: str, extras: str) -> None:
    """A table with exactly the fields of a round takes a shorter way; a further column in a condition ends that."""
    columns = {"round_id": 20, "game_slug": 25, **({"game_type": 25} if typed else {}), "finished_at": 1184,
               "extras": 114, "gone": 16}  # fmt: skip
    made: list[Round | str] = []
    for table in (Table(columns), Table(columns, voided_when="gone")):
        try:
            made.append(table.round(round_id=number, game_slug=game, game_type=kind, finished_at=at, extras=extras))
        except InvalidRound as error:
            made.append(str(error))

    assert made[0] == made[1]


# --- states, columns, rejects ----------------------------------------------------------------------------------------


def test_state_follows_from_the_conditions() -> None:
    """In this order: not ours, voided, finished."""
    table = Table(
        {"round_id": 20, "game_slug": 25, "finished_at": 1184, "extras": 3802, "status": 25, "gone": 16, "kind": 23},
        finished_when="status in ('finished', 'settled')", voided_when="gone", rows_when="kind = 1",
    )  # fmt: skip

    assert table.state(kind="1", status="settled", gone="f") is RowState.FINISHED
    assert table.state(kind="1", status="open", gone="f") is RowState.UNFINISHED
    assert table.state(kind="1", status="finished", gone="t") is RowState.VOIDED
    assert table.state(kind="2", status="finished", gone="t") is RowState.OTHER
    assert usual().state(finished_at=None) is RowState.UNFINISHED
    assert usual().state(finished_at=TIME) is RowState.FINISHED


def test_columns_are_read_once_and_in_one_order() -> None:
    """The order of a row is that of `columns`; `indexes` are their places in the table."""
    table = Table(
        {"extras": 114, "x": 25, "game": 25, "at": 1184, "game_type": 25, "id": 20},
        round_id_column="id", game_slug_column="game", finished_at_column="at",
        finished_when="at is not null and x = 'y'",
    )  # fmt: skip

    assert table.mapper.columns == ("id", "game", "game_type", "at", "extras", "x")
    assert table.mapper.indexes == (5, 2, 4, 3, 0, 1)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"round_id_column": "no"}, "has no column 'no'; it has round_id, game_slug, finished_at, extras;"),
        ({"game_slug_column": "payload.game"}, "has no column 'payload'"),
        ({"extras_columns": ["point"]}, "set the option 'extras_columns'"),
        ({"finished_when": "state = 'x'"}, "set the option 'finished_when'"),
        ({"voided_when": "gone"}, "has no column 'gone'"),
        ({"rows_when": "gone"}, "set the option 'rows_when'"),
        ({"game_type_column": "kind"}, "set the option 'game_type_column'"),
    ],
)  # fmt: skip
def test_missing_column_names_its_option(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ColumnMissing) as caught:
        usual(**options)

    assert sentence in str(caught.value)


def test_rejected_row_is_found_by_game_and_id() -> None:
    """The key has what the columns hold, the stored part all columns that were read."""
    table = Table({"no": 20, "game_id": 23, "finished_at": 1184, "extras": 3802}, table="play.results",
                  round_id_column="no", game_slug_column="game_id", game_slug_map={"1": "crash"})  # fmt: skip
    rejected = table.mapper.reject(table.row(no="5", game_id="9", finished_at=TIME), "why", offset=3)

    assert rejected.key == "play.results:9:5"
    assert json.loads(rejected.raw) == {"no": "5", "game_id": "9", "finished_at": TIME, "extras": None}
    outbox = Table({"p": 114}, round_id_column="p.no", game_slug="crash", finished_at_column="p.at", extras_column="p")
    assert outbox.mapper.reject(outbox.row(p='{"no": 5}'), "why", offset=3).key == 'public.rounds:crash:{"no": 5}'
