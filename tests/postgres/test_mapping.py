"""Which values columns may have, and the options that name the columns."""

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from backends.contract import BackendContext, InvalidOptions
from backends.postgres.mapping.column_kinds import Column
from backends.postgres.mapping.table_mapper import RAW_BYTES, TableMapper
from backends.postgres.mapping.table_options import TableOptions
from backends.postgres.notify.postgres_notify import PostgresNotify
from backends.postgres.postgres_options import PostgresOptions
from backends.postgres.replication.postgres_replication import PostgresReplication
from backends.postgres.replication.slot import ReplicationOptions
from backends.postgres.statements import statement
from backends.postgres.table import page_statement, scan_statement
from rounds import Catalogue, InvalidRound, Round

FIELDS = ("round_id", "game_slug", "game_type", "finished_at", "extras")
MAPPER = TableMapper(TableOptions(), Catalogue.load(), [Column(name) for name in FIELDS])
GOOD = ("67890", "crash", "multiplier", "2026-01-18 10:00:30+00", '{"point": "2.50"}')
DSN = "postgresql://writer:hunter2@db.example:5433/games"


def mapped(**changed: str | None) -> Round:
    return MAPPER.to_round([changed.get(name, value) for name, value in zip(FIELDS, GOOD, strict=True)], 1768730430000)


def test_row_becomes_a_round_of_the_contract() -> None:
    """Times are RFC 3339 in UTC with Z, extras as the database wrote them, the timestamp is the commit."""
    assert mapped() == Round(67890, "crash", "multiplier", "2026-01-18T10:00:30Z", '{"point": "2.50"}', 1768730430000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-18 10:00:30.123456+00", "2026-01-18T10:00:30.123456Z"),
        ("2026-01-18 10:00:30", "2026-01-18T10:00:30Z"),
        ("2026-01-18 10:00:30.5+05:30", "2026-01-18T04:30:30.500000Z"),
        ("2026-01-18T10:00:30Z", "2026-01-18T10:00:30Z"),
    ],
)
def test_timestamp_is_written_in_utc(text: str, expected: str) -> None:
    """A timestamp without time zone is read as UTC; a text column may contain RFC 3339."""
    assert mapped(finished_at=text).finished_at == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "{}"),
        ("{}", "{}"),
        ('{"point": 2.50, "n": [1, {"m": 3}], "ok": true, "none": null}',
         '{"point":"2.50","n":["1",{"m":"3"}],"ok":true,"none":null}'),
        ('{"big": 123456789012345678901234567890, "tiny": 1e-400}',
         '{"big":"123456789012345678901234567890","tiny":"1e-400"}'),
    ],
)  # fmt: skip
def test_numbers_in_extras_become_strings_digit_for_digit(text: str | None, expected: str) -> None:
    """Numbers are not converted to float: 2.50 stays 2.50."""
    assert mapped(extras=text).extras == expected


def test_huge_extras_are_mapped() -> None:
    """The mapper has no size limit; the publisher has."""
    assert len(mapped(extras='{"a": "' + "x" * (4 << 20) + '"}').extras) > 4 << 20


def test_type_comes_from_the_catalogue_where_the_row_has_none() -> None:
    assert mapped(game_type=None).game_type == "multiplier"
    assert mapped(game_type="own-type").game_type == "own-type"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"round_id": None}, "round_id is NULL; it must be an integer"),
        ({"round_id": "NaN"}, "round_id is 'NaN'"),
        ({"round_id": "-1"}, "round_id is '-1'"),
        ({"round_id": "9223372036854775808"}, "from 0 to 2"),
        ({"round_id": "1" * 5000}, "round_id is '1111"),
        ({"round_id": "\u0661"}, "round_id is"),
        ({"game_slug": None}, "game_slug is NULL"),
        ({"game_slug": "rounds.*"}, "game slug 'rounds.*' is not allowed"),
        ({"game_slug": "unheard-of"}, "unknown game 'unheard-of'; known games: aviador"),
        ({"game_type": "Multi Plier"}, "game type 'Multi Plier' is not allowed"),
        ({"finished_at": None}, "finished_at is NULL"),
        ({"finished_at": "infinity"}, "finished_at 'infinity' is not a timestamp of the years 1 to 9999"),
        ({"finished_at": "0044-03-15 12:00:00+00 BC"}, "is not a timestamp of the years 1 to 9999"),
        ({"finished_at": "18/01/2026 10:00:30 CET"}, "in ISO form"),
        ({"finished_at": "2026-02-30 10:00:30+00"}, "is not a timestamp of the years 1 to 9999"),
        ({"extras": "null"}, "must be a JSON object"),
        ({"extras": "[1]"}, "must be a JSON object, got list"),
        ({"extras": "NaN"}, "are not JSON"),
        ({"extras": '{"a":' * 100_000}, "nested too deeply"),
        ({"extras": ""}, "are not JSON"),
    ],
)
def test_unmappable_row_says_why(changed: dict[str, str | None], reason: str) -> None:
    """The error names the field, its value, and what is allowed."""
    with pytest.raises(InvalidRound) as caught:
        mapped(**changed)

    assert reason in str(caught.value)


