"""JWTs of an identity provider: what is accepted, what is refused, and what claims grant."""

import hmac
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from auth.identity.identity_rules import Identity, IdentityRules, InvalidIdentity
from auth.identity.identity_token import checked_identity, read_identity
from auth.identity.key_set import KeySet, MalformedKeySet
from auth.key import Limits
from auth.signing.algorithms import PrivateKey
from auth.signing.compact import encoded
from tests.auth.identity.provider import ISSUER, RULES, Provider, private_key

NOW: Final = 1_768_730_430


def fixed(**keys: PrivateKey) -> Provider:
    """Return a provider whose clock stands at `NOW`."""
    provider = Provider(**keys)
    provider.clock = lambda: NOW
    return provider


PROVIDER: Final = fixed(p1=private_key("RS256"), p2=private_key("EdDSA"), p3=private_key("ES256"))
KEYS: Final = KeySet.read(json.dumps(PROVIDER.key_set()).encode(), RULES.algorithms)
STRANGER: Final = fixed(p3=private_key("ES256"))


def sign_in(token: str, rules: IdentityRules = RULES, keys: KeySet = KEYS) -> Identity:
    presented = read_identity(token, rules)
    return checked_identity(presented, keys.find(presented.key_id, presented.algorithm), rules, now=NOW)


def test_good_token_is_accepted() -> None:
    """Otherwise the refusals below would prove nothing."""
    assert sign_in(PROVIDER.token()).subject == "user-1"
    for name, key in PROVIDER.keys.items():
        assert sign_in(fixed(**{name: key}).token()).games == frozenset({"crash"})


def hmac_of_public_key() -> str:
    """Sign with the provider's public key as the secret of HMAC: CVE-2015-9235, CVE-2022-29217."""
    header = json.dumps({"alg": "HS256", "kid": "p1", "typ": "JWT"}).encode()
    signed = encoded(header) + b"." + PROVIDER.token().split(".")[1].encode()
    return (
        signed + b"." + encoded(hmac.digest(json.dumps(PROVIDER.key_set()["keys"][0]).encode(), signed, "sha256"))
    ).decode()


def claims_text(addition: str) -> bytes:
    whole = {"iss": ISSUER, "aud": "streams", "sub": "user-1", "iat": NOW, "exp": NOW + 600, "games": ["crash"]}
    return json.dumps(whole)[:-1].encode() + addition.encode() + b"}"


