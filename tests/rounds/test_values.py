"""Cursors, slugs, filters and the catalogue: small values that read untrusted text themselves."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rounds import (
    Catalogue,
    Cursor,
    Filter,
    InvalidCatalogue,
    InvalidCursor,
    InvalidFilter,
    InvalidSlug,
    UnknownGame,
    UnknownType,
    dedup_id,
    live_subject,
    log_subject,
)
from rounds.cursor import MAX_SEQUENCE, epoch_of
from rounds.filter import Facts

cursors = st.builds(Cursor, st.from_regex(r"\A[a-z0-9]{1,16}\Z"), st.integers(0, MAX_SEQUENCE))


@given(cursors)
def test_cursor_survives_its_text(cursor: Cursor) -> None:
    """Reading back what was written gives the same cursor."""
    assert Cursor.parse(str(cursor)) == cursor


@given(cursors)
def test_cursor_is_safe_as_last_event_id(cursor: Cursor) -> None:
    """It has letters, digits and '-' only, and under 64 bytes; others make browsers preflight reconnects."""
    text = str(cursor)

    assert len(text) < 64
    assert text.replace("-", "").isalnum()
    assert text.isascii()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "abc",
        "abc-",
        "-1",
        "abc-01",
        "abc--1",
        "abc-1.0",
        "abc-1\n",
        " abc-1",
        "ABC-1",
        "abc-\N{ARABIC-INDIC DIGIT ONE}",
        "a" * 17 + "-1",
        "abc-18446744073709551616",
        "abc-" + "9" * 5000,
    ],
)
def test_malformed_cursor_is_refused_in_a_short_sentence(text: str) -> None:
    """Leading zeros, digits of other scripts, white space and numbers above 2^64-1 are refused."""
    with pytest.raises(InvalidCursor) as caught:
        Cursor.parse(text)

    assert len(str(caught.value)) < 250


def test_two_logs_have_two_epochs() -> None:
    """A rebuilt stream has another creation time, so cursors of the old stream have another epoch."""
    assert epoch_of(1_764_000_000_000) == "midc1z40"
    assert epoch_of(1_764_000_000_001) != epoch_of(1_764_000_000_000)
    assert epoch_of(0) == "0"


@pytest.mark.parametrize("slug", ["", ".", "*", ">", "a.b", "a b", "a\n", "crásh", "Crash", "-a", "a" * 65, None, 7])
def test_hostile_slug_never_becomes_a_subject(slug: str) -> None:
    """NATS accepts a publish to a wildcard or a deeper subject, so the slug is checked before."""
    with pytest.raises(InvalidSlug) as caught:
        log_subject(slug)
    with pytest.raises(InvalidSlug):
        live_subject(slug)
    assert len(str(caught.value)) < 250


def test_names_in_nats() -> None:
    """There is one subject per game and one id per round."""
    assert log_subject("crash") == "rounds.crash"
    assert live_subject("motograu-v2") == "live.rounds.motograu-v2"
    assert dedup_id("crash", 7) == "crash:7"


# --- filters ---------------------------------------------------------------------------------------------------------

POINT = '{"point":"2.50"}'
RED = '{"color":"red","number":"7"}'


@pytest.mark.parametrize(
    ("parameters", "extras", "matches"),
    [
        ({}, POINT, True),
        ({"min_point": "2.50"}, POINT, True),
        ({"min_point": "2.5"}, POINT, True),
        ({"min_point": "2.51"}, POINT, False),
        ({"max_point": "2.5"}, POINT, True),
        ({"max_point": "2.49"}, POINT, False),
        ({"min_point": "2", "max_point": "3"}, POINT, True),
        ({"min_point": "0"}, RED, False),
        ({"max_point": "100"}, RED, False),
        ({"colors": "red,black"}, RED, True),
        ({"colors": " red , black"}, RED, True),
        ({"colors": "black"}, RED, False),
        ({"colors": "red"}, POINT, False),
        ({"trends": "up"}, '{"trend":"up","point":"1.20"}', True),
        ({"trends": "up", "min_point": "1.3"}, '{"trend":"up","point":"1.20"}', False),
        ({"trends": "down"}, '{"trend":"up"}', False),
        ({"min_point": "1"}, '{"point":2.5}', True),
        ({"min_point": "1"}, '{"point":"NaN"}', False),
        ({"min_point": "1"}, '{"point":"Infinity"}', False),
        ({"min_point": "1"}, '{"point":null}', False),
        ({"min_point": "1"}, '{"point":{"x":1}}', False),
        ({"min_point": "1"}, '{"point":true}', False),
        ({"min_point": "0.1", "max_point": "0.1"}, '{"point":"0.10"}', True),
        ({"colors": "red"}, '{"color":7}', False),
        ({"min_point": "1"}, "not json", False),
    ],
)
def test_filter_semantics(parameters: dict[str, str], extras: str, matches: bool) -> None:
    """Bounds are inclusive, all criteria must hold, one value of a list is enough, an absent field does not match."""
    assert Filter.parse(parameters).matches(Facts.of(extras)) is matches


@pytest.mark.parametrize(
    "parameters",
    [
        {"min_point": ""},
        {"min_point": "two"},
        {"max_point": "NaN"},
        {"max_point": "inf"},
        {"min_point": "1" * 41},
        {"min_point": "1_0"},
        {"min_point": " 1"},
        {"max_point": "1\n"},
        {"max_point": "\u0661"},
        {"max_point": "1e"},
        {"min_point": "3", "max_point": "2"},
        {"colors": ""},
        {"trends": "up,,down"},
    ],
)
def test_unusable_filter_is_refused_by_name(parameters: dict[str, str]) -> None:
    """The sentence names the parameter. A typing mistake does not turn the filter off."""
    with pytest.raises(InvalidFilter, match=next(iter(parameters))):
        Filter.parse(parameters)


def test_equal_filters_are_one_value() -> None:
    """The hub runs a filter once for all clients that wrote it in different ways."""
    assert Filter.parse({"min_point": "2.50", "colors": "red,black"}) == Filter(
        Decimal("2.5"), None, frozenset({"black", "red"})
    )
    for text, same in (("2.50", "2.5"), ("100", "1e2"), ("0", "-0.00"), ("-7.0", "-7"), (".1e-29", "1.0e-30")):
        bounds = [Filter.parse({"min_point": each}) for each in (text, same)]
        assert bounds[0] == bounds[1]
        assert hash(bounds[0]) == hash(bounds[1])
    assert Filter.parse({}).is_empty


# --- catalogue -------------------------------------------------------------------------------------------------------


def test_bundled_catalogue_has_the_given_games() -> None:
    """Fourteen games in four types."""
    catalogue = Catalogue.load()

    assert len(catalogue.games) == 14
    assert catalogue.game("double").type == "color"
    assert catalogue.of_type("trending") == {"wall-street"}
    assert len(catalogue.of_type("multiplier")) == 11


def test_operator_adds_changes_and_removes_games() -> None:
    """The operator's file overrides the bundled one, member by member."""
    catalogue = Catalogue.load(
        """
        [types.dice-pair]
        value = "sum"
        [games.craps]
        type = "dice-pair"
        [games.crash]
        name = "Crash Classic"
        [games.dice]
        enabled = false
        """
    )

    assert catalogue.game("craps").value == "sum"
    assert catalogue.game("crash").name == "Crash Classic"
    assert catalogue.game("crash").type == "multiplier"
    with pytest.raises(UnknownGame, match=r"known games: .*craps"):
        catalogue.game("dice")