@given(st.tuples(*[st.none() | st.text(max_size=30)] * 5), st.integers(0, 2**63 - 1))
def test_any_row_becomes_a_valid_round_or_is_rejected(row: tuple[str | None, ...], timestamp: int) -> None:
    """A round made without `Round.make` passes its checks."""
    try:
        round_ = MAPPER.to_round(row, timestamp)
    except InvalidRound:
        return
    assert Round.parse(round_.to_json()) == round_


@given(
    st.dictionaries(st.text(max_size=5), st.text(max_size=5) | st.integers() | st.booleans() | st.none(), max_size=3),
    st.datetimes(),
)
def test_rows_with_any_extras_and_timestamp_become_valid_rounds(extras: dict[str, object], moment: object) -> None:
    """The fast paths around the checks of `Round` accept no invalid value."""
    round_ = mapped(extras=json.dumps(extras), finished_at=f"{moment}+00")

    assert Round.parse(round_.to_json()) == round_


def test_rejected_row_is_stored_up_to_a_limit() -> None:
    rejected = MAPPER.reject(("7", "x" * 500, None, None, "y" * (RAW_BYTES * 2)), "no", offset=3)

    assert rejected.key == f"public.rounds:{'x' * 64}:7"
    assert len(rejected.raw) == RAW_BYTES
    assert rejected.offset == 3


# --- options ---------------------------------------------------------------------------------------------------------


def test_options_from_the_environment_are_read() -> None:
    """Every value is a string."""
    options = ReplicationOptions.read(
        {"dsn": DSN, "table": "Play.Rounds v2", "create": "true", "sender_timeout_s": "5", "slot": "own_slot"}
    )

    assert (options.schema_name, options.table_name) == ("Play", "Rounds v2")
    assert options.quoted_table == '"Play"."Rounds v2"'
    assert (options.create, options.sender_timeout_s) == (True, 5.0)
    assert options.shown_dsn == "db.example:5433/games"


def test_password_is_never_shown() -> None:
    """No repr and no error contains it, also for an invalid DSN."""
    assert "hunter2" not in repr(PostgresOptions.read({"dsn": DSN}))
    for wrong in ("host=db password=hunter2", "postgresql://u:hunter2@db:port/x", "mysql://u:hunter2@db/x"):
        with pytest.raises(InvalidOptions, match="option 'dsn' must be a URL") as caught:
            PostgresOptions.read({"dsn": wrong})
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "option 'dsn' is missing"),
        (
            {"dsn": DSN, "tabel": "x"},
            "unknown option 'tabel'; allowed are accept_lsn, connect_timeout_s, corrections, create",
        ),
        ({"dsn": DSN, "slot": "My-Slot"}, "option slot = 'My-Slot': string should match pattern"),
        ({"dsn": DSN, "table": "public."}, "option table = 'public.': must be a name of 1 to 63 bytes"),
        ({"dsn": DSN, "round_id_column": "x" * 64}, "must be a name of 1 to 63 bytes"),
        ({"dsn": DSN, "create": "perhaps"}, "option create = 'perhaps': input should be a valid boolean"),
        (
            {"dsn": DSN, "sender_timeout_s": 0},
            "option sender_timeout_s = 0: input should be greater than or equal to 1",
        ),
        ({"dsn": DSN, "failover": True}, "failover = true requires create = true"),
    ],
)
def test_wrong_option_is_one_sentence(options: dict[str, object], sentence: str) -> None:
    """The error names the option, its value, and what is allowed."""
    with pytest.raises(InvalidOptions) as caught:
        ReplicationOptions.read(options)

    assert sentence in str(caught.value)


def test_names_cannot_escape_from_sql() -> None:
    """Quotes in names and values are doubled."""
    sql = statement("create_publication", publication='p"x', schema="s", table='t"; DROP TABLE x; --')

    assert sql.startswith('CREATE PUBLICATION "p""x" FOR TABLE "s"."t""; DROP TABLE x; --"')
    assert statement("drop_slot", slot="a'b").endswith("('a''b')")


def test_statement_includes_the_columns_of_another_file() -> None:
    """Both queries for rows select the columns that the mapper reads, quoted as names."""
    table = TableOptions(order_column='o"x', extras_column="e:x")
    mapper = TableMapper(table, Catalogue.load(), [Column(name) for name in (*FIELDS, "e:x")])
    for write in (scan_statement, page_statement):
        sql = write(mapper)

        assert ":row_columns" not in sql
        assert 't."o""x"::bigint AS row_offset' in sql
        assert 'ARRAY[ t."round_id"::text, t."game_slug"::text, ' in sql
        assert 't."e:x"::text ]::text []' in sql


@pytest.mark.parametrize("make", [PostgresNotify, PostgresReplication])
def test_voids_without_corrections_are_said_to_have_no_effect(make: Callable[..., object]) -> None:
    """Once at start; with corrections nothing is said."""
    options = {"dsn": DSN, "tables": [{"table": "a", "deletes": "void"}, {"table": "b"}], "feed": True}
    with capture_logs() as logged:
        make({**options, "corrections": True}, BackendContext(Catalogue.load()))
        assert logged == []
        make(options, BackendContext(Catalogue.load()))
    assert [(line["event"], line["reason"]) for line in logged] == [
        (
            "source_imperfect",
            "deletes = void of public.a has no effect without corrections = true: no void is published",
        )
    ]