ATTACKS: Final[dict[str, Callable[[], str]]] = {
    "HMAC with the public key": hmac_of_public_key,
    "alg none": lambda: PROVIDER.token(header={"alg": "none"}, signature=b""),
    "alg of another key": lambda: PROVIDER.token(header={"alg": "RS256"}),
    "alg that is not allowed": lambda: PROVIDER.token(header={"alg": "ES384"}),
    "alg is a list": lambda: PROVIDER.token(header={"alg": ["ES256"]}),
    "no alg": lambda: PROVIDER.token(header={"alg": ...}),
    "no signature": lambda: PROVIDER.token(signature=b""),
    "r = s = 0": lambda: PROVIDER.token(signature=b"\0" * 64),
    "signature in DER": lambda: PROVIDER.token(signature=b"\x30\x06\x02\x01\x01\x02\x01\x01"),
    "a stranger's key with the same id": STRANGER.token,
    "key in the header": lambda: STRANGER.token(header={"jwk": STRANGER.key_set()["keys"][0]}),
    "key in the header without an id": lambda: STRANGER.token(
        header={"jwk": STRANGER.key_set()["keys"][0], "kid": ...}
    ),
    "address of a key": lambda: STRANGER.token(header={"jku": "http://127.0.0.1:1/jwks.json"}),
    "address of a certificate": lambda: STRANGER.token(header={"x5u": "http://127.0.0.1:1/x.pem"}),
    "unknown kid": lambda: PROVIDER.token(header={"kid": "p9"}),
    "kid is a path": lambda: PROVIDER.token(header={"kid": "../../dev/null"}),
    "kid is SQL": lambda: PROVIDER.token(header={"kid": "' OR 1=1 --"}),
    "kid is long": lambda: PROVIDER.token(header={"kid": "p" * 300}),
    "kid is a number": lambda: PROVIDER.token(header={"kid": 1}),
    "crit": lambda: PROVIDER.token(header={"crit": ["exp"]}),
    "b64": lambda: PROVIDER.token(header={"crit": ["b64"], "b64": False}),
    "b64 alone": lambda: PROVIDER.token(header={"b64": True}),
    "nested": lambda: PROVIDER.token(header={"cty": "JWT"}),
    "compressed": lambda: PROVIDER.token(header={"zip": "DEF"}),
    "encrypted": lambda: "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AAAA.AAAA.AAAA.AAAA",
    "encrypted in three parts": lambda: PROVIDER.token(header={"enc": "A256GCM"}),
    **{
        f"typ {kind}": lambda kind=kind: PROVIDER.token(header={"typ": kind})  # type: ignore[misc]
        for kind in ("logout+jwt", "dpop+jwt", "secevent+jwt", "oauth-authz-req+jwt", "JOSE", "", None, 1)
    },
    "alg twice": lambda: PROVIDER.token(header=b'{"alg":"ES256","kid":"p3","alg":"ES256"}'),
    "games twice": lambda: PROVIDER.token(payload=claims_text(',"games":["*"]')),
    "sub twice, escaped": lambda: PROVIDER.token(payload=claims_text(',"su\\u0062":"boss"')),
    "not JSON": lambda: PROVIDER.token(payload=b"x"),
    "a list": lambda: PROVIDER.token(payload=b"[]"),
    "NaN": lambda: PROVIDER.token(payload=claims_text(',"nbf":NaN')),
    "nested deeply": lambda: PROVIDER.token(payload=claims_text(',"x":' + "[" * 1500 + "]" * 1500)),
    "over 8 KB": lambda: PROVIDER.token(x="x" * 8000),
    "padded": lambda: PROVIDER.token() + "=",
    "a line end": lambda: PROVIDER.token() + "\n",
    "other letters": lambda: PROVIDER.token().replace(".", "\uff0e"),
    "another issuer": lambda: PROVIDER.token(iss="https://login.example.com"),
    "issuer in other letters": lambda: PROVIDER.token(iss="https://login.ex\u0430mple.com/"),
    "issuer is a list": lambda: PROVIDER.token(iss=[ISSUER]),
    "no issuer": lambda: PROVIDER.token(without="iss"),
    "another audience": lambda: PROVIDER.token(aud="billing"),
    "other audiences": lambda: PROVIDER.token(aud=["billing", "streams2"]),
    "audience is an object": lambda: PROVIDER.token(aud={"streams": 1}),
    "no audience": lambda: PROVIDER.token(without="aud"),
    "no expiry": lambda: PROVIDER.token(without="exp"),
    "expired": lambda: PROVIDER.token(iat=NOW - 700, exp=NOW - 60),
    "expired by more than the leeway": lambda: PROVIDER.token(exp=NOW - 6),
    "not valid yet": lambda: PROVIDER.token(nbf=NOW + 60),
    "issued in the future": lambda: PROVIDER.token(iat=NOW + 60, exp=NOW + 120),
    "valid for a year": lambda: PROVIDER.token(exp=NOW + 365 * 86_400),
    "valid for a year, without iat": lambda: PROVIDER.token(exp=NOW + 365 * 86_400, without="iat"),
    "exp is text": lambda: PROVIDER.token(exp=str(NOW + 600)),
    "exp is true": lambda: PROVIDER.token(exp=True),
    "exp is infinite": lambda: PROVIDER.token(payload=claims_text("").replace(b"\"exp\"", b"\"exp\": 1e400, \"y\"")),
    "exp is huge": lambda: PROVIDER.token(exp=10**400),
    "iat is null": lambda: PROVIDER.token(iat=None),
    "no subject": lambda: PROVIDER.token(without="sub"),
    "subject is empty": lambda: PROVIDER.token(sub=""),
    "subject is a number": lambda: PROVIDER.token(sub=1),
    "subject with a line end": lambda: PROVIDER.token(sub="user\n1"),
    "subject is long": lambda: PROVIDER.token(sub="u" * 300),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name: str) -> None:
    """Each with one sentence that does not quote the token."""
    token = ATTACKS[name]()
    with pytest.raises(InvalidIdentity) as caught:
        sign_in(token)

    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 160
    assert token[:20] not in str(caught.value)
    assert "user" not in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"header": {"typ": "at+jwt"}},
        {"header": {"typ": "application/at+JWT"}},
        {"header": {"typ": ...}},
        {"header": {"x5t": "AAAA", "jku": "https://login.example.com/keys"}},
        {"aud": ["billing", "streams"]},
        {"iat": NOW + 0.5, "exp": NOW + 600.5},
        {"nbf": NOW + 3},
        {"without": "iat"},
    ],
)
def test_what_providers_write_is_accepted(changes: dict[str, Any]) -> None:
    """Access tokens, several audiences, fractions of seconds, clocks that differ a little, and unused members."""
    assert sign_in(PROVIDER.token(**changes)).subject == "user-1"


