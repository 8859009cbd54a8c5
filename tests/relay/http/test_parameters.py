"""The parameters of a URL: unknown names, and values that are given twice."""

import pytest

from relay.errors import BadRequest
from relay.http.parameters import LISTS, read_query

NAMES = ("after", "last", "min_point", "colors")


def test_parameters_by_name() -> None:
    """Decoded values of the given parameters, and no others."""
    assert read_query([("after", "a-1"), ("min_point", "")], NAMES) == {"after": "a-1", "min_point": ""}
    assert read_query([], NAMES) == {}


def test_error_of_an_unknown_parameter_names_the_known_ones() -> None:
    """`minpoint` must not stream what `min_point` would exclude."""
    with pytest.raises(
        BadRequest, match=r"unknown query parameter 'minpoint'; allowed here: after, last, min_point, colors$"
    ):
        read_query([("after", "x"), ("minpoint", "2")], NAMES)


def test_path_without_parameters_says_that_it_takes_none() -> None:
    """The error has no list to show."""
    with pytest.raises(BadRequest, match=r"unknown query parameter 'x'; this path takes none$"):
        read_query([("x", "1")], ())


@pytest.mark.parametrize("name", ["", "Min_Point", "min_point ", "utm", "x" * 10_000])
def test_similar_name_is_unknown(name: str) -> None:
    """Names are compared exactly, and the error stays short."""
    with pytest.raises(BadRequest) as raised:
        read_query([(name, "1")], NAMES)

    assert len(str(raised.value)) < 200


def test_parameters_that_tools_add_are_ignored() -> None:
    """Parameters against caches and for statistics change nothing, however often they are given."""
    items = [("_", "1"), ("_", "2"), ("_t", "3"), ("utm_source", "x"), ("after", "a-1")]

    assert read_query(items, NAMES) == {"after": "a-1"}


@pytest.mark.parametrize("path", [{"game": "crash"}, {"type": "color"}])
def test_games_beside_a_game_in_the_path_is_malformed(path: dict[str, str]) -> None:
    """The request is ambiguous."""
    with pytest.raises(BadRequest, match="games cannot be given here"):
        read_query([("games", "dice")], NAMES, path=path)


@pytest.mark.parametrize("second", ["1", "2", ""])
def test_parameter_given_twice_is_refused(second: str) -> None:
    """The request is ambiguous; equal values are refused too."""
    with pytest.raises(BadRequest, match=r"^last is given more than once; it takes one value$"):
        read_query([("last", "1"), ("after", "a-1"), ("last", second)], NAMES)


def test_error_does_not_repeat_values() -> None:
    """A value may be a key."""
    with pytest.raises(BadRequest) as raised:
        read_query([("api_key", "sk_live_1"), ("api_key", "sk_live_1")], ("api_key",))

    assert "sk_live" not in str(raised.value)


@pytest.mark.parametrize("name", LISTS)
def test_repeated_list_is_joined(name: str) -> None:
    """HTML forms and OpenAPI libraries write lists as repeated parameters."""
    assert read_query([(name, "a,b"), ("last", "1"), (name, "c")], (name, "last")) == {name: "a,b,c", "last": "1"}
