"""Ids of text as round ids. What is promised: docs/adr/0034-hashed-round-ids.md"""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.postgres.mapping.hashed_ids import hashed_id

UUID = "0b8d9df0-6c34-4a9b-8f1e-2f6f2a4c7d10"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (UUID, 7277068681513134711),
        ("a", 5374906597990186442),
        ("runde-ä-1", 3668883880620350281),
    ],
)
def test_ids_never_change(text: str, number: int) -> None:
    """The log recognises a round by its id, also after an upgrade: these numbers are a promise."""
    assert hashed_id(text) == number


def test_uuid_in_capitals_is_the_same_id() -> None:
    """A column of text may have either; other text differs by case."""
    assert hashed_id(UUID.upper()) == hashed_id(UUID)
    assert hashed_id("ABC") != hashed_id("abc")
    assert hashed_id(f"{UUID.upper()}x") != hashed_id(f"{UUID}x")


@settings(max_examples=40)
@given(st.text())
def test_id_is_a_round_id(text: str) -> None:
    assert 0 <= hashed_id(text) < 2**63
