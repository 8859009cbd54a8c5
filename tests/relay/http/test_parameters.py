"""The parameters of a URL: names that are not taken, and values that are given twice."""

import pytest

from relay.errors import BadRequest
from relay.http.parameters import LISTS, read_query

NAMES = ("after", "last", "min_point", "colors")


def test_parameters_by_name() -> None:
    """Each is what the URL says, decoded; none is made up."""
    assert read_query([("after", "a-1"), ("min_point", "")], NAMES) == {"after": "a-1", "min_point": ""}
    assert read_query([], NAMES) == {}


def test_unknown_parameter_is_refused_with_those_there_are() -> None:
    """`minpoint` must not stream what `min_point` would keep back."""
    with pytest.raises(
        BadRequest, match=r"unknown query parameter 'minpoint'; allowed here: after, last, min_point, colors$"
    ):
        read_query([("after", "x"), ("minpoint", "2")], NAMES)


def test_path_without_parameters_says_that_it_takes_none() -> None:
    """There is no list to show then."""
    with pytest.raises(BadRequest, match=r"unknown query parameter 'x'; this path takes none$"):
        read_query([("x", "1")], ())


@pytest.mark.parametrize("name", ["", "Min_Point", "min_point ", "utm", "x" * 10_000])
def test_name_that_is_only_like_one_is_unknown(name: str) -> None:
    """Names are compared exactly, and the answer stays short."""
    with pytest.raises(BadRequest) as raised:
        read_query([(name, "1")], NAMES)

    assert len(str(raised.value)) < 200


def test_parameters_that_tools_add_are_passed_over() -> None:
    """What guards against caches and counts visits asks for nothing, however often."""
    items = [("_", "1"), ("_", "2"), ("_t", "3"), ("utm_source", "x"), ("after", "a-1")]

    assert read_query(items, NAMES) == {"after": "a-1"}


@pytest.mark.parametrize("path", [{"game": "crash"}, {"type": "color"}])
def test_games_beside_a_game_in_the_path_is_malformed(path: dict[str, str]) -> None:
    """Which of the two is meant is not ours to guess."""
    with pytest.raises(BadRequest, match="games cannot be given here"):
        read_query([("games", "dice")], NAMES, path=path)


@pytest.mark.parametrize("second", ["1", "2", ""])
def test_value_that_is_given_twice_is_refused(second: str) -> None:
    """Which one is meant is not ours to guess; the same one twice is a mistake of whoever put the URL together."""
    with pytest.raises(BadRequest, match=r"^last is given more than once; it takes one value$"):
        read_query([("last", "1"), ("after", "a-1"), ("last", second)], NAMES)


def test_value_that_is_given_twice_is_not_repeated() -> None:
    """It may be a key, which no answer shows."""
    with pytest.raises(BadRequest) as raised:
        read_query([("api_key", "sk_live_1"), ("api_key", "sk_live_1")], ("api_key",))

    assert "sk_live" not in str(raised.value)


@pytest.mark.parametrize("name", LISTS)
def test_list_may_come_in_pieces(name: str) -> None:
    """As forms and the libraries of OpenAPI write lists: it is all of them."""
    assert read_query([(name, "a,b"), ("last", "1"), (name, "c")], (name, "last")) == {name: "a,b,c", "last": "1"}
