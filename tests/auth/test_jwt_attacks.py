"""Attacks on JWTs that advisories and RFC 8725 describe, against stream tokens: none is accepted.

Each token is a good one, signed with the real key where an attacker could have it signed, with one thing changed.
"""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from auth.credentials import Presented, authorize
from auth.key import InvalidKeys, Key
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.signing.algorithms import SharedSecret
from auth.signing.compact import encoded, read_compact, read_object
from auth.signing.signing_keys import SigningKeys, read_pem
from auth.tokens import LIFE_S, InvalidToken, TokenSigner

SECRET: Final = bytes.fromhex("9d1f6a03c2b84e57a0d9f31286ce47b518f3a7620c5de94b7d06e2a1f95c83b4")
NOW: Final = 1_768_730_430
CLAIMS: Final[dict[str, Any]] = {
    "iss": "stream-relay", "aud": "stream", "sub": "partner", "kind": "private", "games": None, "origins": [],
    "iat": NOW, "exp": NOW + LIFE_S, "jti": "x",
}  # fmt: skip
SHARED: Final = SharedSecret(SECRET)
HEADER: Final = {"alg": "HS256", "kid": "k1", "typ": "JWT"}

PrivateKeys = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def pem_of(key: PrivateKeys) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def public_pem_of(key: PrivateKeys) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


KEYS: Final[dict[str, PrivateKeys]] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    "RS256": rsa.generate_private_key(65537, 2048),
}
SIGNERS: Final = {
    name: TokenSigner(SigningKeys.of([("a1", read_pem("a1", pem_of(key)))])) for name, key in KEYS.items()
}
SIGNER: Final = TokenSigner({"k1": SECRET})


def text(value: object) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def token_of(
    header: object = HEADER,
    payload: object = CLAIMS,
    *,
    sign: Callable[[bytes], bytes] = SHARED.sign,
) -> str:
    """Make a token of a header and a payload, as values or as the very bytes, with a good signature."""
    signed = encoded(text(header)) + b"." + encoded(text(payload))
    return (signed + b"." + encoded(sign(signed))).decode()


def with_text(value: dict[str, Any], addition: str) -> bytes:
    """Return an object as JSON, with the text of more members at its end."""
    return json.dumps(value)[:-1].encode() + addition.encode() + b"}"


def test_token_without_a_change_is_accepted() -> None:
    """Otherwise the refusals below would prove nothing."""
    assert SIGNER.verify(token_of(), now=NOW).key_id == "partner"
    for name, signer in SIGNERS.items():
        made, _ = signer.issue(Key("partner", "private"), now=NOW)
        assert signer.verify(made, now=NOW).key_id == "partner"
        assert read_compact(made, longest=8192).header == {"alg": name, "kid": "a1", "typ": "JWT"}


def stripped() -> str:
    return token_of().rpartition(".")[0] + "."


