"""Stream tokens: short-lived JWTs that open a connection without showing the key.

Owns the claims of a token and what is checked of them, its lifetime, and what a token may be: RFC 8725. What its key
allows is looked up when it is used (`granted_by`), so that a token is never more than its key. A token is checked only
when a connection opens; it does not limit how long the connection lasts. Pure, except for the clock and random numbers.
Why: docs/adr/0026-tokens-are-no-more-than-their-key.md
"""

import secrets
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, Self

import msgspec

from auth.grants import Grant
from auth.key import DEFAULT_LIMITS, Key, Kind, Limits
from auth.key_secret import PREFIXES
from auth.signing.algorithms import SharedSecret, Signer
from auth.signing.compact import Compact, MalformedToken, encoded, read_compact, read_object
from auth.signing.signing_keys import SigningKeys, read_secrets
from auth.standing import withdrawn
from auth.verified_tokens import VerifiedToken, VerifiedTokens

LIFE_S: Final = 30
ISSUER: Final = "stream-relay"
AUDIENCE: Final = "stream"
_KEY_IS_GONE: Final = "the token's key is not in use any more; get a new token with a key that is"

_TYPE: Final = "JWT"
_LONGEST: Final = 8192  # servers reject longer header lines; bounds the cost of hashing
_LONGEST_MADE: Final = 4096
"""Of a token that is made: it fits into a header line beside others."""
_CLOCK_SKEW_S: Final = 5
"""How far the clock of the issuing relay may be ahead of this one, and how much longer than `LIFE_S` a token of another
version may live. Expiry has no leeway."""
_LISTED: Final = 64
"""Games and origins that a token lists for relays of older versions, which read them there."""


class InvalidToken(Exception):
    """The token is not accepted. Clients get 401; the text gives the reason, and never the token's content."""


class TokenTooLong(Exception):
    """A token would be longer than clients can send. ``str()`` says what to leave out."""


class _Claims(msgspec.Struct, omit_defaults=True):
    """The payload. A token without ``games`` must not be read as one for all games, so that has no default.

    Those with a default are newer: older relays ignore them, and make tokens without them.
    """

    iss: str
    aud: str
    sub: str  # the id of the key, or of the identity
    kind: Kind
    games: list[str] | None
    origins: list[str]  # read by older relays only: which origins are allowed is looked up
    iat: int
    exp: int
    jti: str
    nbf: int | None = None
    whole: bool = False  # all that the key allows, which is not listed in `games`; to older relays that is nothing
    secret: str | None = None  # `StoredSecret.id`: which of the key's secrets it was made with
    subject: str | None = None
    limits: Limits | None = None  # of identities only


def granted_by(token: Grant, key: Key | None, *, now: float | None = None) -> Grant:
    """Return what a token grants now: what its key allows now, of the games that the token names.

    Args:
        token: The result of `TokenSigner.verify`.
        key: The key that has its `key_id` now; None when there is none.
        now: Unix seconds; the clock's by default.

    Raises:
        InvalidToken: There is no such key, it is not valid, or the secret that the token was made with is not.
    """
    if token.is_identity:
        return token
    moment = time.time() if now is None else now
    if key is None or withdrawn(key, token, moment) is not None:
        raise InvalidToken(_KEY_IS_GONE)
    return Grant(
        key.id,
        key.kind,
        key.games if token.games is None else token.games if key.games is None else key.games & token.games,
        key.allowed_origins,
        key.limits,
        token.token_id,
        token.subject,
        token.issued_at,
        token.secret_id,
    )


