"""Stream tokens: short-lived JWTs that open one connection without showing the key.

Owns what a token says, who may sign it and for how long it is good. A token opens the door and no more: how long an
open link lives is not in it. Pure but for the clock. Why pyjwt and HS256: docs/adr/0004-pyjwt-hs256-stream-tokens.md
"""

import base64
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

import jwt
import msgspec

from auth.keys import InvalidKeys, Key, Kind

LIFE_S: Final = 30
ISSUER: Final = "stream-relay"
AUDIENCE: Final = "stream"

_ALGORITHM: Final = "HS256"
_SECRET_BYTES: Final = 32  # as many as the hash has, RFC 7518 section 3.2
_LONGEST: Final = 8192  # no server takes a longer header line, and hashing is not free
_CLOCK_SKEW_S: Final = 5
"""How far ahead of ours the clock of the relay that issued a token may be. Expiry itself has no leeway."""
_ID: Final = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")


class InvalidToken(Exception):
    """The token opens nothing. Clients get 401; the text says why, never what the token held."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What an accepted credential allows, whichever kind it was."""

    key_id: str
    kind: Kind
    games: frozenset[str] | None  # None: all games
    allowed_origins: frozenset[str]  # of public keys

    @classmethod
    def of(cls, key: Key) -> Self:
        return cls(key.id, key.kind, key.games, key.allowed_origins)


class _Claims(msgspec.Struct):
    """The payload. No defaults: a token without ``games`` must not come out as one for all games."""

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
    """Issues tokens with its first secret and accepts those of all its secrets, so that secrets can be rotated."""

    __slots__ = ("_first", "_secrets")

    def __init__(self, secrets_by_id: Mapping[str, bytes]) -> None:
        self._secrets = dict(secrets_by_id)
        self._first = next(iter(self._secrets))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``id:secret,id:secret``: the first signs, all verify. Every relay must have the same.

        Raises:
            InvalidKeys: There is none, an entry is malformed, an id comes twice, or a secret is under 32 bytes.
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
                raise InvalidKeys(f"token secrets: id of entry {number} is there twice; every secret needs its own id")
            found[name] = secret.encode("utf-8", "surrogateescape")  # an environment holds bytes, not always UTF-8
            if len(found[name]) < _SECRET_BYTES:
                raise InvalidKeys(
                    f"token secrets: the secret of entry {number} has {len(found[name])} bytes; "
                    f"at least {_SECRET_BYTES} are needed, such as `openssl rand -hex 32` prints"
                )
            _check_usable(number, found[name])
        return cls(found)

    @classmethod
    def ephemeral(cls) -> Self:
        """Make a signer whose secret lives and dies with this process: for one relay on its own."""
        return cls({"ephemeral": secrets.token_bytes(_SECRET_BYTES)})

    def issue(self, key: Key, *, now: float | None = None) -> tuple[str, str]:
        """Make a token that grants what `key` allows; return it and when it expires, RFC 3339 in UTC with ``Z``.

        It is good for `LIFE_S` seconds, counted from the whole second that `now` (Unix seconds) is in.
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
            InvalidToken: Not a token of ours, of another audience, altered, expired, or issued in the future.
        """
        claims = self._read(token)
        moment = time.time() if now is None else now
        if moment >= claims.exp:  # "on or after", RFC 7519 section 4.1.4
            raise InvalidToken(f"the token has expired; it lives {LIFE_S} seconds, so get one right before you connect")
        if claims.iat > moment + _CLOCK_SKEW_S:
            raise InvalidToken("the token was issued in the future; the clocks of the relays differ")
        games = None if claims.games is None else frozenset(claims.games)
        return Grant(claims.sub, claims.kind, games, frozenset(claims.origins))

    def _read(self, token: str) -> _Claims:
        """Check all of a token but its times. No error keeps its cause: a driver's may quote what it could not read."""
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
                algorithms=[_ALGORITHM],  # never what the token's own header asks for
                audience=AUDIENCE,
                issuer=ISSUER,
                # The times are checked by `verify`, against a clock that the caller may give.
                options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
            )
            return msgspec.convert(payload, _Claims)
        except jwt.InvalidAlgorithmError:
            raise InvalidToken(f"the token's algorithm is not allowed; only {_ALGORITHM} is") from None
        except jwt.InvalidSignatureError:
            raise InvalidToken("the token's signature is wrong; it was altered or signed by somebody else") from None
        except jwt.InvalidAudienceError:
            raise InvalidToken(f"the token is for another audience; it must be for {AUDIENCE!r}") from None
        except jwt.InvalidIssuerError:
            raise InvalidToken(f"the token is of another issuer; it must be of {ISSUER!r}") from None
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
    """Read which secret a token says it is signed with. Not pyjwt's own: that takes the whole token apart twice."""
    header = token.partition(".")[0]
    try:
        return _header_decoder.decode(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))).kid
    except (ValueError, msgspec.MsgspecError):
        raise jwt.DecodeError("header") from None


def _check_usable(number: int, secret: bytes) -> None:
    """Refuse what pyjwt would refuse at the first token: a PEM or SSH key, which is no shared secret."""
    try:
        jwt.encode({}, secret, _ALGORITHM)
    except jwt.InvalidKeyError:
        raise InvalidKeys(
            f"token secrets: the secret of entry {number} is a certificate or an asymmetric key; "
            "use random text, such as `openssl rand -hex 32` prints"
        ) from None
