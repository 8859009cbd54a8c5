"""Where a path of the options leads in a table."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.postgres.mapping.column_kinds import Kind
from backends.postgres.mapping.json_documents import JsonColumn, text_of
from backends.postgres.mapping.value_path import Place, ValuePath, sql_of
from rounds import InvalidRound


@pytest.mark.parametrize(
    ("text", "columns", "place"),
    [
        ("round_id", ["round_id"], Place("round_id", ())),
        ("payload.round.no", ["payload"], Place("payload", ("round", "no"))),
        ("payload.round.no", ["payload", "payload.round.no"], Place("payload.round.no", ())),
        ('"odd.name".x', ["odd.name"], Place("odd.name", ("x",))),
        ('a."b ""c"".d"', ["a"], Place("a", ('b "c".d',))),
        ("Round Nr", ["Round Nr"], Place("Round Nr", ())),
        ("a.", ["a."], Place("a.", ())),
        ('"', ['"'], Place('"', ())),
        ("payload.items.0", ["payload"], Place("payload", ("items", "0"))),
        ("Payload.x", ["payload"], None),
        ("x", [], None),
    ],
)
def test_path_leads_to_a_column_or_into_its_document(text: str, columns: list[str], place: Place | None) -> None:
    """A column of the whole name is meant first, so that every option of before means what it meant."""
    assert ValuePath.parse(text).place(columns) == place


@pytest.mark.parametrize("text", ["", "x" * 64, f"{'x' * 64}.y", "a\0b"])
def test_name_that_no_column_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a name of 1 to 63 bytes"):
        ValuePath.parse(text)


def test_names_cannot_escape_from_sql() -> None:
    assert sql_of(Place('a"b', ()), "t", Kind.TEXT) == 't."a""b"::text'
    assert sql_of(Place("p", ("x'); --", "y")), "NEW", Kind.JSON) == "(NEW.\"p\"::jsonb #>> ARRAY['x''); --', 'y'])"


@pytest.mark.parametrize(
    ("document", "members", "text"),
    [
        ('{"a": {"b": 5}}', ("a", "b"), "5"),
        ('{"a": 3.140}', ("a",), "3.140"),
        ('{"a": 12345678901234567890123}', ("a",), "12345678901234567890123"),
        ('{"a": "x\\"y"}', ("a",), 'x"y'),
        ('{"a": true}', ("a",), "true"),
        ('{"a": null}', ("a",), None),
        ('{"a": [10, [20]]}', ("a", "1", "0"), "20"),
        ('{"a": [10]}', ("a", "-1"), "10"),
        ('{"a": [10]}', ("a", "1"), None),
        ('{"a": [10]}', ("a", "x"), None),
        ('{"a": 5}', ("a", "b"), None),
        ('{"a": 5}', ("b",), None),
        ("[1, 2]", ("0",), "1"),
        ("7", ("a",), None),
        (None, ("a",), None),
    ],
)  # fmt: skip
def test_member_is_read_as_postgresql_reads_it(
    document: str | None, members: tuple[str, ...], text: str | None
) -> None:
    """As the operator ``#>>``, but every number digit for digit."""
    assert text_of(JsonColumn("p", 0).member(members)([document])) == text


def test_text_that_is_no_json_is_named() -> None:
    with pytest.raises(InvalidRound, match=r"payload '\{' are not JSON"):
        JsonColumn("payload", 0).member(("a",))(["{"])


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=3),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    ),
    st.lists(st.text(max_size=2), max_size=3),
)
def test_any_document_and_any_path_give_text_or_null(document: object, members: list[str]) -> None:
    value = text_of(JsonColumn("p", 0).member(tuple(members))([json.dumps(document)]))

    assert value is None or isinstance(value, str)
