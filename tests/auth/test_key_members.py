"""Every member of a key, in all written forms: what is allowed, and that nothing is lost on the way."""

import re
from dataclasses import fields
from datetime import UTC, datetime
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.key import InvalidKeys, Key, Limits, StoredSecret
from auth.key_forms import line_of, read_keys
from auth.key_members import checked_key
from auth.key_secret import digest_of, hash_of, prefix_of
from auth.revocations import Revocation
from auth.stores.stored_json import key_json, key_of_json, revocation_json, revocation_of_json
from tests.auth.stores.making import full_key, toml_of

SECRET = "sk_live_" + "5e" * 32
HASH = hash_of(SECRET)

slugs = st.from_regex(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
times = st.integers(0, 253_402_300_799).map(float) | st.integers(0, 2_000_000_000_000).map(lambda ms: ms / 1000)
networks = st.ip_addresses().filter(lambda address: "::ffff" not in str(address)).map(ip_network) | st.sampled_from(
    [ip_network(text) for text in ("10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::/0", "192.0.2.1/32")]
)
names = st.text(st.characters(categories=("L", "N", "P", "S", "Zs"), exclude_characters="\u00a0"), max_size=40).filter(
    lambda name: name.isprintable() and "eyJ" not in name and "=" not in name
)
counts = st.none() | st.integers(1, 10**9)
limits = st.builds(
    Limits,
    **{field.name: counts for field in fields(Limits) if field.name != "links_per_s"},
    links_per_s=st.none() | st.floats(0.001, 10**9),
)


@st.composite
def keys(draw: st.DrawFn) -> Key:
    public, test = draw(st.booleans()), draw(st.booleans())
    kind: Any = "public" if public else "private"
    secrets = []
    for number in range(draw(st.integers(1, 3))):
        secret = prefix_of(kind, test=test) + f"{number:064x}"
        prefix = draw(st.just("") | st.just(secret[:12]))
        secrets.append(StoredSecret(digest_of(secret + str(test)), prefix, draw(st.none() | times)))
    return Key(
        draw(st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,20}\Z")),
        kind,
        draw(st.none() | st.frozensets(slugs, min_size=1, max_size=3)),
        frozenset({"https://app.example"}) if public else frozenset(),
        tuple(secrets),
        types=draw(st.frozensets(slugs, max_size=3)),
        test=test,
        name=draw(names),
        limits=draw(limits),
        addresses=tuple(draw(st.lists(networks, max_size=3, unique=True))),
        created_at=draw(st.none() | times),
        expires_at=draw(st.none() | times),
        disabled=draw(st.booleans()),
    )


@given(keys())
def test_key_of_any_members_is_the_same_in_all_forms(key: Key) -> None:
    """Written and read back, as a line, as TOML and as stored JSON."""
    assert read_keys(text=line_of(key)) == [key]
    assert read_keys(file_text=toml_of(key)) == [key]
    assert key_of_json("store", key.id, key_json(key)) == key


def test_key_with_every_member_is_the_same_in_all_forms() -> None:
    """The one that has all of them, so that a member that is forgotten in a form is found."""
    key = full_key()
    plain = Key(key.id, "private")
    assert all(getattr(key, field.name) != getattr(plain, field.name) for field in fields(Key) if field.name != "id")

    assert read_keys(text=line_of(key)) == [key]
    assert read_keys(file_text=toml_of(key)) == [key]
    assert key_of_json("store", key.id, key_json(key)) == key


def test_members_that_are_not_set_are_not_stored() -> None:
    """So an older relay, which refuses unknown members, reads every key that does not use new ones."""
    assert msgspec.json.decode(key_json(Key("a", "private", secrets=(StoredSecret(digest_of(SECRET)),)))) == {
        "format": 1,
        "hash": HASH,
        "kind": "private",
    }


@pytest.mark.parametrize("prefix", ["sk_test_", "sk_test_0123abcd"])
def test_prefix_says_that_it_is_a_test_key(prefix: str) -> None:
    """Without a member ``test``."""
    assert checked_key("x", "a", {"hash": HASH, "prefix": prefix}).test
    assert not checked_key("x", "a", {"hash": HASH, "prefix": prefix.replace("test", "live")}).test
    assert checked_key("x", "a", {"hash": HASH, "test": True}).test


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("192.0.2.7", "192.0.2.7/32"),
        ("::ffff:192.0.2.0/120", "192.0.2.0/24"),
        ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ("2001:DB8::1", "2001:db8::1/128"),
    ],
)
def test_addresses_are_networks(text: str, network: str) -> None:
    """A single address is a network of one; IPv4 within IPv6 is IPv4, as callers are."""
    assert checked_key("x", "a", {"hash": HASH, "addresses": [text]}).addresses == (ip_network(network),)