@pytest.mark.parametrize(
    ("overlay", "named"),
    [
        ("games = 1", "games"),
        ("[gamez.x]\ntype='color'", "gamez"),
        ("[games]\nx = 1", "games.x"),
        ("[games.'a.b']\ntype='color'", "a.b"),
        ("[types.'Foo Bar']\nvalue='x'", "type 'Foo Bar' is not allowed; use 1 to 64 of a-z"),
        ("[types.'']\nvalue='x'", "type '' is not allowed"),
        ("[games.x]\ntype='nope'", "known types"),
        ("[games.x]\nname='no type'", "type"),
        ("[games.x]\ntype='color'\ncolour='red'", "colour"),
        ("[games.x", "not TOML"),
    ],
)
def test_unusable_games_file_names_the_entry(overlay: str, named: str) -> None:
    """A mistake in the operator's file stops the start with one sentence."""
    with pytest.raises(InvalidCatalogue, match=named):
        Catalogue.load(overlay)


def test_unknown_type_lists_the_known_ones() -> None:
    """The sentence lists the types to choose from."""
    with pytest.raises(UnknownType, match="color, multiplier, slots, trending"):
        Catalogue.load().of_type("colour")


def test_list_of_a_filter_is_short() -> None:
    """A hundred different values, in any protocol; games have a handful."""
    values = [str(number) for number in range(100)]

    assert Filter.build(colors=[*values, *values]).colors == frozenset(values)
    for name in ("colors", "trends"):
        with pytest.raises(InvalidFilter, match=f"{name} holds 101 values; 100 is the limit"):
            Filter.parse({name: ",".join([*values, "red"])})
