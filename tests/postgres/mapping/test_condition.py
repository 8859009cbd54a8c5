"""Conditions of the options: how they are written, which rows they mean, and the SQL of the same meaning."""

from decimal import Decimal
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.postgres.mapping.column_kinds import Kind
from backends.postgres.mapping.condition import Condition
from backends.postgres.mapping.value_path import ValuePath

CONDITIONS: Final[list[tuple[str, Kind, list[str | None], list[str | None]]]] = [
    ("a is null", Kind.TEXT, [None], ["", "x"]),
    ("a IS NOT NULL", Kind.TEXT, ["", "null"], [None]),
    ("a = 'finished'", Kind.TEXT, ["finished"], ["Finished", "finished ", "", None]),
    ("a = 'it''s'", Kind.TEXT, ["it's"], ["it''s"]),
    ("a in ('finished', 'settled')", Kind.TEXT, ["finished", "settled"], ["running", None]),
    ("a <> 'open'", Kind.TEXT, ["x", ""], ["open", None]),
    ("a != 'open'", Kind.TEXT, ["x", ""], ["open", None]),
    ("a not in ('open', 'running')", Kind.TEXT, ["x"], ["open", "running", None]),
    ("a = 'ab'", Kind.CHAR, ["ab", "ab   "], ["ab x", " ab", None]),
    ("a = 'ab  '", Kind.CHAR, ["ab", "ab   "], ["abc"]),
    ("a = 5", Kind.NUMBER, ["5", "5.0", "5.00", "05", "5e0"], ["5.01", "-5", "NaN", None]),
    ("a = 5", Kind.TEXT, ["5", "5.0"], ["five", "", "5 ", "\u0665", None]),
    ("a = '5'", Kind.NUMBER, ["5", "5.0"], ["6"]),
    ("a = '5'", Kind.TEXT, ["5"], ["5.0"]),
    ("a in (1, 2.50, -3)", Kind.NUMBER, ["1", "2.5", "-3.0"], ["3", "NaN"]),
    ("a <> 5", Kind.NUMBER, ["6", "NaN"], ["5.0", None]),
    ("a", Kind.BOOLEAN, ["t", "true"], ["f", "false", None]),
    ("not a", Kind.BOOLEAN, ["f", "false"], ["t", "true", None]),
    ("a", Kind.TEXT, ["true", "T", " yes ", "on", "1"], ["false", "0", "", "truth", None]),
    ("a = true", Kind.BOOLEAN, ["t", "true"], ["f", None]),
    ("a = 'true'", Kind.BOOLEAN, ["t", "true"], ["f", None]),
    ("a = 't'", Kind.BOOLEAN, ["t", "true"], ["f", None]),
    ("a = 'true'", Kind.TEXT, ["true"], ["t"]),
    ("a <> false", Kind.BOOLEAN, ["t"], ["f", None]),
    ("a is true", Kind.BOOLEAN, ["t"], ["f", None]),
    ("a is not true", Kind.BOOLEAN, ["f", None], ["t"]),
    ("a is false", Kind.BOOLEAN, ["f"], ["t", None]),
    ("a is not false", Kind.BOOLEAN, ["t", None], ["f"]),
    (
        "a = '2F1AB5C0-0000-4000-8000-000000000001'",
        Kind.UUID,
        ["2f1ab5c0-0000-4000-8000-000000000001"],
        ["2f1ab5c0-0000-4000-8000-000000000002"],
    ),
]
"""Each with the kind of its column, values that it means, and others."""


def matches(text: str, value: str | None, kind: Kind = Kind.TEXT) -> bool:
    return Condition.parse(text).matches(lambda _path: value, lambda _path: kind)


@pytest.mark.parametrize(("text", "kind", "meant", "others"), CONDITIONS)
def test_condition_means_what_it_means_in_sql(
    text: str, kind: Kind, meant: list[str | None], others: list[str | None]
) -> None:
    """NULL matches no comparison; booleans have two spellings, numbers and char(n) many."""
    assert [value for value in meant if not matches(text, value, kind)] == []
    assert [value for value in others if matches(text, value, kind)] == []


def test_tests_are_joined_by_and() -> None:
    values = {"state": "done", "payload.ok": "true", "odd name": None}
    condition = Condition.parse("state in ('done') AND payload.ok and \"odd name\" is null")

    assert condition.matches(lambda path: values[".".join(path.parts)], lambda _path: Kind.TEXT)
    assert condition.columns == ("state", "payload", "odd name")
    values["payload.ok"] = "false"
    assert not condition.matches(lambda path: values[".".join(path.parts)], lambda _path: Kind.TEXT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "ends too early"),
        ("state =", "ends too early"),
        ("state = finished", "has 'finished' where a value has to be; write 'finished'"),
        ("state = null", "compares with null, which is never true; write 'is null'"),
        ("state in ()", "cannot be read at ')'"),
        ("state in 'a'", "cannot be read at \"'a'\""),
        ("a = 'x' or b = 'y'", "cannot be read at 'or'"),
        ("(a = 'x')", "cannot be read at '('"),
        ("a > 5", "cannot be read at '> 5'"),
        ("a like 'x%'", "cannot be read at 'like'"),
        ("a = 'open", 'cannot be read at "\'open"'),
        ("not a = 'x'", "cannot be read at '='"),
        ("a; drop table x", "cannot be read at '; drop table x'"),
    ],
)
def test_other_text_is_refused_with_what_is_allowed(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match="allowed are tests joined by 'and': column is null") as caught:
        Condition.parse(text)

    assert reason in str(caught.value)


@settings(max_examples=40)
@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    """Nothing but `ValueError` is raised, and what is read can be written as SQL."""
    try:
        condition = Condition.parse(text)
    except ValueError:
        return
    for path in condition.paths:
        assert ValuePath.parse(path.text) == path


@settings(max_examples=40)
@given(st.sampled_from([Kind.TEXT, Kind.CHAR, Kind.NUMBER]), st.text(max_size=8), st.text(max_size=8))
def test_equal_and_not_equal_are_opposites_except_for_null(kind: Kind, wanted: str, value: str) -> None:
    literal = wanted.replace("'", "''")

    assert matches(f"a = '{literal}'", value, kind) is not matches(f"a <> '{literal}'", value, kind)
    assert not matches(f"a = '{literal}'", None, kind)
    assert not matches(f"a <> '{literal}'", None, kind)


@settings(max_examples=40)
@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**6), max_value=10**6, places=3))
def test_numbers_are_equal_whatever_their_scale(number: Decimal) -> None:
    assert matches(f"a = {number:f}", f"{number:f}000" if "." in f"{number:f}" else f"{number:f}.0", Kind.NUMBER)