def unpadded(token: str) -> str:
    """Change bits of the signature's last character that no byte has: the same signature in another spelling."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


ALGORITHMS: Final[tuple[object, ...]] = (
    *("none", "None", "nOnE", "NONE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256", None, 1, ["HS256"]),
)
ATTACKS: Final[dict[str, Callable[[], str]]] = {
    # --- the header chooses the algorithm: CVE-2015-9235, CVE-2016-10555, CVE-2022-29217, CVE-2024-54150
    **{
        f"alg {alg!r}": lambda alg=alg: token_of({**HEADER, "alg": alg})  # type: ignore[misc]
        for alg in ALGORITHMS
    },
    "no alg": lambda: token_of({"kid": "k1", "typ": "JWT"}),
    "unsigned": lambda: token_of({**HEADER, "alg": "none"}, sign=lambda _: b""),
    "signature stripped": stripped,
    "signature stripped with its dot": lambda: token_of().rpartition(".")[0],
    "signature of another payload": lambda: (
        f"{token_of(payload={**CLAIMS, 'sub': 'boss'}).rpartition('.')[0]}.{token_of().rpartition('.')[2]}"
    ),
    "half a signature": lambda: token_of(sign=lambda signed: SHARED.sign(signed)[:16]),
    "signature and more": lambda: token_of(sign=lambda signed: SHARED.sign(signed) + b"\0"),
    "empty secret": lambda: token_of(sign=lambda signed: hmac.digest(b"", signed, "sha256")),
    "HMAC with another hash": lambda: token_of(sign=lambda signed: hmac.digest(SECRET, signed, "sha512")),
    "plain hash": lambda: token_of(sign=lambda signed: hashlib.sha256(SECRET + signed).digest()),
    # --- the header brings or names its own key: CVE-2018-0114, RFC 8725 section 3.10
    **{
        f"header {name}": lambda name=name, value=value: token_of({**HEADER, name: value})  # type: ignore[misc]
        for name, value in {
            "jwk": {"kty": "oct", "k": "AAAA"},
            "jku": "http://127.0.0.1:1/jwks.json",
            "x5u": "http://127.0.0.1:1/x.pem",
            "x5c": ["MIIB"],
            "x5t": "AAAA",
            "b64": False,
            "zip": "DEF",
            "cty": "JWT",
            "enc": "A128GCM",
        }.items()
    },
    "kid is a path": lambda: token_of({**HEADER, "kid": "/dev/null"}, sign=lambda s: hmac.digest(b"", s, "sha256")),
    "kid is SQL": lambda: token_of({**HEADER, "kid": "x' UNION SELECT 'k1"}),
    "kid is empty": lambda: token_of({**HEADER, "kid": ""}),
    "kid of another case": lambda: token_of({**HEADER, "kid": "K1"}),
    "kid in other letters": lambda: token_of({**HEADER, "kid": "\uff4b1"}),
    "no kid": lambda: token_of({"alg": "HS256", "typ": "JWT"}),
    # --- members that a reader must understand: CVE-2026-32597 and RFC 7515 section 4.1.11
    "crit": lambda: token_of({**HEADER, "crit": ["exp"]}),
    "crit of b64": lambda: token_of({**HEADER, "crit": ["b64"], "b64": False}),
    "crit is empty": lambda: token_of({**HEADER, "crit": []}),
    "crit is unknown": lambda: token_of({**HEADER, "crit": ["x"], "x": 1}),
    # --- a token of another kind: RFC 8725 section 3.11
    **{
        f"typ {typ!r}": lambda typ=typ: token_of({**HEADER, "typ": typ})  # type: ignore[misc]
        for typ in ("at+jwt", "jwt", "JOSE", "dpop+jwt", "logout+jwt", "secevent+jwt", "", None, 1, ["JWT"])
    },
    "no typ": lambda: token_of({"alg": "HS256", "kid": "k1"}),
    # --- the same thing said twice: RFC 8725 section 2.4
    "alg twice": lambda: token_of(with_text({"alg": "none", **HEADER}, ',"alg":"HS256"')),
    "kid twice": lambda: token_of(with_text(HEADER, ',"kid":"k1"')),
    "exp twice": lambda: token_of(payload=with_text(CLAIMS, f',"exp":{NOW + LIFE_S}')),
    "games twice": lambda: token_of(payload=with_text({**CLAIMS, "games": ["crash"]}, ',"games":null')),
    "sub twice, escaped": lambda: token_of(payload=with_text(CLAIMS, ',"\\u0073ub":"boss"')),
    "limits twice inside": lambda: token_of(payload=with_text(CLAIMS, ',"limits":{"links":1,"links":null}')),
    # --- other spellings of a token: malleability, and parsers that skip characters
    "padding": lambda: token_of() + "=",
    "signature in another spelling": lambda: unpadded(token_of()),
    "base64 of another alphabet": lambda: token_of().replace("-", "+").replace("_", "/") + "/",
    "line end": lambda: token_of() + "\n",
    "blank in it": lambda: token_of().replace(".", ". ", 1),
    "character that is skipped": lambda: token_of()[:10] + "!" + token_of()[10:],
    "four parts": lambda: token_of() + ".x",
    "encrypted form": lambda: ".".join(["eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0", "", "AAAA", "AAAA", "AAAA"]),
    "JSON form": lambda: json.dumps({"payload": token_of().split(".")[1], "signature": token_of().split(".")[2]}),
    "full-width dot": lambda: token_of().replace(".", "\uff0e"),
    "letters of another script": lambda: token_of().replace("e", "\u0435", 1),
    # --- what a payload may be
    "payload is a list": lambda: token_of(payload=[CLAIMS]),
    "payload is text": lambda: token_of(payload="x"),
    "payload is null": lambda: token_of(payload=b"null"),
    "payload is empty": lambda: token_of(payload=b""),
    "payload is not UTF-8": lambda: token_of(payload=b'{"a":"\xff"}'),
    "payload in UTF-16": lambda: token_of(payload=json.dumps(CLAIMS).encode("utf-16")),
    "payload with a mark in front": lambda: token_of(payload=b"\xef\xbb\xbf" + text(CLAIMS)),
    "payload with more after it": lambda: token_of(payload=text(CLAIMS) + b"{}"),
    "token in a token": lambda: token_of({**HEADER, "cty": "JWT"}, token_of().encode()),
    "nested deeply": lambda: token_of(payload=b'{"x":' + b"[" * 2000 + b"]" * 2000 + b"}"),
    "huge number": lambda: token_of(payload=with_text(CLAIMS, f',"n":{"9" * 5000}')),
    "NaN": lambda: token_of(payload=with_text({**CLAIMS, "nbf": 0}, ',"x":NaN')),
    "header is a list": lambda: token_of([HEADER]),
    "over 8 KB": lambda: token_of(payload={**CLAIMS, "x": "x" * 8000}),
    # --- for how long, for whom, from whom
    "expired": lambda: token_of(payload={**CLAIMS, "iat": NOW - 60, "exp": NOW - 30}),
    "expires now": lambda: token_of(payload={**CLAIMS, "iat": NOW - 30, "exp": NOW}),
    "lives an hour": lambda: token_of(payload={**CLAIMS, "exp": NOW + 3600}),
    "lives longer than the leeway": lambda: token_of(payload={**CLAIMS, "exp": NOW + LIFE_S + 6}),
    "backdated to live longer": lambda: token_of(payload={**CLAIMS, "iat": NOW - 3600, "exp": NOW + 29}),
    "ends before it begins": lambda: token_of(payload={**CLAIMS, "iat": NOW + 4, "exp": NOW + 2}),
    "issued in the future": lambda: token_of(payload={**CLAIMS, "iat": NOW + 6, "exp": NOW + 36}),
    "not valid yet": lambda: token_of(payload={**CLAIMS, "nbf": NOW + 6}),
    **{
        f"{name} {value!r}": lambda name=name, value=value: token_of(payload={**CLAIMS, name: value})  # type: ignore[misc]
        for name, value in [
            ("exp", True), ("exp", str(NOW + 30)), ("exp", None), ("exp", 1e300), ("exp", 2**70), ("exp", -1),
            ("iat", "0"), ("iat", True), ("iat", -(2**70)), ("nbf", "0"), ("nbf", True), ("nbf", 2**70),
            ("aud", "Stream"), ("aud", ["stream"]), ("aud", ["x", "stream"]), ("aud", {"stream": 1}), ("aud", None),
            ("iss", "stream-relay "), ("iss", ["stream-relay"]), ("iss", None), ("iss", "https://idp.example"),
            ("sub", None), ("sub", 1), ("sub", ["partner"]), ("kind", "admin"), ("games", "crash"), ("games", [None]),
            ("games", {}), ("jti", 1), ("whole", "yes"), ("whole", 1), ("limits", {"links": "many"}), ("secret", 1),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused(name: str) -> None:
    """Each with one sentence that does not quote the token."""
    token = ATTACKS[name]()
    with pytest.raises(InvalidToken) as caught:
        SIGNER.verify(token, now=NOW)

    assert caught.value.__cause__ is None
    assert len(str(caught.value)) < 150
    assert token[:20] not in str(caught.value)


@pytest.mark.parametrize("algorithm", SIGNERS)
@pytest.mark.parametrize("claimed", ["HS256", "HS384", "HS512"])
def test_public_key_is_no_shared_secret(algorithm: str, claimed: str) -> None:
    """The classic: our public key, which everybody has, as the secret of HMAC. CVE-2015-9235, CVE-2022-29217."""
    header = {"alg": claimed, "kid": "a1", "typ": "JWT"}
    public = KEYS[algorithm].public_key()
    spellings = [
        public_pem_of(KEYS[algorithm]),
        public_pem_of(KEYS[algorithm]).strip(),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        json.dumps(SIGNERS[algorithm].keys.public()[0]).encode(),
    ]
    for secret in spellings:
        forged = token_of(header, sign=lambda signed, secret=secret: hmac.digest(secret, signed, "sha256"))  # type: ignore[misc]
        with pytest.raises(InvalidToken, match="algorithm is not allowed"):
            SIGNERS[algorithm].verify(forged, now=NOW)


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_signatures_that_a_broken_check_accepts_are_refused(algorithm: str) -> None:
    """CVE-2022-21449 (r = s = 0), other degenerate values, and lengths that no signature has."""
    header = {"alg": algorithm, "kid": "a1", "typ": "JWT"}
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    halves = [0, 1, order - 1, order, order + 1, 2**256 - 1]
    signatures = [r.to_bytes(32) + s.to_bytes(32) for r in halves for s in halves]
    signatures += [b"", b"\0", b"\0" * 63, b"\0" * 65, b"\0" * 256, b"\xff" * 256, b"\x30\x06\x02\x01\x00\x02\x01\x00"]
    for signature in signatures:
        with pytest.raises(InvalidToken, match="signature is wrong"):
            SIGNERS[algorithm].verify(token_of(header, sign=lambda _, signature=signature: signature), now=NOW)  # type: ignore[misc]


@pytest.mark.parametrize("algorithm", SIGNERS)
@pytest.mark.parametrize("claimed", ["none", "ES256", "EdDSA", "RS256", "PS256", "ES384", "RS512"])
def test_key_verifies_by_one_algorithm(algorithm: str, claimed: str) -> None:
    """The header of a token cannot select another one for the same key."""
    if claimed == algorithm:
        return
    good, _ = SIGNERS[algorithm].issue(Key("partner", "private"), now=NOW)
    _, payload, signature = good.split(".")
    header = encoded(text({"alg": claimed, "kid": "a1", "typ": "JWT"})).decode()

    with pytest.raises(InvalidToken, match=f"only {algorithm} is"):
        SIGNERS[algorithm].verify(f"{header}.{payload}.{signature}", now=NOW)


# --- clocks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew_s", [-29, -15, -5, 0, 5])
def test_relay_whose_clock_differs_accepts_tokens(skew_s: int) -> None:
    """A clock that is ahead shortens a token's life; one that is behind by up to 5 s does not matter."""
    token, _ = SIGNER.issue(Key("partner", "private"), now=NOW)

    assert SIGNER.verify(token, now=NOW - skew_s).key_id == "partner"


