"""What an accepted credential allows after its key has changed."""

import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants import Grant
from auth.key import Key, Limits, StoredSecret
from auth.key_secret import generate, stored
from auth.revocations import Revocation, Revocations
from auth.standing import Withdrawn, standing

NOW: Final = 1_000_000.0
SECRET: Final = stored(generate("private")[0])
NEW_SECRET: Final = stored(generate("private")[0])
KEY: Final = Key("partner", "private", secrets=(SECRET,))
PAGE: Final = Key("page", "public", allowed_origins=frozenset({"https://a.example", "file://"}), secrets=(SECRET,))
NONE: Final = Revocations()

SLUGS: Final = st.sampled_from(["crash", "dice", "plinko", "double"])
GAMES: Final = st.none() | st.frozensets(SLUGS)


def judged(
    grant: Grant, key: Key | None, *, follows: set[str] | None = None, address: str = "192.0.2.1", now: float = NOW
) -> Grant | Withdrawn:
    games = None if follows is None else frozenset(follows)
    return standing(grant, key, NONE, address=address, follows=games, now=now)


def granted(key: Key, **fields: Any) -> Grant:
    return replace(Grant.of(key, secret_id=SECRET.id), **fields)


def test_key_that_has_not_changed_keeps_its_grant() -> None:
    """The same object: nothing is to be replaced. Another name or time of creation changes nothing either."""
    grant = granted(KEY)

    assert judged(grant, KEY) is grant
    assert judged(grant, replace(KEY, name="renamed", created_at=1.0, expires_at=NOW + 1)) is grant


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda key: replace(key, disabled=True), Withdrawn.DISABLED),
        (lambda key: replace(key, expires_at=NOW), Withdrawn.EXPIRED),
        (lambda key: replace(key, secrets=(NEW_SECRET,)), Withdrawn.SECRET),
        (lambda key: replace(key, secrets=(NEW_SECRET, replace(SECRET, expires_at=NOW))), Withdrawn.SECRET),
        (lambda key: replace(key, secrets=()), Withdrawn.SECRET),
        (lambda key: replace(key, kind="public", allowed_origins=frozenset({"*"})), Withdrawn.KIND),
        (lambda key: replace(key, addresses=(ip_network("198.51.100.0/24"),)), Withdrawn.ADDRESS),
        (lambda key: replace(key, games=frozenset({"dice"})), Withdrawn.GAMES),
        (lambda key: replace(key, games=frozenset()), Withdrawn.GAMES),
        (lambda _key: None, Withdrawn.REMOVED),
    ],
)
@pytest.mark.parametrize("token_id", [None, "a-token"], ids=["key", "token"])
def test_change_that_withdraws_a_key(change: Callable[[Key], Key | None], why: Withdrawn, token_id: str | None) -> None:
    """From links that were opened with the key, and from those of its tokens."""
    assert judged(granted(KEY, token_id=token_id), change(KEY), follows={"crash"}) is why


@pytest.mark.parametrize(
    "change",
    [
        lambda key: replace(key, expires_at=NOW + 0.001),
        lambda key: replace(key, secrets=(NEW_SECRET, replace(SECRET, expires_at=NOW + 0.001))),
        lambda key: replace(key, addresses=(ip_network("198.51.100.0/24"), ip_network("192.0.2.1/32"))),
        lambda key: replace(key, games=frozenset({"crash", "dice"})),
        lambda key: replace(key, limits=Limits(links=1, requests_per_min=1)),
    ],
)
def test_change_that_leaves_an_open_link(change: Callable[[Key], Key]) -> None:
    """Its grant is then that of the changed key."""
    changed = change(KEY)
    grant = judged(granted(KEY), changed, follows={"crash"})

    assert isinstance(grant, Grant)
    assert (grant.games, grant.limits) == (changed.games, changed.limits)
    assert grant.secret_id == SECRET.id


@pytest.mark.parametrize("address", ["", "unix:", "2001:db8::1", "192.0.2.2"])
def test_address_that_is_in_no_network_of_the_key(address: str) -> None:
    """Also one that is no address, and one of the other family."""
    only = replace(KEY, addresses=(ip_network("192.0.2.1/32"),))

    assert judged(granted(KEY), only, address=address) is Withdrawn.ADDRESS


@pytest.mark.parametrize("origin", ["https://a.example", "null", "file://"])
def test_origin_that_was_removed(origin: str) -> None:
    """An origin is compared as when the link was opened: pages from files send ``null``."""
    grant = granted(PAGE, origin=origin)
    named = "https://a.example" if origin == "https://a.example" else "file://"

    assert judged(grant, PAGE) is grant
    assert judged(grant, replace(PAGE, allowed_origins=PAGE.allowed_origins - {named})) is Withdrawn.ORIGIN
    assert isinstance(judged(grant, replace(PAGE, allowed_origins=frozenset({"*"}))), Grant)


def test_link_without_a_followed_game_is_ended_by_no_narrower_key() -> None:
    """A client has unsubscribed from everything; it may subscribe to what its key still covers."""
    grant = judged(granted(KEY), replace(KEY, games=frozenset({"dice"})), follows=set())

    assert isinstance(grant, Grant)
    assert grant.games == frozenset({"dice"})


def test_link_of_all_covered_games_is_ended_by_a_narrower_key() -> None:
    """It names no games. Also when the key covered a list before; a wider key does not end it."""
    some = replace(KEY, games=frozenset({"crash", "dice"}))

    assert judged(granted(KEY), some) is Withdrawn.GAMES
    assert judged(granted(some), replace(KEY, games=frozenset({"crash"}))) is Withdrawn.GAMES
    assert isinstance(judged(granted(some), replace(KEY, games=frozenset({"crash", "dice", "plinko"}))), Grant)
    assert isinstance(judged(granted(some), KEY), Grant)


def test_request_for_a_game_that_was_never_covered_is_not_revoked() -> None:
    """Its link is refused for that, with another error."""
    some = replace(KEY, games=frozenset({"crash"}))

    assert isinstance(judged(granted(some), replace(some, games=frozenset({"crash", "x"})), follows={"dice"}), Grant)
    assert isinstance(judged(granted(some), some, follows={"dice"}), Grant)


@given(before=GAMES, token=GAMES, after=GAMES, follows=st.frozensets(SLUGS))
def test_token_never_allows_more_than_when_it_was_made(
    before: frozenset[str] | None, token: frozenset[str] | None, after: frozenset[str] | None, follows: frozenset[str]
) -> None:
    """Nor more than the key allows now. What it follows is covered, or the link ends."""
    made = frozenset(follows) if token is None and before is None else (token if before is None else before)
    grant = granted(KEY, token_id="t", games=made)
    now = judged(grant, replace(KEY, games=after), follows=set(follows))
    covers_all = after is None or after >= (follows if made is None else follows & made)

    assert isinstance(now, Grant) == covers_all
    if isinstance(now, Grant) and now.games is not None and made is not None:
        assert now.games <= made
        assert after is None or now.games <= after


def test_revoked_token_and_subject() -> None:
    """They are withdrawn although their key is valid; a key has neither."""
    revoked = Revocations([Revocation.of_token("t"), Revocation.of_subject("anna")])

    def of(grant: Grant) -> Grant | Withdrawn:
        return standing(grant, KEY, revoked, address="", follows=None, now=time.time())

    assert of(granted(KEY, token_id="t")) is Withdrawn.TOKEN
    assert of(granted(KEY, token_id="u", subject="anna")) is Withdrawn.TOKEN
    assert isinstance(of(granted(KEY, token_id="u", subject="berta")), Grant)
    assert isinstance(of(granted(KEY)), Grant)


def test_identity_has_no_key_to_be_taken_back() -> None:
    """That of the operator's own provider. Its subject can be revoked."""
    identity = Grant("identity/corp", "private", frozenset({"crash"}), frozenset(), token_id="t", subject="anna")

    assert judged(identity, None, follows={"crash"}) is identity
    revoked = Revocations([Revocation.of_subject("anna")])
    assert standing(identity, None, revoked, address="", follows=None, now=time.time()) is Withdrawn.TOKEN


def test_secret_that_is_not_known_is_not_compared() -> None:
    """As in tokens of a relay of an earlier version, for the seconds of an upgrade."""
    assert isinstance(judged(granted(KEY, secret_id=None), replace(KEY, secrets=(NEW_SECRET,))), Grant)


def test_next_expiry_of_a_key() -> None:
    """The earliest of its own and of its secrets' that is still to come."""
    key = replace(KEY, expires_at=50.0, secrets=(StoredSecret(b"a" * 32, expires_at=20.0), SECRET))

    assert [key.next_expiry(now) for now in (0.0, 20.0, 49.9, 50.0)] == [20.0, 50.0, 50.0, None]
    assert KEY.next_expiry(0.0) is None
