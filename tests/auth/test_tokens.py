"""A token is accepted for 30 seconds; forged, foreign, altered and expired tokens are refused."""

import base64
import json
import re
import time
from contextlib import suppress
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.grants import Grant
from auth.key import InvalidKeys, Key
from auth.tokens import AUDIENCE, ISSUER, LIFE_S, InvalidToken, TokenSigner

SECRET = "correct-horse-battery-staple-0123456789-long-enough-for-every-hash-there-is"
OTHER = "another-secret-of-some-other-installation"
NOW = 1_768_730_430.75
KEY = Key("partner", "private", frozenset({"crash", "dice"}))
CLAIMS: dict[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "partner",
    "kind": "private",
    "games": None,
    "origins": [],
    "iat": int(NOW),
    "exp": int(NOW) + LIFE_S,
    "jti": "x",
}


@pytest.fixture
def signer() -> TokenSigner:
    return TokenSigner.parse(f"k1:{SECRET}")


def forge(
    claims: dict[str, Any] | None = None,
    *,
    without: str = "",
    secret: str = SECRET,
    kid: object = "k1",
    alg: str = "HS256",
) -> str:
    """Make a token with the real secret and claims, except for the arguments, so that one thing is wrong."""
    payload = CLAIMS | (claims or {})
    payload.pop(without, None)
    return jwt.encode(payload, secret, alg, headers={"kid": kid} if kid is not None else None)


