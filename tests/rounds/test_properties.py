"""Properties of what reads untrusted text: filters and the extras they match, slugs and subjects, the catalogue."""

import json
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rounds import (
    Catalogue,
    Filter,
    InvalidCatalogue,
    InvalidFilter,
    InvalidSlug,
    UnknownGame,
    UnknownType,
    dedup_id,
    live_subject,
    log_subject,
)
from rounds.filter import PARAMETERS, Facts
from rounds.subjects import is_slug

numbers = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=4)
slugs = st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
words = st.sampled_from(["red", "black", "green", "up", "down", "RED", "rot", ""])
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


T = TypeVar("T")


def one_line(error: Exception) -> bool:
    return len(str(error).splitlines()) == 1


def done(call: Callable[[], T], refusal: type[Exception]) -> T | Exception:
    """Return what a call returns, or the error that it may raise."""
    try:
        return call()
    except refusal as error:
        return error


# --- filters ---------------------------------------------------------------------------------------------------------


@given(st.dictionaries(st.sampled_from(PARAMETERS) | st.text(max_size=10), st.text(max_size=60)))
@example({"min_point": "1e999999999"})
@example({"min_point": "1e" + "9" * 30})
@example({"min_point": "1_0"})
@example({"min_point": "\N{ARABIC-INDIC DIGIT ONE}"})
@example({"min_point": "2", "max_point": "1"})
def test_any_parameters_are_a_filter_or_one_sentence(parameters: dict[str, str]) -> None:
    """The same parameters give an equal filter, so that links can share it."""
    found = done(lambda: Filter.parse(parameters), InvalidFilter)

    if isinstance(found, Exception):
        assert one_line(found)
        assert any(name in str(found) for name in PARAMETERS)
    else:
        assert {found: 1}[Filter.parse(parameters)] == 1
        assert found.is_empty == (not any(name in parameters for name in PARAMETERS))


@given(st.text(max_size=200) | documents.map(json.dumps))
@example('{"point":1e999999999}')
@example('{"point":"1e' + "9" * 30 + '"}')
@example("[" * 100_000)
def test_any_extras_have_facts(extras: str) -> None:
    """No extras of a round stop the rounds after it; numbers that filters compare are finite."""
    facts = Facts.of(extras)

    assert facts.point is None or facts.point.is_finite()
    assert Filter().matches(facts)


@given(numbers, numbers | st.none(), numbers | st.none(), st.booleans())
def test_bounds_are_inclusive_and_exact(
    point: Decimal, low: Decimal | None, high: Decimal | None, as_text: bool
) -> None:
    """Points are compared as decimals, whether the extras hold text, which is usual, or a number."""
    if low is not None and high is not None and low > high:
        low, high = high, low
    given_bounds = {
        name: f"{bound:f}" for name, bound in (("min_point", low), ("max_point", high)) if bound is not None
    }
    extras = f'{{"point":"{point:f}"}}' if as_text else f'{{"point":{point:f}}}'

    wanted = (low is None or low <= point) and (high is None or point <= high)

    assert Filter.parse(given_bounds).matches(Facts.of(extras)) is wanted


@given(st.sets(words.filter(bool), max_size=3), st.sets(words.filter(bool), max_size=3), numbers | st.none(), documents)
def test_criteria_are_joined_by_and(colors: set[str], trends: set[str], low: Decimal | None, document: Any) -> None:
    """A filter of several criteria matches what each of them matches alone, and nothing else."""
    parts = [Filter.build(colors=colors), Filter.build(trends=trends)]
    bound = None if low is None else f"{low:f}"
    parts.append(Filter.build(min_point=bound))
    whole = Filter.build(colors=colors, trends=trends, min_point=bound)
    for extras in (document, {"color": "red", "trend": "up", "point": "1"}, {"color": "red"}, {"trend": ["up"]}):
        facts = Facts.of(json.dumps(extras))
        assert whole.matches(facts) is all(part.matches(facts) for part in parts)


@given(st.sets(words.filter(bool), min_size=1), st.text(max_size=10))
def test_color_matches_exactly(colors: set[str], color: str) -> None:
    """Case and white space of a round's color count."""
    found = Filter.parse({"colors": ", ".join(colors)})

    assert found.matches(Facts.of(msgspec.json.encode({"color": color}).decode())) is (color in colors)


