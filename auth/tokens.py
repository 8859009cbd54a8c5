"""Stream tokens: short-lived JWTs that open a connection without showing the key.

Owns the claims of a token, the secrets that sign it, and its lifetime. A token is checked only when a connection opens;
it does not limit how long the connection lasts. Pure, except for the clock and random numbers. Why pyjwt and HS256:
docs/adr/0004-pyjwt-hs256-stream-tokens.md
"""

import base64
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final, Self

import jwt
import msgspec

from auth.grants import Grant
from auth.key import InvalidKeys, Key, Kind

LIFE_S: Final = 30
ISSUER: Final = "stream-relay"
AUDIENCE: Final = "stream"

_ALGORITHM: Final = "HS256"
_SECRET_BYTES: Final = 32  # at least the size of the hash output, RFC 7518 section 3.2
_LONGEST: Final = 8192  # servers reject longer header lines; bounds the cost of hashing
_CLOCK_SKEW_S: Final = 5
"""How far the clock of the issuing relay may be ahead of this one. Expiry has no leeway."""
_ID: Final = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")


class InvalidToken(Exception):
    """The token is not accepted. Clients get 401; the text gives the reason, and never the token's content."""


class _Claims(msgspec.Struct):
    """The payload. No defaults: a token without ``games`` must not be read as one for all games."""

    iss: str
    aud: str
    sub: str  # the key's id
    kind: Kind
    games: list[str] | None
    origins: list[str]
    iat: int
    exp: int
    jti: str


