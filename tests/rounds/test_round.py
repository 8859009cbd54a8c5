"""A round is read strictly and written exactly as the contract shows it."""

import json
from datetime import UTC

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rounds import InvalidRound, Round, stringify_extras
from rounds.round import with_cursor
from rounds.subjects import corrections_of, corrections_subject, dedup_id, is_slug
from rounds.times import utc_text

GOOD = {
    "round_id": 67890,
    "game_slug": "crash",
    "game_type": "multiplier",
    "finished_at": "2026-01-18T10:00:30Z",
    "extras": '{"point": "2.50"}',
    "timestamp": 1737194400000,
}

extras = st.dictionaries(st.text(), st.text() | st.lists(st.text())).map(lambda value: json.dumps(value))
rounds = st.builds(
    Round,
    round_id=st.integers(0, 2**63 - 1),
    game_slug=st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,63}\Z"),
    game_type=st.sampled_from(["multiplier", "color", "trending", "slots"]),
    finished_at=st.datetimes(timezones=st.just(UTC)).map(lambda moment: moment.replace(tzinfo=None).isoformat() + "Z"),
    extras=extras,
    timestamp=st.integers(0, 2**63 - 1),
)


def test_contract_example_is_written_byte_for_byte_in_contract_order() -> None:
    """The six given fields come first and in order; the cursor comes last."""
    round_ = Round.parse(json.dumps(GOOD))

    assert with_cursor(round_.to_json(), "k3f9a2-1042") == (
        b'{"round_id":67890,"game_slug":"crash","game_type":"multiplier","finished_at":"2026-01-18T10:00:30Z",'
        b'"extras":"{\\"point\\": \\"2.50\\"}","timestamp":1737194400000,"cursor":"k3f9a2-1042"}'
    )


@given(rounds)
def test_any_round_survives_its_json_form(round_: Round) -> None:
    """Reading what was written gives the same round, for any text in its extras."""
    assert Round.parse(round_.to_json()) == round_


@given(rounds)
def test_json_form_is_one_line(round_: Round) -> None:
    """There is no raw line break, so that one SSE data line, or one JSONL line, holds a round."""
    assert not {b"\n", b"\r"} & {bytes([byte]) for byte in round_.to_json()}


@given(st.binary(max_size=200))
def test_any_bytes_are_a_round_or_refused_in_one_sentence(data: bytes) -> None:
    """The result is a round or `InvalidRound`; no other error is raised."""
    try:
        sentence = Round.parse(data).game_slug
    except InvalidRound as error:
        sentence = str(error)

    assert sentence


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round_id", 2**63),
        ("round_id", -1),
        ("round_id", "67890"),
        ("round_id", 1.5),
        ("round_id", True),
        ("round_id", None),
        ("game_slug", "."),
        ("game_slug", "*"),
        ("game_slug", ">"),
        ("game_slug", ""),
        ("game_slug", " "),
        ("game_slug", "crash.evil"),
        ("game_slug", "crash\n"),
        ("game_slug", "crásh"),
        ("game_slug", "-crash"),
        ("game_slug", "x" * 10_000),
        ("game_type", "a b"),
        ("finished_at", "2026-13-18T10:00:30Z"),
        ("finished_at", "2026-01-18T10:00:30"),
        ("finished_at", "2026-01-18T10:00:30+02:00"),
        ("finished_at", "2026-01-18 10:00:30Z"),
        ("finished_at", "2026-01-18T10:00:30Z\n"),
        ("finished_at", "yesterday"),
        ("extras", {"point": "2.50"}),
        ("extras", "[1]"),
        ("extras", "2.50"),
        ("extras", "{"),
        ("extras", ""),
        ("timestamp", -1),
        ("timestamp", "now"),
    ],
)
def test_value_outside_the_contract_is_refused_by_parse_and_make_alike(field: str, value: object) -> None:
    """The sentence names the field."""
    bad = GOOD | {field: value}

    with pytest.raises(InvalidRound, match=field):
        Round.parse(json.dumps(bad))
    with pytest.raises(InvalidRound, match=field):
        Round.make(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", list(GOOD))
def test_missing_field_is_named(missing: str) -> None:
    """No field has a silent default."""
    with pytest.raises(InvalidRound, match=missing):
        Round.parse(json.dumps({key: value for key, value in GOOD.items() if key != missing}))


def test_largest_round_id_is_exact() -> None:
    """2^63-1 passes through without becoming a float."""
    round_ = Round.parse(json.dumps(GOOD | {"round_id": 2**63 - 1}))

    assert b'"round_id":9223372036854775807,' in round_.to_json()


def test_extras_objects_become_text_with_numbers_as_strings() -> None:
    """Numbers at any depth become strings; text, booleans and null stay."""
    value = {"point": 2.5, "symbols": [7, "bar"], "deep": {"n": 1}, "won": True, "none": None}

    assert json.loads(stringify_extras(value)) == {
        "point": "2.5",
        "symbols": ["7", "bar"],
        "deep": {"n": "1"},
        "won": True,
        "none": None,
    }


@pytest.mark.parametrize("value", [[1], "text", 7, None, {"x": object}, {"x": "\ud800"}])
def test_extras_that_are_not_a_json_object_are_refused(value: object) -> None:
    """They raise `InvalidRound` and no other error."""
    if value == {"x": object}:
        assert stringify_extras(value)  # anything else is shown as its text
        return
    with pytest.raises(InvalidRound):
        stringify_extras(value)


@pytest.mark.parametrize(
    ("moment_ms", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1737194400123, "2025-01-18T10:00:00.123Z"),
        (-30610224000000, "1000-01-01T00:00:00Z"),
        (-30610224000001, "0999-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_written_in_utc_with_z(moment_ms: int, text: str) -> None:
    """Milliseconds are written only if they are not zero, and a year always with four digits."""
    assert utc_text(moment_ms) == text


def test_correction_has_two_more_fields_after_the_given_ones() -> None:
    """A round itself has none of them, so that it is the same to every reader."""
    plain = Round.make(
        round_id=7,
        game_slug="crash",
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30Z",
        extras="{}",
        timestamp=1,
    )
    voided = msgspec.structs.replace(plain, revision=2, voided=True)

    assert plain.to_json().endswith(b'"timestamp":1}')
    assert voided.to_json() == plain.to_json()[:-1] + b',"revision":2,"voided":true}'
    assert Round.parse(voided.to_json()) == voided


def test_corrections_stand_where_no_game_can() -> None:
    """Every name that older relays and clients can use is a slug."""
    assert corrections_subject("crash") == "rounds.crash~corrections"
    assert not is_slug(corrections_of("crash"))
    assert dedup_id("crash", 7) == "crash:7"
    assert dedup_id("crash", 7, 2) == "crash:7:2"