# --- slugs and subjects ----------------------------------------------------------------------------------------------


@given(st.text(max_size=70) | st.from_regex(r"[a-z0-9.*> \n-]{1,70}") | slugs)
@example("crash\n")
@example("*")
@example("a.b")
@example("")
def test_only_a_slug_becomes_a_subject(text: str) -> None:
    """A subject has one token for the slug, without wildcards or spaces; any other text is refused in one sentence."""
    if is_slug(text):
        assert re.fullmatch("[a-z0-9][a-z0-9-]{0,63}", text, re.ASCII)
        assert log_subject(text) == f"rounds.{text}"
        assert live_subject(text) == f"live.rounds.{text}"
        return
    for subject in (log_subject, live_subject):
        with pytest.raises(InvalidSlug) as caught:
            subject(text)
        assert one_line(caught.value)


@given(slugs, slugs, st.integers(0, 2**63 - 1), st.integers(0, 2**63 - 1))
def test_different_rounds_have_different_ids(one: str, other: str, first: int, second: int) -> None:
    """Of two rounds with one id, the log would drop one. The id is sent in a header, so it has no line breaks."""
    same = (one, first) == (other, second)

    assert (dedup_id(one, first) == dedup_id(other, second)) is same
    assert dedup_id(one, first).isprintable()


# --- the catalogue ---------------------------------------------------------------------------------------------------

names = slugs | st.text(max_size=8)
overlays = st.fixed_dictionaries(
    {},
    optional={
        "types": st.dictionaries(names, st.fixed_dictionaries({"value": st.text(max_size=8)}), max_size=3),
        "games": st.dictionaries(
            names | st.sampled_from(["crash", "double"]),
            st.fixed_dictionaries(
                {},
                optional={
                    "type": st.sampled_from(["color", "multiplier"]) | names,
                    "name": st.text(max_size=8),
                    "enabled": st.booleans(),
                },
            ),
            max_size=4,
        ),
    },
)


def toml(overlay: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Write TOML, whose quoted keys and strings are those of JSON, except for one control character."""

    def text(value: object) -> str:
        return json.dumps(value).replace("\x7f", "\\u007f")

    return "\n".join(
        f"[{section}.{text(name)}]\n" + "\n".join(f"{field} = {text(value)}" for field, value in entry.items())
        for section, entries in overlay.items()
        for name, entry in entries.items()
    )


@given(overlays)
def test_catalogue_is_complete_or_one_sentence(overlay: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Every game has a slug and a type that fit into a path, and is found by both; bundled games stay."""
    catalogue = done(lambda: Catalogue.load(toml(overlay)), InvalidCatalogue)
    if isinstance(catalogue, Exception):
        assert one_line(catalogue)
        assert str(catalogue).startswith("games file")
        return
    games = overlay.get("games", {})
    assert catalogue.slugs - games.keys() == Catalogue.load().slugs - games.keys()
    for slug, game in catalogue.games.items():
        assert is_slug(slug)
        assert is_slug(game.type)
        assert catalogue.game(slug) is game
        assert slug in catalogue.of_type(game.type)
    for slug, entry in games.items():
        assert (slug in catalogue.slugs) is entry.get("enabled", True)
    assert sum(len(catalogue.of_type(kind)) for kind in {game.type for game in catalogue.games.values()}) == len(
        catalogue.games
    )


@given(st.text(max_size=200))
@example("a = " + "[" * 100_000)
@example("[types.\x00]")
def test_any_file_is_a_catalogue_or_one_sentence(text: str) -> None:
    """An operator may configure the wrong file."""
    found = done(lambda: Catalogue.load(text), InvalidCatalogue)

    assert not isinstance(found, Exception) or one_line(found)


@given(st.text(max_size=100))
def test_what_is_not_in_the_catalogue_is_one_sentence(name: str) -> None:
    """For names of any length and content; the sentence is sent to clients."""
    catalogue = Catalogue.load()
    for found in (
        done(lambda: catalogue.game(name), UnknownGame),
        done(lambda: catalogue.of_type(name), UnknownType),
    ):
        if isinstance(found, Exception):
            assert one_line(found)
            assert len(str(found)) < 700