def test_clocks_may_differ_a_little() -> None:
    """An expiry has the leeway that the settings give."""
    assert sign_in(PROVIDER.token(exp=NOW - 1), replace(RULES, leeway_s=60)).subject == "user-1"
    with pytest.raises(InvalidIdentity, match="has expired"):
        sign_in(PROVIDER.token(exp=NOW), replace(RULES, leeway_s=0))


def test_token_without_key_id_needs_the_only_key() -> None:
    """Where several keys could have signed it, none is tried."""
    token = fixed(p1=PROVIDER.keys["p1"]).token(header={"kid": ...})
    assert sign_in(token).subject == "user-1"
    several = fixed(p1=PROVIDER.keys["p1"], p4=private_key("RS256"))
    keys = KeySet.read(json.dumps(several.key_set()).encode(), RULES.algorithms)

    with pytest.raises(InvalidIdentity, match="signature is wrong"):
        sign_in(token, keys=keys)


# --- key sets --------------------------------------------------------------------------------------------------------


def jwk(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (PROVIDER.key_set()["keys"][2] | changes).items() if value is not ...}


@pytest.mark.parametrize(
    "key",
    [
        jwk(use="enc"),
        jwk(key_ops=["sign"]),
        jwk(key_ops="verify"),
        jwk(alg="ES384"),
        jwk(alg="HS256"),
        jwk(kty="oct", k="AAAA"),
        jwk(kty="RSA"),
        jwk(crv="P-384"),
        jwk(crv="secp256k1"),
        jwk(x="AAAA"),
        jwk(x=..., y=...),
        jwk(x=1),
        jwk(y=jwk()["x"]),
        jwk(d=jwk()["x"]),
        jwk(kid=7),
        jwk(kid="k" * 300),
        {"kty": "RSA", "kid": "p3", "n": "AQAB", "e": "AQAB"},
        {"kty": "OKP", "crv": "Ed448", "kid": "p3", "x": "AAAA"},
        {},
        "key",
    ],
)
def test_key_that_cannot_be_used_is_left_out(key: object) -> None:
    """Encryption, secrets, private halves, short ones, points off the curve: the other keys of the set still work."""
    found = KeySet.read(json.dumps({"keys": [key, PROVIDER.key_set()["keys"][1]]}).encode(), RULES.algorithms)

    assert len(found) == 1
    assert found.find("p2", "EdDSA")
    assert not found.find("p3", "ES256")


@pytest.mark.parametrize(
    "text", [b"", b"x", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}', b"\xff", b"<html>"]
)
def test_text_that_is_no_key_set_is_refused(text: bytes) -> None:
    """A page of an error, for instance: the keys that were known stay."""
    with pytest.raises(MalformedKeySet):
        KeySet.read(text, RULES.algorithms)


