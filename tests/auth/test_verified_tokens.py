"""A token that was verified is accepted again without its signature being checked, and in no other case than before."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from auth.credentials import NotAllowedOrigin, Presented, authorize
from auth.grants import Grant
from auth.key import Key, StoredSecret
from auth.key_ring import KeyRing
from auth.key_secret import digest_of, generate
from auth.revocations import Revocation, Revocations
from auth.signing.algorithms import SharedSecret
from auth.signing.signing_keys import SigningKeys
from auth.tokens import InvalidToken, TokenSigner
from auth.verified_tokens import VerifiedToken, VerifiedTokens

NOW = 1_768_730_430.0
SECRET, _ = generate("private")
KEY = Key("k", "private", games=frozenset({"crash", "dice"}), secrets=(StoredSecret(digest_of(SECRET)),))


class Counting(SharedSecret):
    """Counts how often a signature is checked."""

    checks = 0

    def verify(self, signed: bytes, signature: bytes) -> bool:
        self.checks += 1
        return super().verify(signed, signature)


@pytest.fixture
def secret() -> Counting:
    return Counting(b"s" * 32)


@pytest.fixture
def signer(secret: Counting) -> TokenSigner:
    return TokenSigner(SigningKeys("a", {"a": secret}))


def test_signature_is_checked_once(signer: TokenSigner, secret: Counting) -> None:
    """And what the token says is the same each time, up to its expiry."""
    token, _ = signer.issue(KEY, games=["dice"], now=NOW)
    first = signer.verify(token, now=NOW)
    assert signer.verify(token, now=NOW + 29.9) == first
    assert first.games == frozenset({"dice"})
    assert secret.checks == 1
    with pytest.raises(InvalidToken, match="expired"):
        signer.verify(token, now=NOW + 30)
    with pytest.raises(InvalidToken, match="in the future"):  # the clock was set back
        signer.verify(token, now=NOW - 6)


def test_altered_token_is_not_the_one_that_is_known(signer: TokenSigner) -> None:
    token, _ = signer.issue(KEY, now=NOW)
    signer.verify(token, now=NOW)
    for altered in (token[:-2] + ("AA" if token[-2:] != "AA" else "BA"), f"{token}A", token[1:], token.upper()):
        with pytest.raises(InvalidToken):
            signer.verify(altered, now=NOW)


def test_refused_tokens_are_not_remembered(signer: TokenSigner, secret: Counting) -> None:
    """However often they come, their signature is checked."""
    other = TokenSigner(SigningKeys("a", {"a": SharedSecret(b"t" * 32)}))
    token, _ = other.issue(KEY, now=NOW)
    for _ in range(3):
        with pytest.raises(InvalidToken):
            signer.verify(token, now=NOW)
    assert secret.checks == 3


def test_other_signing_keys_forget_all(signer: TokenSigner) -> None:
    """A token whose signing key was taken out is refused at once."""
    token, _ = signer.issue(KEY, now=NOW)
    signer.verify(token, now=NOW)
    signer.replace(SigningKeys("b", {"b": SharedSecret(b"t" * 32)}))
    with pytest.raises(InvalidToken, match="unknown to this relay"):
        signer.verify(token, now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        lambda keys, _: keys.replace(()),
        lambda keys, _: keys.replace([replace(KEY, disabled=True)]),
        lambda keys, _: keys.replace([replace(KEY, expires_at=1.0)]),
        lambda keys, _: keys.replace([replace(KEY, secrets=())]),
        lambda keys, _: keys.replace([replace(KEY, kind="public")]),
        lambda _, revocations: revocations.change([Revocation.of_subject("somebody")]),
    ],
)
def test_known_token_is_judged_as_things_are_now(
    signer: TokenSigner, change: Callable[[KeyRing, Revocations], None]
) -> None:
    """By its key, the key's secrets and the revocations."""
    keys, revocations = KeyRing([KEY]), Revocations()
    token, _ = signer.issue(KEY, secret_id=KEY.secrets[0].id, subject="somebody")
    presented = Presented("token", token)
    assert authorize(presented, keys, signer, origin=None, revocations=revocations).games == KEY.games
    change(keys, revocations)
    with pytest.raises((InvalidToken, NotAllowedOrigin)):
        authorize(presented, keys, signer, origin=None, revocations=revocations)


def test_known_token_grants_what_its_key_allows_now(signer: TokenSigner) -> None:
    keys = KeyRing([KEY])
    token, _ = signer.issue(KEY)
    presented = Presented("token", token)
    assert authorize(presented, keys, signer, origin=None).games == frozenset({"crash", "dice"})
    keys.replace([replace(KEY, games=frozenset({"dice"}))])
    assert authorize(presented, keys, signer, origin=None).games == frozenset({"dice"})


def test_few_tokens_are_remembered() -> None:
    """The oldest is forgotten for one too many, and all that have expired."""
    known = VerifiedTokens(3)
    grant = Grant("k", "private", None, frozenset())
    for number, until in enumerate((10, 20, 30, 40)):
        known.add(f"t{number}", VerifiedToken(grant, 0, 0, until), 5.0)
    assert (len(known), known.get("t0")) == (3, None)
    known.add("t4", VerifiedToken(grant, 0, 0, 60), 30.0)
    assert len(known) == 2
    assert known.get("t3") is not None
    known.clear()
    assert not len(known)
