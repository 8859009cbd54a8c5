"""What a request asks for, and the errors when there is no such thing."""

import pytest

from relay.admission.requested import named_games, requested
from relay.errors import BadRequest, NotAllowed
from relay.live.channels import Subscription
from rounds import Catalogue, Filter, InvalidFilter, UnknownGame, UnknownType

CATALOGUE = Catalogue.load()
ALL = CATALOGUE.slugs
NONE: dict[str, str] = {}


@pytest.mark.parametrize(
    ("path", "query", "games"),
    [
        ({"game": "crash"}, {}, {"crash"}),
        ({"type": "color"}, {}, {"double"}),
        ({}, {"games": "crash,dice"}, {"crash", "dice"}),
        ({}, {"games": " crash , dice,crash"}, {"crash", "dice"}),
        ({}, {}, ALL),
        ({"type": "multiplier"}, {}, CATALOGUE.of_type("multiplier")),
    ],
)
def test_games_by_name_type_list_or_all(path: dict[str, str], query: dict[str, str], games: set[str]) -> None:
    """Each way to ask, with a credential that covers all games."""
    assert requested(CATALOGUE, None, path, query) == Subscription(frozenset(games), Filter())


@pytest.mark.parametrize(
    ("path", "query", "games"),
    [
        ({"game": "crash"}, {}, {"crash"}),
        ({"type": "multiplier"}, {}, {"crash"}),
        ({}, {}, {"crash", "double"}),
        ({}, {"games": "double"}, {"double"}),
    ],
)
def test_all_of_a_kind_means_all_that_the_credential_covers(
    path: dict[str, str], query: dict[str, str], games: set[str]
) -> None:
    """A request for a type is not refused when some of its games are not covered."""
    assert requested(CATALOGUE, frozenset({"crash", "double"}), path, query).games == games


@pytest.mark.parametrize(
    ("path", "query"),
    [({"game": "dice"}, {}), ({}, {"games": "crash,dice"}), ({"type": "slots"}, {})],
)
def test_named_game_that_is_not_covered_is_refused(path: dict[str, str], query: dict[str, str]) -> None:
    """A client that names a game would wait for it in vain."""
    with pytest.raises(NotAllowed):
        requested(CATALOGUE, frozenset({"crash"}), path, query)


def test_credential_for_removed_games_covers_nothing() -> None:
    """An operator took the game out of the catalogue after the key was made."""
    with pytest.raises(NotAllowed):
        requested(CATALOGUE, frozenset({"gone"}), NONE, NONE)


def test_refusal_names_what_is_covered() -> None:
    """The sentence lets its reader fix the request."""
    with pytest.raises(NotAllowed, match=r"'dice'.*covers: crash, double"):
        named_games(CATALOGUE, frozenset({"double", "crash"}), ["dice"])


@pytest.mark.parametrize(
    ("path", "query"),
    [({"game": "{}"}, {}), ({}, {"games": "{}"}), ({}, {"games": "crash,{}"}), ({"type": "{}"}, {})],
)
@pytest.mark.parametrize("hidden", [("dice", "nope"), ("slots", "nope")])
def test_what_is_not_covered_looks_like_what_does_not_exist(
    path: dict[str, str], query: dict[str, str], hidden: tuple[str, str]
) -> None:
    """A credential of some games learns of no other game or type: neither from the kind of error nor from its text."""
    answers = set()
    for name in hidden:
        filled = [{part: text.format(name) for part, text in one.items()} for one in (path, query)]
        with pytest.raises(NotAllowed) as caught:
            requested(CATALOGUE, frozenset({"crash"}), *filled)
        answers.add(str(caught.value).replace(name, "NAME"))

    [answer] = answers
    assert not [slug for slug in CATALOGUE.slugs - {"crash"} if slug in answer]


@pytest.mark.parametrize("slug", ["", " ", ".", "*", ">", "Crash", "crash ", "crash.dice", "\0", "é", "x" * 10_000])
def test_hostile_slug_is_no_game(slug: str) -> None:
    """It is only looked up in the catalogue, and the answer is short."""
    with pytest.raises((UnknownGame, BadRequest)) as raised:
        named_games(CATALOGUE, None, [slug])

    assert len(str(raised.value)) < 500


def test_unknown_type_lists_the_types() -> None:
    """A game's name is no type."""
    with pytest.raises(UnknownType, match="'crash'; known types: color, multiplier, slots, trending"):
        requested(CATALOGUE, None, {"type": "crash"}, NONE)


@pytest.mark.parametrize("games", ["", ",", "crash,", ",crash", "crash,,dice", " "])
def test_empty_name_in_the_list_is_malformed(games: str) -> None:
    """A list with an error must not be read as a shorter one, or as all games."""
    with pytest.raises(BadRequest, match="empty name"):
        requested(CATALOGUE, None, NONE, {"games": games})


def test_filter_is_part_of_the_subscription() -> None:
    """Equal subscriptions are one key, so that their links share bytes."""
    query = {"min_point": "2.0", "colors": "red,black"}
    one, other = (
        requested(CATALOGUE, None, NONE, query),
        requested(CATALOGUE, None, NONE, dict(reversed(query.items()))),
    )

    assert one == other
    assert hash(one) == hash(other)
    assert one.filter == Filter.parse(query)
    with pytest.raises(InvalidFilter):
        requested(CATALOGUE, None, NONE, {"min_point": "many"})


@pytest.mark.parametrize("text", ["1", "true"])
def test_corrections_are_those_of_the_games(text: str) -> None:
    """Of each game that the credential covers, and of no other; a client cannot name them."""
    allowed = frozenset({"crash", "double"})
    both = {"crash", "crash~corrections", "double", "double~corrections"}
    asked = {"corrections": text}

    assert requested(CATALOGUE, allowed, {"game": "crash"}, asked).games == {"crash", "crash~corrections"}
    assert requested(CATALOGUE, allowed, {"type": "multiplier"}, asked).games == {"crash", "crash~corrections"}
    assert requested(CATALOGUE, allowed, NONE, asked).games == both
    assert requested(CATALOGUE, allowed, NONE, asked | {"games": "double,crash"}).games == both
    for name in ("crash~corrections", "dice~corrections"):
        with pytest.raises(NotAllowed):
            requested(CATALOGUE, allowed, {"game": name}, asked)
        with pytest.raises(UnknownGame):
            requested(CATALOGUE, None, {"game": name}, NONE)


@pytest.mark.parametrize("text", ["0", "false"])
def test_nothing_changes_for_a_client_that_does_not_ask(text: str) -> None:
    """The flag may be given as off."""
    assert requested(CATALOGUE, None, {"game": "crash"}, {"corrections": text}).games == {"crash"}


@pytest.mark.parametrize("text", ["", "2", "yes", "True", " 1", "1,1"])
def test_other_flag_is_refused_in_one_sentence(text: str) -> None:
    """With its value, and what is allowed."""
    with pytest.raises(BadRequest, match=r"^corrections '.*' is none of 1 and true, 0 and false$"):
        requested(CATALOGUE, None, {"game": "crash"}, {"corrections": text})