class TokenSigner:
    """Makes and checks tokens with keys that can be replaced at any time."""

    __slots__ = ("_verified", "keys")

    def __init__(self, keys: SigningKeys | Mapping[str, bytes]) -> None:
        """Use `keys`, or secrets by their id, of which the first signs."""
        self.keys = keys if isinstance(keys, SigningKeys) else _of_secrets(keys)
        """Those in force."""
        self._verified = VerifiedTokens()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``id:secret,id:secret``: the first signs, all verify. Every relay must have the same secrets.

        Raises:
            InvalidKeys: See `read_secrets`.
        """
        return cls(SigningKeys.of(read_secrets(text)))

    @classmethod
    def ephemeral(cls) -> Self:
        """Make a signer with a random secret that only this process has: for a single relay."""
        return cls({"ephemeral": secrets.token_bytes(32)})

    def replace(self, keys: SigningKeys) -> None:
        """Sign and verify with other keys from now on."""
        self.keys = keys
        self._verified.clear()

    def issue(
        self,
        key: Key,
        *,
        games: Iterable[str] | None = None,
        secret_id: str | None = None,
        subject: str | None = None,
        life_s: int = LIFE_S,
        now: float | None = None,
    ) -> tuple[str, str]:
        """Make a token for a key; return it and its time of expiry, RFC 3339 in UTC with ``Z``.

        Args:
            key: The key. Of what it allows, the token opens `games`; None: all.
            games: The only games that the token opens.
            secret_id: `StoredSecret.id` of the secret that was presented: the token ends with it.
            subject: Whom the token is for, where that is not the holder of the key.
            life_s: Seconds of validity from `now` (Unix seconds), rounded down to a whole second; at most `LIFE_S`.
            now: The time; the clock's by default.

        Raises:
            TokenTooLong: It names too many games.
        """
        # Older relays read games and origins here. What does not fit is not listed: there it grants less, not more.
        whole = games is None and (bool(key.types) or len(key.games or ()) > _LISTED)
        wanted = key.games if games is None else games
        return self._sign(
            _Claims(
                **_life(now, life_s),
                sub=key.id,
                kind=key.kind,
                games=[] if whole else None if wanted is None else sorted(wanted),
                origins=sorted(key.allowed_origins) if len(key.allowed_origins) <= _LISTED else [],
                whole=whole,
                secret=secret_id,
                subject=subject,
            )
        )

    def issue_for(self, grant: Grant, *, life_s: int = LIFE_S, now: float | None = None) -> tuple[str, str]:
        """Make a token for an identity that is no key: all it grants is in the token. As `issue`."""
        return self._sign(
            _Claims(
                **_life(now, life_s),
                sub=grant.key_id,
                kind=grant.kind,
                games=None if grant.games is None else sorted(grant.games),
                origins=[],
                subject=grant.subject,
                limits=None if grant.limits == DEFAULT_LIMITS else grant.limits,
            )
        )

    def verify(self, token: str, *, now: float | None = None) -> Grant:
        """Return what `token` says, if it may be used at `now` (Unix seconds). `granted_by` says what it grants.

        Raises:
            InvalidToken: The token is malformed, altered, expired, issued in the future, for too long or another
                audience, or signed with an unknown key.
        """
        moment = time.time() if now is None else now
        known = self._verified.get(token)
        if known is not None:
            _check_times(known.issued_at, known.not_before, known.expires_at, moment)
            return known.grant
        claims = self._read(token)
        _check_times(claims.iat, claims.nbf or 0, claims.exp, moment)
        grant = Grant(
            claims.sub,
            claims.kind,
            None if claims.whole or claims.games is None else frozenset(claims.games),
            frozenset(claims.origins),
            claims.limits or DEFAULT_LIMITS,
            token_id=claims.jti,
            subject=claims.subject,
            issued_at=claims.iat,
            secret_id=claims.secret,
        )
        self._verified.add(token, VerifiedToken(grant, claims.iat, claims.nbf or 0, claims.exp), moment)
        return grant

    def _sign(self, claims: _Claims) -> tuple[str, str]:
        name = self.keys.signing_id
        key: Signer = self.keys.by_id[name]  # type: ignore[assignment] # SigningKeys.of has checked that it can sign
        signed = b"%b.%b" % (_header(name, key.algorithm), encoded(msgspec.json.encode(claims)))
        token = b"%b.%b" % (signed, encoded(key.sign(signed)))
        if len(token) > _LONGEST_MADE:
            raise TokenTooLong(
                f"a token for these games has {len(token)} bytes; name fewer, so that it has 4096 at most"
            )
        return token.decode(), _time_text(claims.exp)

    def _read(self, token: str) -> _Claims:
        """Check everything in a token except its times. No error quotes the token."""
        if token.startswith(PREFIXES):
            raise InvalidToken("this is an API key; exchange it for a stream token at POST /api/auth/token")
        try:
            found = read_compact(token, longest=_LONGEST)
            self._check_signature(found)
            # No member that a reader must understand (crit), and none that says where a key is (jwk, jku, x5u).
            if found.header.keys() != {"alg", "kid", "typ"} or found.header["typ"] != _TYPE:
                raise InvalidToken("the token is not a stream token: its header differs; get a new token")
            return _our_claims(found.payload) or _checked_claims(read_object(found.payload))
        except MalformedToken:
            raise InvalidToken("the token is malformed; send it as POST /api/auth/token returned it") from None

    def _check_signature(self, found: Compact) -> None:
        name, algorithm = found.header.get("kid", ""), found.header.get("alg")
        if not isinstance(name, str) or not isinstance(algorithm, str):
            raise MalformedToken
        key = self.keys.by_id.get(name)
        if key is None:
            raise InvalidToken("the token's signing key is unknown to this relay; get a new token")
        if algorithm != key.algorithm:  # never the algorithm of the token's header
            raise InvalidToken(f"the token's algorithm is not allowed; only {key.algorithm} is")
        if not key.verify(found.signed, found.signature):
            raise InvalidToken("the token's signature is wrong; it was altered or signed with another secret")

    def __repr__(self) -> str:
        return f"<TokenSigner signing with {self.keys.signing_id!r}, verifying {sorted(self.keys.by_id)}>"


@lru_cache(maxsize=16)
def _header(name: str, algorithm: str) -> bytes:
    """Return the header of tokens of a key: each of them has the same."""
    return encoded(msgspec.json.encode({"alg": algorithm, "kid": name, "typ": _TYPE}))


@lru_cache(maxsize=64)
def _time_text(unix_s: int) -> str:
    """Write a time in RFC 3339: many tokens of one second expire in the same one."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of_secrets(secrets_by_id: Mapping[str, bytes]) -> SigningKeys:
    return SigningKeys.of((name, SharedSecret(secret)) for name, secret in secrets_by_id.items())