@pytest.mark.parametrize("text", ["2027-01-31T00:00:00Z", "2027-01-31T01:00:00+01:00", "2027-01-30 19:00:00-05:00"])
def test_times_have_an_offset(text: str) -> None:
    """RFC 3339, in any zone."""
    moment = datetime(2027, 1, 31, tzinfo=UTC).timestamp()
    assert checked_key("x", "a", {"hash": HASH, "expires_at": text}).expires_at == moment


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"hash": None}, r"hash is missing"),
        ({"secrets": [{"hash": HASH}]}, r"hash and secrets are both given"),
        ({"hash": None, "secrets": [{"hash": HASH}] * 2}, r"secrets has the same hash twice"),
        ({"hash": None, "secrets": [{"hash": f"sha256:{n:064x}"} for n in range(11)]}, r"secrets has 11 entries"),
        ({"hash": None, "secrets": [{"hash": SECRET}]}, r"hash is a plain secret"),
        ({"hash": None, "secrets": [{"hash": HASH, "expires_at": 5}]}, r"expires_at of a secret is not a time"),
        ({"hash": None, "secrets": [{"hash": HASH, "sha": 5}]}, r"unknown field `sha`"),
        ({"hash": None, "prefix": "sk_live_00"}, r"prefix is given without hash"),
        ({"prefix": SECRET}, r"prefix is malformed"),
        ({"prefix": "xk_live_00"}, r"prefix is malformed"),
        ({"prefix": "pk_live_00"}, r"prefix begins with pk_live_, but .* begin with sk_live_"),
        ({"prefix": "sk_live_00", "test": True}, r"prefix begins with sk_live_, but .* begin with sk_test_"),
        ({"test": "yes"}, r"Expected `bool \| null`, got `str`"),
        ({"disabled": "true"}, r"Expected `bool`, got `str`"),
        ({"disabled": 1}, r"Expected `bool`, got `int`"),
        ({"name": "x" * 101}, r"name 'x{60}\.\.\.' is not allowed"),
        ({"name": "a\nb"}, r"name 'a\\nb' is not allowed"),
        ({"name": SECRET}, r"name 'sk_live_\*\*\*' is not allowed"),
        ({"types": ["Color"]}, r"types holds 'Color'"),
        ({"types": []}, r"types is empty"),
        ({"limits": {"links": 0}}, r"limits.links='0' is not allowed; it is a whole number of at least 1"),
        ({"limits": {"links": 1.5}}, r"limits.links='1.5'"),
        ({"limits": {"links": True}}, r"limits.links='True'"),
        ({"limits": {"links": 10**10}}, r"up to 1000000000"),
        ({"limits": {"links": "many"}}, r"limits.links='many'"),
        ({"limits": {"links_per_s": 0}}, r"limits.links_per_s='0' is not allowed; it is a number above 0"),
        ({"limits": {"links_per_s": float("nan")}}, r"limits.links_per_s='nan'"),
        ({"limits": {"links_per_s": float("inf")}}, r"limits.links_per_s='inf'"),
        ({"limits": {"link": 5}}, r"limits has no member 'link'; allowed are requests_per_min, "),
        ({"limits": 5}, r"Expected `object`, got `int`"),
        ({"addresses": []}, r"addresses is empty"),
        ({"addresses": ["10.0.0.1/8"]}, r"addresses holds '10.0.0.1/8'.*write 10.0.0.0/8"),
        ({"addresses": ["example.com"]}, r"addresses holds 'example.com'"),
        ({"addresses": ["10.0.0.0/33"]}, r"addresses holds"),
        ({"addresses": "10.0.0.0/8"}, r"Expected `array \| null`, got `str`"),
        ({"expires_at": "2027-01-31"}, r"expires_at is not a time with an offset"),
        ({"expires_at": "2027-01-31T00:00:00"}, r"expires_at is not a time with an offset"),
        ({"expires_at": datetime(2027, 1, 31)}, r"expires_at is not a time"),  # noqa: DTZ001 - the mistake
        ({"expires_at": datetime(1, 1, 1, tzinfo=UTC)}, r"expires_at is not a time"),
        ({"expires_at": 1_900_000_000}, r"expires_at is not a time"),
        ({"expires_at": "never"}, r"expires_at is not a time"),
        ({"created_at": True}, r"created_at is not a time"),
        ({"nbf": "2027-01-31T00:00:00Z"}, r"unknown field `nbf`.*allowed are hash, kind"),
    ],
)
def test_mistake_has_its_sentence(members: dict[str, Any], says: str) -> None:
    """It names the key, the member, the value and what is allowed, and repeats no secret."""
    given_members = {"hash": HASH} | members
    if given_members["hash"] is None:
        del given_members["hash"]

    with pytest.raises(InvalidKeys) as caught:
        checked_key("keys file", "a", given_members)

    sentence = str(caught.value)
    assert re.search(says, sentence), sentence
    assert sentence.startswith("keys file: key 'a'")
    assert SECRET[8:] not in sentence
    assert len(sentence) < 300


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (f"a={HASH} limits.links=many", r"limits.links='many'"),
        (f"a={HASH} limits.links=5 limits.links=6", r"key 'a' has limits.links twice"),
        (f"a={HASH} disabled=yes", r"Expected `bool`, got `str`"),
        (f"a={HASH}/2027", r"expires_at of a secret is not a time"),
        (f"a={HASH}/{SECRET}", r"prefix is malformed"),
        (f"a={HASH},{HASH}", r"the same hash twice"),
        (f"a={HASH} limits=5", r"Expected `object`, got `str`"),
    ],
)
def test_mistake_in_the_line_has_its_sentence(entry: str, says: str) -> None:
    """Also for members that only some forms write in a way of their own."""
    with pytest.raises(InvalidKeys) as caught:
        read_keys(text=entry)

    assert re.search(says, str(caught.value)), str(caught.value)
    assert SECRET[8:] not in str(caught.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", r"is not a JSON object"),
        (b"\xff", r"is not a JSON object"),
        (b"[1]", r"is not a JSON object"),
        (b"[" * 100_000, r"is not a JSON object"),
        (b"{}", r"has format None, not 1"),
        (b'{"format":2}', r"has format 2, not 1; upgrade the relay"),
        (b'{"format":true}', r"has format True"),
        (b'{"format":1,"hash":"%b","only_on_mondays":true}' % HASH.encode(), r"unknown field `only_on_mondays`"),
        (b'{"format":1,"hash":"%b","disabled":0}' % HASH.encode(), r"Expected `bool`"),
        (SECRET.encode(), r"is not a JSON object"),
    ],
)
def test_stored_entry_that_may_restrict_a_key_is_no_key(data: bytes, says: str) -> None:
    """A member or version of a newer release could restrict it, so the entry is refused as a whole."""
    with pytest.raises(InvalidKeys) as caught:
        key_of_json("bucket keys", "a", data)

    assert re.search(says, str(caught.value)), str(caught.value)
    assert SECRET[8:] not in str(caught.value)


@given(
    st.binary() | st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(msgspec.json.encode)
)
def test_any_stored_bytes_are_a_key_or_refused(data: bytes) -> None:
    """No bytes raise an error other than `InvalidKeys`."""
    with pytest.raises(InvalidKeys):
        key_of_json("bucket keys", "a", data)
    with pytest.raises(InvalidKeys):
        revocation_of_json("bucket keys", data)


@given(st.sampled_from(["token", "subject"]), st.text(), times, st.none() | times)
def test_revocation_survives_its_stored_form(what: Any, value: str, until: float, before: float | None) -> None:
    """All of its members."""
    revocation = Revocation(what, value, until, before)

    assert revocation_of_json("store", revocation_json(revocation)) == revocation