class TokenSigner:
    """Signs tokens with its first secret and verifies tokens of all its secrets, so that secrets can be rotated."""

    __slots__ = ("_first", "_secrets")

    def __init__(self, secrets_by_id: Mapping[str, bytes]) -> None:
        self._secrets = dict(secrets_by_id)
        self._first = next(iter(self._secrets))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``id:secret,id:secret``: the first signs, all verify. Every relay must have the same secrets.

        Raises:
            InvalidKeys: An entry is malformed or missing, an id is repeated, or a secret has less than 32 bytes.
        """
        found: dict[str, bytes] = {}
        for number, entry in enumerate(text.split(","), 1):
            name, colon, secret = entry.strip().partition(":")
            # Neither part is echoed: without the colon, either may be the secret.
            if not colon or _ID.match(name) is None:
                raise InvalidKeys(
                    f"token secrets: entry {number} is not id:secret; an id is 1 to 64 letters, digits or '.', '_', '-'"
                )
            if name in found:
                raise InvalidKeys(f"token secrets: the id of entry {number} is repeated; ids must be unique")
            found[name] = secret.encode("utf-8", "surrogateescape")  # environment variables may not be UTF-8
            if len(found[name]) < _SECRET_BYTES:
                raise InvalidKeys(
                    f"token secrets: the secret of entry {number} has {len(found[name])} bytes; "
                    f"it must have at least {_SECRET_BYTES}; make one with: openssl rand -hex 32"
                )
            _check_usable(number, found[name])
        return cls(found)

    @classmethod
    def ephemeral(cls) -> Self:
        """Make a signer with a random secret that only this process has: for a single relay."""
        return cls({"ephemeral": secrets.token_bytes(_SECRET_BYTES)})

    def issue(self, key: Key, *, now: float | None = None) -> tuple[str, str]:
        """Make a token that grants what `key` allows; return it and its time of expiry, RFC 3339 in UTC with ``Z``.

        The token is valid for `LIFE_S` seconds from `now` (Unix seconds), rounded down to a whole second.
        """
        issued = int(time.time() if now is None else now)
        claims = _Claims(
            iss=ISSUER,
            aud=AUDIENCE,
            sub=key.id,
            kind=key.kind,
            games=None if key.games is None else sorted(key.games),
            origins=sorted(key.allowed_origins),
            iat=issued,
            exp=issued + LIFE_S,
            jti=secrets.token_urlsafe(12),
        )
        token = jwt.encode(
            msgspec.to_builtins(claims), self._secrets[self._first], _ALGORITHM, headers={"kid": self._first}
        )
        return token, datetime.fromtimestamp(claims.exp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def verify(self, token: str, *, now: float | None = None) -> Grant:
        """Return what `token` grants at `now` (Unix seconds).

        Raises:
            InvalidToken: The token is malformed, altered, expired, issued in the future, for another audience, or
                signed with an unknown secret.
        """
        claims = self._read(token)
        moment = time.time() if now is None else now
        if moment >= claims.exp:  # "on or after", RFC 7519 section 4.1.4
            raise InvalidToken(f"the token has expired; it is valid for {LIFE_S} seconds; get one before each connect")
        if claims.iat > moment + _CLOCK_SKEW_S:
            raise InvalidToken("the token was issued in the future; the clocks of the relays differ")
        games = None if claims.games is None else frozenset(claims.games)
        return Grant(claims.sub, claims.kind, games, frozenset(claims.origins), token_id=claims.jti)

    def _read(self, token: str) -> _Claims:
        """Check everything in a token except its times. Errors have no cause: pyjwt's errors may quote the token."""
        if token.startswith(("sk_live_", "pk_live_")):
            raise InvalidToken("this is an API key; exchange it for a stream token at POST /api/auth/token")
        if len(token) > _LONGEST or not token.isascii():
            raise InvalidToken("the token is malformed; send it as POST /api/auth/token returned it")
        try:
            secret = self._secrets.get(_kid(token))
            if secret is None:
                raise InvalidToken("the token's signing key is unknown to this relay; get a new token")
            payload = jwt.decode(
                token,
                secret,
                algorithms=[_ALGORITHM],  # never the algorithm of the token's header
                audience=AUDIENCE,
                issuer=ISSUER,
                # `verify` checks the times, against the clock that its caller gives.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            return msgspec.convert(payload, _Claims)
        except jwt.InvalidAlgorithmError:
            raise InvalidToken(f"the token's algorithm is not allowed; only {_ALGORITHM} is") from None
        except jwt.InvalidSignatureError:
            raise InvalidToken("the token's signature is wrong; it was altered or signed with another secret") from None
        except jwt.InvalidAudienceError:
            raise InvalidToken(f"the token is for another audience; it must be for {AUDIENCE!r}") from None
        except jwt.InvalidIssuerError:
            raise InvalidToken(f"the token is from another issuer; it must be from {ISSUER!r}") from None
        except (jwt.MissingRequiredClaimError, msgspec.ValidationError):
            raise InvalidToken("the token's claims are not those of a stream token; get a new token") from None
        except (jwt.InvalidTokenError, RecursionError):
            raise InvalidToken("the token is malformed; send it as POST /api/auth/token returned it") from None

    def __repr__(self) -> str:
        return f"<TokenSigner signing with {self._first!r}, verifying {sorted(self._secrets)}>"


class _Header(msgspec.Struct):
    kid: str = ""


_header_decoder: Final = msgspec.json.Decoder(_Header)


def _kid(token: str) -> str:
    """Read the key id in a token's header. pyjwt's function is not used: it decodes the whole token a second time."""
    header = token.partition(".")[0]
    try:
        return _header_decoder.decode(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))).kid
    except (ValueError, msgspec.MsgspecError):
        raise jwt.DecodeError("header") from None


def _check_usable(number: int, secret: bytes) -> None:
    """Refuse a PEM or SSH key, which pyjwt would refuse when it signs the first token."""
    try:
        jwt.encode({}, secret, _ALGORITHM)
    except jwt.InvalidKeyError:
        raise InvalidKeys(
            f"token secrets: the secret of entry {number} is a certificate or an asymmetric key; "
            "use random text; make one with: openssl rand -hex 32"
        ) from None
