"""Check a JWT of an operator's identity provider: its header, its signature, its claims. Pure, except for the clock.

Owns what is checked, and in which order: form, header, signature, claims (RFC 8725). The header selects a key only by
its ``kid``, among the provider's own keys; ``jwk``, ``jku``, ``x5u`` and ``x5c`` are never read.
"""

import math
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from auth.identity.identity_rules import Identity, IdentityRules, InvalidIdentity, identity_of
from auth.signing.algorithms import Verifier
from auth.signing.compact import Compact, MalformedToken, read_compact, read_object

_LONGEST: Final = 8192  # servers reject longer header lines
_LONGEST_ID: Final = 256
_TYPES: Final = ("jwt", "at+jwt", "application/jwt", "application/at+jwt")
"""Values of ``typ`` in lower case: identities and access tokens (RFC 9068). Not those of logouts, events or proofs."""
_REFUSED: Final = ("crit", "b64", "cty", "enc", "zip")
"""Members that change how the rest is read: no identity provider needs them."""


class PresentedIdentity(NamedTuple):
    """A JWT whose form and header were checked, and nothing else."""

    key_id: str | None
    algorithm: str
    compact: Compact


def is_jwt(text: str) -> bool:
    """Whether a credential has the form of a JWT, and not that of an API key."""
    return text.startswith("eyJ") and text.count(".") == 2


def read_identity(token: str, rules: IdentityRules) -> PresentedIdentity:
    """Read a JWT and check its header.

    Raises:
        InvalidIdentity: The form, the algorithm or another member of the header is not accepted.
    """
    try:
        compact = read_compact(token, longest=_LONGEST)
    except MalformedToken:
        raise InvalidIdentity("the token is malformed; send the one of your identity provider unchanged") from None
    header = compact.header
    algorithm, name, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in rules.algorithms:
        raise InvalidIdentity(f"the token's algorithm is not accepted; accepted are: {', '.join(rules.algorithms)}")
    if name is not None and (not isinstance(name, str) or len(name) > _LONGEST_ID):
        raise InvalidIdentity("the token's kid is not text")
    if not isinstance(kind, str) or kind.lower() not in _TYPES or any(member in header for member in _REFUSED):
        raise InvalidIdentity("the token is of another kind: its header is not that of an identity or access token")
    return PresentedIdentity(name, algorithm, compact)


def checked_identity(
    presented: PresentedIdentity, keys: Iterable[Verifier], rules: IdentityRules, *, now: float | None = None
) -> Identity:
    """Check the signature and the claims, and return what they grant at `now` (Unix seconds).

    Args:
        presented: The JWT.
        keys: The provider's keys that the header may mean.
        rules: What is accepted.
        now: The time; the clock's by default.

    Raises:
        InvalidIdentity: A check fails.
    """
    compact = presented.compact
    if not any(key.algorithm == presented.algorithm and key.verify(compact.signed, compact.signature) for key in keys):
        raise InvalidIdentity("the token's signature is wrong, or its key is not one of the identity provider's")
    try:
        claims = read_object(compact.payload)
    except MalformedToken:
        raise InvalidIdentity("the token's claims are not a JSON object that has each member once") from None
    if claims.get("iss") != rules.issuer:
        raise InvalidIdentity(f"the token is from another issuer; it must be from {rules.issuer!r}")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(name, str) and name in rules.audiences for name in audiences):
        raise InvalidIdentity(
            f"the token is for another audience; it must be for {' or '.join(sorted(rules.audiences))}"
        )
    _check_times(claims, rules, time.time() if now is None else now)
    return identity_of(claims, rules)


def _check_times(claims: dict[str, Any], rules: IdentityRules, now: float) -> None:
    times = {name: claims[name] for name in ("exp", "iat", "nbf") if name in claims}
    for name, value in times.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_float(value)):
            raise InvalidIdentity(f"the token's claim {name!r} is not a number")
    if "exp" not in times:
        raise InvalidIdentity("the token has no claim 'exp', so it would be valid forever")
    if now >= times["exp"] + rules.leeway_s:
        raise InvalidIdentity("the token has expired; get a new one from your identity provider")
    begins = max(times.get("nbf", 0), times.get("iat", 0))
    if begins > now + rules.leeway_s:
        raise InvalidIdentity("the token is not valid yet; the clocks of identity provider and relay may differ")
    if times["exp"] - times.get("iat", now) > rules.max_life_s:
        raise InvalidIdentity(f"the token is valid for longer than {rules.max_life_s:g} seconds, which is the limit")


def _float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf
