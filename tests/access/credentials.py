"""The credentials of the table: how each is made, and what it is said to allow."""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final, NamedTuple

import jwt

from auth.grants import IDENTITY_PREFIX, Grant
from auth.key import Key, Kind, StoredSecret
from auth.key_secret import digest_of, generate, stored
from auth.revocations import Revocation
from auth.tokens import AUDIENCE, ISSUER, TokenSigner
from tests.access.access_rules import PAGE, Credential, Slot

SIGNING_SECRET: Final = secrets.token_hex(32)
SIGNER: Final = TokenSigner.parse(f"t1:{SIGNING_SECRET}")
CRASH: Final = frozenset({"crash"})
SLOTS: Final = frozenset({"fortune-dragon"})
_LATER: Final = time.time() + 3600
_EARLIER: Final = time.time() - 3600
REVOKED: Final = (
    Revocation("token", "revoked-token", until=_LATER),
    Revocation("subject", "revoked-user", until=_LATER),
    Revocation("subject", "signed-out-user", until=_LATER, issued_before=_LATER),
)


class Row(NamedTuple):
    """A credential, and what presents it: one secret, or two that differ. Tokens are made when they are needed."""

    credential: Credential
    secrets: Callable[[], tuple[str, ...]]
    only_in: Slot | None = None
    """The only kind of place where it is meant as a credential; None: in any."""


def _key(key_id: str, kind: Kind = "private", *, test: bool = False, **members: Any) -> tuple[Key, str]:
    """Make a key and its secret."""
    secret, _ = generate(kind, test=test)
    origins = frozenset({PAGE}) if kind == "public" else frozenset[str]()
    return Key(key_id, kind, allowed_origins=origins, secrets=(stored(secret),), test=test, **members), secret


def _rotated(key_id: str, old_until: float) -> tuple[Key, str, str]:
    """Make a key that was rotated; return its new secret and the old one, which is valid until a time."""
    key, new = _key(key_id)
    old, _ = generate("private")
    return replace(key, secrets=(*key.secrets, StoredSecret(digest_of(old), expires_at=old_until))), new, old


_PRIVATE, _PRIVATE_SECRET = _key("private")
_PUBLIC, _PUBLIC_SECRET = _key("public", "public")
_TEST, _TEST_SECRET = _key("test", test=True)
_PUBLIC_TEST, _PUBLIC_TEST_SECRET = _key("public-test", "public", test=True)
_DISABLED, _DISABLED_SECRET = _key("disabled", disabled=True)
_EXPIRED, _EXPIRED_SECRET = _key("expired", expires_at=_EARLIER)
_DELETED, _DELETED_SECRET = _key("deleted")
_OVERLAPPED, _OVERLAPPED_NEW, _OVERLAPPED_OLD = _rotated("overlapped", _LATER)
_ROTATED, _ROTATED_NEW, _ROTATED_OLD = _rotated("rotated", _EARLIER)
_OF_GAMES, _OF_GAMES_SECRET = _key("of-games", games=CRASH)
_OF_TYPES, _OF_TYPES_SECRET = _key("of-types", types=frozenset({"slots"}))
_PUBLIC_OF_GAMES, _PUBLIC_OF_GAMES_SECRET = _key("public-of-games", "public", games=CRASH)
_ELSEWHERE, _ELSEWHERE_SECRET = _key("elsewhere", addresses=(ip_network("198.51.100.0/24"),))

KEYS: Final = (
    *(_PRIVATE, _PUBLIC, _TEST, _PUBLIC_TEST, _DISABLED, _EXPIRED, _OVERLAPPED, _ROTATED),
    *(_OF_GAMES, _OF_TYPES, _PUBLIC_OF_GAMES, _ELSEWHERE),
)
"""Those that a relay has; `_DELETED` was removed."""


def rows() -> Iterator[Row]:
    """Yield all credentials."""
    yield from _keys()
    yield from _tokens()
    yield from _wrong_tokens()
    yield Row(Credential("none", "none"), tuple)
    yield Row(Credential("two keys", "two"), lambda: (_PRIVATE_SECRET, _PUBLIC_SECRET), only_in="key")
    yield Row(Credential("a token and another key", "two"), lambda: (_token(_PRIVATE), _OF_GAMES_SECRET))


def _keys() -> Iterator[Row]:
    for credential, secret in (
        (Credential("private key"), _PRIVATE_SECRET),
        (Credential("public key", public=True), _PUBLIC_SECRET),
        (Credential("private test key", for_tests=True), _TEST_SECRET),
        (Credential("public test key", public=True, for_tests=True), _PUBLIC_TEST_SECRET),
        (Credential("disabled key", valid=False), _DISABLED_SECRET),
        (Credential("expired key", valid=False), _EXPIRED_SECRET),
        (Credential("deleted key", valid=False), _DELETED_SECRET),
        (Credential("new secret, in the overlap"), _OVERLAPPED_NEW),
        (Credential("old secret, in the overlap"), _OVERLAPPED_OLD),
        (Credential("new secret, after it"), _ROTATED_NEW),
        (Credential("old secret, after it", valid=False), _ROTATED_OLD),
        (Credential("key of games", games=CRASH), _OF_GAMES_SECRET),
        (Credential("key of types", games=SLOTS), _OF_TYPES_SECRET),
        (Credential("public key of games", public=True, games=CRASH), _PUBLIC_OF_GAMES_SECRET),
        (Credential("key of another network", from_here=False), _ELSEWHERE_SECRET),
        (Credential("private key shown as public", valid=False), _PRIVATE_SECRET.replace("sk_", "pk_")),
        (Credential("live key shown as one for tests", valid=False), _PRIVATE_SECRET.replace("live", "test")),
        (Credential("key cut off", valid=False), _PRIVATE_SECRET[:-1]),
        (Credential("key with a digit more", valid=False), f"{_PRIVATE_SECRET}0"),
    ):
        yield Row(credential, lambda secret=secret: (secret,))  # type: ignore[misc]


def _tokens() -> Iterator[Row]:
    identity = Grant(f"{IDENTITY_PREFIX}{'0' * 16}", "private", CRASH, frozenset(), subject="user-1")
    for credential, make in (
        (Credential("token of the private key", "token"), lambda: _token(_PRIVATE)),
        (Credential("token of the public key", "token", public=True), lambda: _token(_PUBLIC)),
        (Credential("token of the test key", "token", for_tests=True), lambda: _token(_TEST)),
        (Credential("token of a disabled key", "token", valid=False), lambda: _token(_DISABLED)),
        (Credential("token of an expired key", "token", valid=False), lambda: _token(_EXPIRED)),
        (Credential("token of a deleted key", "token", valid=False), lambda: _token(_DELETED)),
        (Credential("token of an old secret, in the overlap", "token"), lambda: _token(_OVERLAPPED, 1)),
        (Credential("token of an old secret, after it", "token", valid=False), lambda: _token(_ROTATED, 1)),
        (Credential("token of a key of games", "token", games=CRASH), lambda: _token(_OF_GAMES)),
        (Credential("token of a key of types", "token", games=SLOTS), lambda: _token(_OF_TYPES)),
        (Credential("narrowed token", "token", games=CRASH), lambda: _token(_PRIVATE, games=CRASH)),
        (
            Credential("narrowed token of a public key", "token", public=True, games=CRASH),
            lambda: _token(_PUBLIC, games=CRASH),
        ),
        (
            Credential("token narrowed to what its key does not cover", "token", games=frozenset()),
            lambda: _token(_OF_TYPES, games=CRASH),
        ),
        (Credential("token of a key of another network", "token", from_here=False), lambda: _token(_ELSEWHERE)),
        (Credential("token of an identity", "token", games=CRASH), lambda: SIGNER.issue_for(identity)[0]),
        (
            Credential("token of a revoked subject", "token", valid=False),
            lambda: SIGNER.issue(_PRIVATE, subject="revoked-user")[0],
        ),
        (
            Credential("token of a subject that signed out", "token", valid=False),
            lambda: SIGNER.issue(_PRIVATE, subject="signed-out-user")[0],
        ),
        (
            Credential("expired token", "token", valid=False),
            lambda: SIGNER.issue(_PRIVATE, now=time.time() - 60)[0],
        ),
    ):
        yield Row(credential, lambda make=make: (make(),))  # type: ignore[misc]


def _wrong_tokens() -> Iterator[Row]:
    """Yield tokens that were made by hand: the first is as ours are, each other one differs in one thing."""
    yield Row(Credential("token made by hand", "token"), lambda: (by_hand(),))
    unsigned = "eyJhbGciOiJub25lIiwia2lkIjoidDEiLCJ0eXAiOiJKV1QifQ"
    for name, make in (
        ("revoked token", lambda: by_hand({"jti": "revoked-token"})),
        ("token with a wrong signature", lambda: by_hand(secret=secrets.token_hex(32))),
        ("token with a wrong kid", lambda: by_hand(header={"kid": "t2"})),
        ("token without a kid", lambda: by_hand(header={"kid": None})),
        ("token of another type", lambda: by_hand(header={"typ": "at+jwt"})),
        ("token with a critical member", lambda: by_hand(header={"crit": ["exp"]})),
        ("token of another audience", lambda: by_hand({"aud": "other"})),
        ("token of another issuer", lambda: by_hand({"iss": "other"})),
        ("token from the future", lambda: by_hand({"iat": int(time.time()) + 60, "exp": int(time.time()) + 90})),
        ("token that is valid too long", lambda: by_hand({"exp": int(time.time()) + 3600})),
        ("token with another algorithm", lambda: by_hand(algorithm="HS512")),
        ("token with no algorithm", lambda: f"{unsigned}.{by_hand().split('.')[1]}."),
        ("token without games", lambda: by_hand({"games": ...})),
        ("token cut off", lambda: by_hand()[:-2]),
        ("token of two parts", lambda: by_hand().rpartition(".")[0]),
    ):
        yield Row(Credential(name, "token", valid=False), lambda make=make: (make(),))  # type: ignore[misc]


def _token(key: Key, secret: int = 0, *, games: frozenset[str] | None = None) -> str:
    """Make a token as the endpoint does, for the key's n-th secret."""
    return SIGNER.issue(key, secret_id=key.secrets[secret].id, games=games)[0]


def by_hand(
    claims: Mapping[str, Any] | None = None,
    *,
    header: Mapping[str, Any] | None = None,
    secret: str = SIGNING_SECRET,
    algorithm: str = "HS256",
) -> str:
    """Make a token of the private key with other claims or members of the header; ``...`` leaves one out."""
    now = int(time.time())
    body = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": _PRIVATE.id,
        "kind": "private",
        "games": None,
        "origins": [],
        "iat": now,
        "exp": now + 30,
        "jti": secrets.token_hex(8),
        **(claims or {}),
    }
    body = {name: value for name, value in body.items() if value is not ...}
    head = {"kid": "t1", **(header or {})}
    head = {name: value for name, value in head.items() if value is not None}
    return jwt.encode(body, secret, algorithm, headers=head)
