"""Keys in memory: changes, types, and keys that share a secret by mistake."""

from dataclasses import replace

import pytest

from auth.key import InvalidCredential, Key
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored

SECRET = generate("private")[0]
KEY = Key("one", "private", secrets=(stored(SECRET),))


def test_watchers_learn_what_is_different_only() -> None:
    """A store that is read again changes nothing."""
    ring, seen = KeyRing([KEY]), list[frozenset[str]]()
    ring.watchers.append(seen.append)

    ring.replace([replace(KEY)])
    assert seen == []
    ring.change({"one": replace(KEY, disabled=True), "other": None})
    ring.replace([])

    assert seen == [{"one"}, {"one"}]
    with pytest.raises(InvalidCredential):
        ring.authenticate(SECRET)


def test_rotated_key_has_both_secrets_then_one() -> None:
    """The one that was taken away is unknown."""
    ring = KeyRing([KEY])
    new = generate("private")[0]

    ring.change({"one": replace(KEY, secrets=(stored(new), stored(SECRET)))})
    assert ring.authenticate(new).id == ring.authenticate(SECRET).id == "one"

    ring.change({"one": replace(KEY, secrets=(stored(new),))})
    assert ring.authenticate(new).id == "one"
    with pytest.raises(InvalidCredential):
        ring.authenticate(SECRET)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_of_two_keys_with_one_secret_the_oldest_is_in_force(order: tuple[int, int]) -> None:
    """On every relay, in whatever order they came; the other one takes its place when it is gone."""
    pair = (replace(KEY, id="b", created_at=1), replace(KEY, id="a", created_at=2))
    ring = KeyRing(pair[number] for number in order)

    assert ring.authenticate(SECRET).id == "b"
    ring.change({"b": replace(pair[0], disabled=True)})
    with pytest.raises(InvalidCredential):
        ring.authenticate(SECRET)
    ring.change({"b": None})
    assert ring.authenticate(SECRET).id == "a"
    ring.change({"a": None})
    with pytest.raises(InvalidCredential):
        ring.authenticate(SECRET)


def test_types_allow_their_games_once_they_are_known() -> None:
    """In addition to the games that are named; before, and for unknown types, they allow nothing."""
    typed = replace(KEY, types=frozenset({"color", "nope"}))
    both = replace(typed, id="both", games=frozenset({"crash"}), secrets=(stored(generate("private")[0]),))
    ring = KeyRing([typed, both])
    assert [key.games for key in ring] == [frozenset(), frozenset({"crash"})]

    ring.know_types({"color": frozenset({"double"}), "slots": frozenset({"fortune-dragon"})})
    assert [key.games for key in ring] == [frozenset({"double"}), frozenset({"crash", "double"})]

    ring.change({"one": replace(typed, types=frozenset({"slots"}))})
    assert ring.authenticate(SECRET).games == frozenset({"fortune-dragon"})


def test_test_key_is_not_a_live_key() -> None:
    """A secret is accepted only for a key of its own kind."""
    secret = generate("private", test=True)[0]
    assert secret.startswith("sk_test_")

    assert KeyRing([replace(KEY, test=True, secrets=(stored(secret),))]).authenticate(secret).test
    with pytest.raises(InvalidCredential):
        KeyRing([replace(KEY, secrets=(stored(secret),))]).authenticate(secret)