def test_many_keys_are_not_read() -> None:
    """A key set of ten thousand keys costs no more than one of a hundred."""
    keys = [jwk(kid=f"k{number}") for number in range(1000)]

    assert len(KeySet.read(json.dumps({"keys": keys}).encode(), RULES.algorithms)) == 100


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "claims", "games", "types"),
    [
        ({}, {"games": ["crash", "dice"]}, {"crash", "dice"}, set()),
        ({}, {"games": "crash dice,double"}, {"crash", "dice", "double"}, set()),
        ({}, {"games": ["*"]}, None, set()),
        ({}, {"games": [], "types": ["color"]}, set(), {"color"}),
        ({}, {"games": ["crash"], "types": "*"}, None, set()),
        ({}, {"games": ["crash", 1, None, "Dice", "../x", "a b", ""]}, {"crash"}, set()),
        ({}, {"games": {"crash": True}}, set(), set()),
        ({}, {"games": 1}, set(), set()),
        ({}, {"without": "games"}, set(), set()),
        ({"default_games": frozenset({"dice"})}, {"without": "games"}, {"dice"}, set()),
        ({"default_games": frozenset({"*"})}, {"without": "games"}, None, set()),
        ({"default_games": frozenset({"*"})}, {"games": []}, set(), set()),
        ({"games_claim": "scope", "games_prefix": "stream:"}, {"scope": "openid stream:crash admin"}, {"crash"}, set()),
        ({"games_claim": "scope", "games_prefix": "stream:"}, {"scope": "* stream:crash"}, {"crash"}, set()),
        ({"games_claim": "scope", "games_prefix": "stream:"}, {"scope": "stream:*"}, None, set()),
        ({"games_claim": "access.roles"}, {"access": {"roles": ["crash"]}}, {"crash"}, set()),
        ({"games_claim": "https://x.example/games"}, {"https://x.example/games": ["dice"]}, {"dice"}, set()),
        ({"games_claim": "access.roles"}, {"access": ["crash"]}, set(), set()),
        ({"types_claim": "scope", "types_prefix": "type:"}, {"games": [], "scope": "type:slots"}, set(), {"slots"}),
    ],
)
def test_claims_grant_games(
    rules: dict[str, Any], claims: dict[str, Any], games: set[str] | None, types: set[str]
) -> None:
    """Only what is plainly text counts; a claim of another type, or none, grants nothing."""
    found = sign_in(PROVIDER.token(**claims), replace(RULES, **rules))

    assert (found.games, found.types) == (None if games is None else frozenset(games), frozenset(types))


def test_limits_come_from_claims_over_defaults() -> None:
    """A limit that a claim does not have is the default one."""
    rules = replace(RULES, limits_claim="limits", default_limits=Limits(links=5, filters=3))

    assert sign_in(PROVIDER.token(), rules).limits == Limits(links=5, filters=3)
    given = sign_in(PROVIDER.token(limits={"links": 9, "links_per_s": 0.5, "other": "x"}), rules).limits
    assert given == Limits(links=9, links_per_s=0.5, filters=3)


@pytest.mark.parametrize(
    "limits",
    [
        [],
        "links",
        {"links": "9"},
        {"links": -1},
        {"links": 1.5},
        {"links": True},
        {"links": 10**400},
        {"links_per_s": float("1e308")},
    ],
)
def test_malformed_limits_are_refused(limits: object) -> None:
    """They could have been meant to be low."""
    with pytest.raises(InvalidIdentity, match="not an object of limits"):
        sign_in(PROVIDER.token(limits=limits), replace(RULES, limits_claim="limits"))


def test_subject_may_be_another_claim() -> None:
    """Such as the name of a customer."""
    assert sign_in(PROVIDER.token(customer="acme"), replace(RULES, subject_claim="customer")).subject == "acme"