def _life(now: float | None, life_s: int) -> dict[str, Any]:
    """Return the claims that say where and when a token is valid, and its own id."""
    issued = int(time.time() if now is None else now)
    return {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": issued,
        "exp": issued + life_s,
        "jti": secrets.token_urlsafe(12),
    }


def _check_times(issued_at: int, not_before: int, expires_at: int, now: float) -> None:
    if now >= expires_at:  # "on or after", RFC 7519 section 4.1.4
        raise InvalidToken(f"the token has expired; it is valid for {LIFE_S} seconds; get one before each connect")
    if max(issued_at, not_before) > now + _CLOCK_SKEW_S:
        raise InvalidToken("the token was issued in the future; the clocks of the relays differ")
    if not 0 < expires_at - issued_at <= LIFE_S + _CLOCK_SKEW_S:
        raise InvalidToken(f"the token is valid for longer than {LIFE_S} seconds, which no token may be")


def _our_claims(payload: bytes) -> _Claims | None:
    """Read a payload that is spelt as we spell it, so that it has each member once; None for all others."""
    try:
        claims = _decode_claims(payload)
    except (msgspec.MsgspecError, RecursionError):
        return None
    is_ours = claims.aud == AUDIENCE and claims.iss == ISSUER and msgspec.json.encode(claims) == payload
    return claims if is_ours else None


_decode_claims: Final = msgspec.json.Decoder(_Claims).decode


def _checked_claims(payload: dict[str, Any]) -> _Claims:
    audience, issuer = payload.get("aud"), payload.get("iss")
    if AUDIENCE not in (audience if isinstance(audience, list) else (audience,)):
        raise InvalidToken(f"the token is for another audience; it must be for {AUDIENCE!r}")
    if issuer != ISSUER:
        raise InvalidToken(f"the token is from another issuer; it must be from {ISSUER!r}")
    try:
        return msgspec.convert(payload, _Claims)
    except (msgspec.ValidationError, OverflowError):
        raise InvalidToken("the token's claims are not those of a stream token; get a new token") from None