def segment(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def refused(signer: TokenSigner, token: str, *, now: float = NOW) -> str:
    with pytest.raises(InvalidToken) as caught:
        signer.verify(token, now=now)
    sentence = str(caught.value)
    assert len(sentence) < 150
    assert len(token) < 10 or token not in sentence
    assert caught.value.__cause__ is None  # pyjwt's error may quote the token
    return sentence


# --- good tokens ---------------------------------------------------------------------------------------------------


def test_forged_token_without_a_change_is_accepted(signer: TokenSigner) -> None:
    """Otherwise the refusals in these tests would prove nothing."""
    assert signer.verify(forge(), now=NOW) == Grant("partner", "private", None, frozenset())


@given(
    st.builds(
        Key,
        st.from_regex(r"\A[A-Za-z0-9._-]{1,64}\Z"),
        st.sampled_from(["private", "public"]),
        st.none() | st.frozensets(st.from_regex(r"\A[a-z0-9-]{1,64}\Z")),
        st.frozensets(st.text(max_size=40)),
    )
)
def test_token_grants_exactly_what_its_key_does(key: Key) -> None:
    """Id, kind, games and origins are equal; an empty set of games does not become all games."""
    signer = TokenSigner.ephemeral()
    token, _ = signer.issue(key)

    assert signer.verify(token) == Grant.of(key) == Grant(key.id, key.kind, key.games, key.allowed_origins)


def test_token_has_every_registered_claim(signer: TokenSigner) -> None:
    """The claims are complete, and expires_at is the same time as exp."""
    token, expires_at = signer.issue(KEY, now=NOW)
    claims = jwt.decode(token, options={"verify_signature": False})

    assert expires_at == "2026-01-18T10:01:00Z"
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("stream-relay", "stream", "partner")
    assert (claims["iat"], claims["exp"]) == (1768730430, 1768730460)
    assert jwt.get_unverified_header(token) == {"alg": "HS256", "kid": "k1", "typ": "JWT"}


def test_two_tokens_of_one_key_and_second_differ(signer: TokenSigner) -> None:
    """Each has its own id, so that an audit can name one."""
    assert signer.issue(KEY, now=NOW) != signer.issue(KEY, now=NOW)


def test_token_is_a_valid_subprotocol(signer: TokenSigner) -> None:
    """RFC 6455 requires a token as RFC 2616 defines it; browsers raise an error for any other value."""
    assert re.fullmatch(r"[A-Za-z0-9._-]+", signer.issue(KEY)[0])


def test_clock_of_this_process_is_used_when_none_is_given(signer: TokenSigner) -> None:
    """A token issued now is valid now; one of a minute ago is not."""
    assert signer.verify(signer.issue(KEY)[0]).key_id == "partner"
    assert "expired" in refused(signer, signer.issue(KEY, now=time.time() - 60)[0], now=time.time())


# --- time ----------------------------------------------------------------------------------------------------------


def test_token_is_valid_until_exp_and_not_longer(signer: TokenSigner) -> None:
    """Expiry has no leeway: a token is expired at exp (RFC 7519 section 4.1.4)."""
    token, _ = signer.issue(KEY, now=NOW)
    expires = int(NOW) + LIFE_S

    assert signer.verify(token, now=expires - 0.001).key_id == "partner"
    assert "has expired" in refused(signer, token, now=expires)
    assert "has expired" in refused(signer, token, now=expires + 1)


def test_clock_of_the_issuing_relay_may_be_a_little_ahead_but_not_much(signer: TokenSigner) -> None:
    """5 seconds of skew are accepted; a token issued further ahead would be valid for too long."""
    token, _ = signer.issue(KEY, now=NOW)

    assert signer.verify(token, now=NOW - 5).key_id == "partner"
    assert "in the future" in refused(signer, token, now=NOW - 6)


# --- attacks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alg", ["none", "None", "NONE", ""])
@pytest.mark.parametrize("signature", ["", "AAAA"])
def test_unsigned_token_is_refused(signer: TokenSigner, alg: str, signature: str) -> None:
    """``alg=none`` in any spelling, with or without a signature (RFC 8725 section 2.1)."""
    token = f"{segment({'alg': alg, 'kid': 'k1'})}.{segment(CLAIMS)}.{signature}"

    assert "algorithm is not allowed" in refused(signer, token)


@pytest.mark.parametrize("alg", ["HS384", "HS512"])
def test_other_algorithm_with_the_right_secret_is_refused(signer: TokenSigner, alg: str) -> None:
    """The relay chooses the algorithm, not the token."""
    assert "only HS256" in refused(signer, forge(alg=alg))


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA", "PS256", "hs256", "HS256\x00", ["HS256"], 1, None, {}])
def test_algorithm_that_the_header_asks_for_is_never_followed(signer: TokenSigner, alg: object) -> None:
    """With RS256 and similar algorithms, an attacker could use a public key as the secret."""
    good = forge()
    _, payload, signature = good.split(".")

    sentence = refused(signer, f"{segment({'alg': alg, 'kid': 'k1'})}.{payload}.{signature}")
    assert "algorithm" in sentence or "malformed" in sentence


@pytest.mark.parametrize(
    "kid",
    ["k2", "", "../../../../dev/null", "/dev/null", "k1\x00", "' OR 1=1 --", "http://evil.example/k", "K1", "k" * 5000],
)
def test_unknown_key_id_is_refused(signer: TokenSigner, kid: str) -> None:
    """A key id is looked up among the configured secrets only, never in a file, database or URL."""
    assert "signing key is unknown" in refused(signer, forge(kid=kid))


@pytest.mark.parametrize("kid", [None, 1, True, ["k1"], {"k1": 1}])
def test_key_id_that_is_not_text_is_refused(signer: TokenSigner, kid: object) -> None:
    """Any other JSON value is malformed."""
    assert "malformed" in refused(signer, f"{segment({'alg': 'HS256', 'kid': kid})}.{segment(CLAIMS)}.AAAA")


def test_token_without_key_id_is_refused(signer: TokenSigner) -> None:
    """Even with the right secret, a token must name the secret that signed it."""
    assert "signing key is unknown" in refused(signer, forge(kid=None))


def test_key_in_the_header_of_the_token_is_ignored(signer: TokenSigner) -> None:
    """``jwk`` and ``jku`` headers would let an attacker choose the key (RFC 8725 section 3.10)."""
    headers = {"kid": "k1", "jwk": {"kty": "oct", "k": segment("x")}, "jku": "http://127.0.0.1:1/jwks"}
    token = jwt.encode(CLAIMS, OTHER, "HS256", headers=headers)

    assert "signature is wrong" in refused(signer, token)


def test_other_installations_signature_is_refused(signer: TokenSigner) -> None:
    """The key id is the same, the secret is another."""
    assert "signature is wrong" in refused(signer, forge(secret=OTHER))


def test_payload_altered_under_its_signature_is_refused(signer: TokenSigner) -> None:
    """A client cannot change its games or extend its token."""
    header, _, signature = forge().split(".")

    assert "signature is wrong" in refused(signer, f"{header}.{segment(CLAIMS | {'sub': 'boss'})}.{signature}")


@pytest.mark.parametrize("audience", ["other", "Stream", ["other"], "stream "])
def test_token_for_another_audience_is_refused(signer: TokenSigner, audience: object) -> None:
    """A token that the same secret signed for another purpose opens no stream."""
    assert "another audience" in refused(signer, forge({"aud": audience}))


def test_token_for_several_audiences_is_refused(signer: TokenSigner) -> None:
    """The relay issues tokens for one audience only."""
    assert "claims" in refused(signer, forge({"aud": ["stream", "other"]}))


def test_token_of_another_issuer_is_refused(signer: TokenSigner) -> None:
    """An identity provider that has the same secret by mistake is not a valid issuer."""
    assert "another issuer" in refused(signer, forge({"iss": "idp"}))


@pytest.mark.parametrize("claim", sorted(CLAIMS))
def test_token_that_lacks_a_claim_is_refused(signer: TokenSigner, claim: str) -> None:
    """A missing expiry is not unlimited validity, and missing games are not all games."""
    assert refused(signer, forge(without=claim))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": "9999999999"},
        {"exp": 1e300},
        {"iat": None},
        {"games": "crash"},
        {"games": [1]},
        {"kind": "admin"},
        {"sub": 7},
        {"origins": None},
    ],
)
def test_claim_of_another_type_is_refused(signer: TokenSigner, claims: dict[str, Any]) -> None:
    """A token with a valid signature, for instance of a later version, is refused when it is not understood."""
    try:
        token = forge(claims)
    except TypeError:  # pyjwt refuses to encode it
        token = jwt.api_jws.PyJWS().encode(json.dumps(CLAIMS | claims).encode(), SECRET, headers={"kid": "k1"})

    assert refused(signer, token)


def test_api_key_in_place_of_a_token_is_refused_with_the_token_endpoint(signer: TokenSigner) -> None:
    """The most common mistake of new users has its own sentence."""
    assert "POST /api/auth/token" in refused(signer, "sk_live_" + "ab" * 32)


@pytest.mark.parametrize(
    "token",
    [
        *("", ".", "..", "...", "a", "a.b.c", " a.b.c ", "=.=.=", "eyJhbGciOiJIUzI1NiJ9", "eyJ\x00.a.b"),
        *("é.é.é", "\udcff.\udcff.x", "e30.e30.e30", "W10.W10.W10", "bnVsbA.bnVsbA.bnVsbA"),
        *("a" * 1_000_000, "." * 1_000_000, "[" * 2000, f"{segment('[' * 5000)}.e30.e30"),
        base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.e30",
    ],
)
def test_garbage_is_refused(signer: TokenSigner, token: str) -> None:
    """Blank, not ASCII, not JSON, deeply nested, or a megabyte long."""
    assert refused(signer, token)


def test_megabyte_token_with_a_good_signature_is_refused(signer: TokenSigner) -> None:
    """The length is checked before decoding and hashing."""
    assert "malformed" in refused(signer, forge({"jti": "x" * 1_000_000}))


@given(st.text() | st.from_regex(r"\A[\w-]*\.[\w-]*\.[\w-]*\Z"))
def test_any_text_is_refused(token: str) -> None:
    """No text raises an error other than `InvalidToken`."""
    with pytest.raises(InvalidToken):
        TokenSigner.ephemeral().verify(token)


@given(st.data())
def test_token_with_one_changed_character_is_refused(data: st.DataObject) -> None:
    """The check covers header, payload and signature."""
    signer = TokenSigner.parse(f"k1:{SECRET}")
    token = forge()
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from("ABCxyz019-_.=").filter(lambda letter: letter != token[place]))

    refused(signer, token[:place] + other + token[place + 1 :])