@pytest.mark.parametrize("skew_s", [-31, -30, 6, 60, 3600])
def test_relay_whose_clock_differs_too_much_refuses_tokens(skew_s: int) -> None:
    """Neither is prolonged: a token that is expired by any clock, or comes from a future that is too far."""
    token, _ = SIGNER.issue(Key("partner", "private"), now=NOW)

    with pytest.raises(InvalidToken, match="expired" if skew_s < 0 else "in the future"):
        SIGNER.verify(token, now=NOW - skew_s)


# --- the key of a token ----------------------------------------------------------------------------------------------

PRIVATE, _HASH = generate("private")
PARTNER: Final = Key("partner", "private", secrets=(stored(PRIVATE),))


def grant(keys: KeyRing, token: str, origin: str | None = None) -> Any:
    return authorize(Presented("token", token), keys, SIGNER, origin=origin)


def test_token_ends_with_its_key() -> None:
    """Deleted, disabled, expired, of another kind: the token says nothing about that, its key does."""
    keys = KeyRing([PARTNER])
    token, _ = SIGNER.issue(PARTNER)
    assert grant(keys, token).key_id == "partner"

    for changed in (
        None,
        Key("partner", "private", disabled=True),
        Key("partner", "private", expires_at=time.time() - 1),
        Key("partner", "public", allowed_origins=frozenset({"*"})),
    ):
        keys.change({"partner": changed})
        with pytest.raises(InvalidToken, match="key is not in use any more"):
            grant(keys, token)
        keys.change({"partner": PARTNER})
        assert grant(keys, token).key_id == "partner"


def test_token_ends_with_the_secret_it_was_made_with() -> None:
    """After a rotation, the old secret is valid for a while; so are its tokens, and not longer."""
    other = stored(generate("private")[0])
    token, _ = SIGNER.issue(PARTNER, secret_id=PARTNER.secrets[0].id)
    old = PARTNER.secrets[0]

    overlapping = type(old)(old.digest, expires_at=time.time() + 60)
    assert grant(KeyRing([Key("partner", "private", secrets=(other, overlapping))]), token).secret_id == old.id
    expired = type(old)(old.digest, expires_at=time.time() - 1)
    for secrets in ((other, expired), (other,), ()):
        with pytest.raises(InvalidToken, match="key is not in use any more"):
            grant(KeyRing([Key("partner", "private", secrets=secrets)]), token)


def test_token_grants_what_its_key_allows_now() -> None:
    """Games, origins and limits come from the key; a token narrows its key and never widens it."""
    dice = frozenset({"dice"})
    whole, _ = SIGNER.issue(PARTNER)
    both, _ = SIGNER.issue(PARTNER, games=["crash", "dice"])
    narrow = KeyRing([Key("partner", "private", dice, secrets=PARTNER.secrets)])

    assert grant(KeyRing([PARTNER]), whole).games is None
    assert grant(KeyRing([PARTNER]), both).games == {"crash", "dice"}
    assert grant(narrow, whole).games == dice
    assert grant(narrow, both).games == dice
    origin = frozenset({"https://a.example"})
    token, _ = SIGNER.issue(Key("web", "public", allowed_origins=frozenset({"*"})))
    assert (
        grant(KeyRing([Key("web", "public", allowed_origins=origin)]), token, "https://a.example").allowed_origins
        == origin
    )