# --- secrets -------------------------------------------------------------------------------------------------------


def test_rotation_keeps_old_tokens_valid_until_the_old_secret_is_removed() -> None:
    """Add the new secret second, move it to the front, remove the old one: no token fails in between."""
    old = TokenSigner.parse(f"old:{SECRET}")
    prepared = TokenSigner.parse(f"old:{SECRET},new:{OTHER}")
    switched = TokenSigner.parse(f"new:{OTHER},old:{SECRET}")
    done = TokenSigner.parse(f"new:{OTHER}")

    for issuer, verifiers in ((old, (prepared,)), (prepared, (old, switched)), (switched, (prepared, done))):
        for verifier in verifiers:
            assert verifier.verify(issuer.issue(KEY, now=NOW)[0], now=NOW).key_id == "partner"
    assert "signing key is unknown" in refused(done, old.issue(KEY, now=NOW)[0])


@pytest.mark.parametrize(
    "text",
    [
        f"k1:{SECRET}\n",
        f"k1:{SECRET}\nk2:{OTHER}\n",
        f"# made in May\nk1:{SECRET},\n\n  # the next one\r\n  k2:{OTHER}\r\n",
        f"k1:{SECRET},k2:{OTHER}\n",
        f"#\nk1:{SECRET}",
    ],
)
def test_file_of_secrets_has_one_on_each_line(text: str) -> None:
    """Or several, separated by commas as in the environment; lines may be comments, and empty."""
    assert TokenSigner.parse(text).verify(forge(), now=NOW).key_id == "partner"
    assert TokenSigner.parse(text).keys.signing_id == "k1"


def test_two_ephemeral_signers_do_not_know_each_other() -> None:
    """Each process has its own secret under the same key id."""
    assert "signature is wrong" in refused(TokenSigner.ephemeral(), TokenSigner.ephemeral().issue(KEY)[0])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "entry 1 is not id:secret"),
        (SECRET, "entry 1 is not id:secret"),
        (f"k1:{SECRET},", "entry 2 is not id:secret"),
        (f"k 1:{SECRET}", "entry 1 is not id:secret"),
        (f":{SECRET}", "entry 1 is not id:secret"),
        (f"k1:{SECRET[:31]}", "has 31 bytes; it must have at least 32; make one with: openssl rand -hex 32"),
        (f"k1:{SECRET},k1:{OTHER}", "id of entry 2 is repeated"),
        (f"k1:-----BEGIN PUBLIC KEY-----{SECRET}-----END PUBLIC KEY-----", "certificate or an asymmetric key"),
        (f"k1:ssh-rsa {SECRET}", "certificate or an asymmetric key"),
    ],
)
def test_mistake_in_the_secrets_has_its_sentence(text: str, says: str) -> None:
    """The sentence has the number of the entry, since its text may be the secret."""
    with pytest.raises(InvalidKeys) as caught:
        TokenSigner.parse(text)

    assert says in str(caught.value)
    assert SECRET[:20] not in str(caught.value)


@given(st.text())
def test_any_text_is_secrets_or_refused(text: str) -> None:
    """No text raises an error other than `InvalidKeys`."""
    with suppress(InvalidKeys):
        TokenSigner.parse(text)


def test_secret_of_bytes_that_are_not_utf8_is_usable() -> None:
    """Environment variables are bytes; Python decodes bytes that are not UTF-8 as surrogates."""
    signer = TokenSigner.parse("k1:" + "".join(chr(0xDC80 + number * 37 % 128) for number in range(40)))

    assert signer.verify(signer.issue(KEY, now=NOW)[0], now=NOW).key_id == "partner"


def test_signer_shows_ids_and_no_secret() -> None:
    """repr and str can be logged."""
    signer = TokenSigner.parse(f"k1:{SECRET},k2:{OTHER}")

    assert repr(signer) == str(signer) == "<TokenSigner signing with 'k1', verifying ['k1', 'k2']>"