def test_token_of_a_key_with_many_games_is_short() -> None:
    """It does not list them: a header line has 8 KB. An older relay grants nothing for it, not everything."""
    games = frozenset(f"some-game-with-a-long-name-{number}" for number in range(500))
    key = Key("partner", "private", games, allowed_origins=frozenset(f"https://{n}.example" for n in range(500)))
    token, _ = SIGNER.issue(key)

    assert len(token) < 600
    assert read_object(read_compact(token, longest=600).payload)["games"] == []
    assert grant(KeyRing([key]), token).games == games


def test_token_of_an_older_relay_is_accepted() -> None:
    """During a deploy both make tokens, and the older ones have none of the newer claims."""
    assert grant(
        KeyRing([PARTNER]), token_of(payload={**CLAIMS, "iat": int(time.time()), "exp": int(time.time()) + LIFE_S})
    )


# --- keys in files ---------------------------------------------------------------------------------------------------


def test_public_keys_have_no_private_member() -> None:
    """Neither a secret nor the private half of a key is ever published."""
    keys = [(name, read_pem(name, pem_of(key))) for name, key in KEYS.items()]
    published = SigningKeys.of([("k1", SharedSecret(SECRET)), *keys]).public()

    assert [(key["kid"], key["alg"], key["use"]) for key in published] == [(name, name, "sig") for name in KEYS]
    assert {name for key in published for name in key} == {"kty", "crv", "x", "y", "n", "e", "kid", "alg", "use"}


@pytest.mark.parametrize(
    ("pem", "says"),
    [
        (b"", "not an unencrypted key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "not an unencrypted key"),
        (pem_of(ec.generate_private_key(ec.SECP384R1())), "not an unencrypted key"),
        (pem_of(ec.generate_private_key(ec.SECP256K1())), "not an unencrypted key"),
        (pem_of(rsa.generate_private_key(65537, 1024)), "an RSA key of 1024 bits is not accepted"),  # noqa: S505
    ],
)
def test_unusable_key_has_its_sentence(pem: bytes, says: str) -> None:
    """With the id of the key, and nothing of its text."""
    with pytest.raises(InvalidKeys) as caught:
        read_pem("a1", pem)

    assert str(caught.value).startswith("token key 'a1' is not usable: ")
    assert says in str(caught.value)


def test_public_key_in_a_file_verifies_and_does_not_sign() -> None:
    """A relay may verify the tokens of others without being able to make any."""
    made, _ = SIGNERS["ES256"].issue(Key("partner", "private"), now=NOW)
    public = read_pem("a1", public_pem_of(KEYS["ES256"]))

    with pytest.raises(InvalidKeys, match="is public, so it cannot sign"):
        SigningKeys.of([("a1", public)])
    both = TokenSigner(SigningKeys.of([("k1", SharedSecret(SECRET)), ("a1", public)]))
    assert both.verify(made, now=NOW).key_id == "partner"
