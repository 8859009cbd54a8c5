"""What an operator accepts of their identity provider, and what its claims grant. Pure.

Owns the mapping from claims to games, types and limits. Does not know which games there are, nor signatures.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from auth.key import DEFAULT_LIMITS, Limits

ALL: Final = "*"
"""The value of a claim, or of the default, that grants all games."""
_SLUG: Final = re.compile(r"\A[a-z0-9][a-z0-9-]{0,63}\Z")
_MOST: Final = 1000
_LONGEST_SUBJECT: Final = 256
_MOST_OF_LIMIT: Final = 10**9
"""As of the limits of keys."""


class InvalidIdentity(Exception):
    """A JWT is not accepted as that of an identity. Clients get 401; the text never has a part of the JWT."""


@dataclass(frozen=True, slots=True)
class IdentityRules:
    """Which JWTs are accepted, and where in them is what they grant. A claim is named by its name, or by a path of
    names with dots between them."""

    issuer: str
    audiences: frozenset[str]
    algorithms: tuple[str, ...]
    subject_claim: str = "sub"
    games_claim: str = "games"
    games_prefix: str = ""
    types_claim: str = "types"
    types_prefix: str = ""
    limits_claim: str = ""
    default_games: frozenset[str] = frozenset()
    """Games of an identity without both claims; `ALL` for all."""
    default_limits: Limits = DEFAULT_LIMITS
    max_life_s: float = 86_400.0
    leeway_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Who signed in, and what the claims grant."""

    subject: str
    games: frozenset[str] | None
    """Slugs, of which some may be unknown here; None: all."""
    types: frozenset[str]
    limits: Limits
    issued_at: float | None
    expires_at: float
    """Unix seconds."""


def identity_of(claims: Mapping[str, Any], rules: IdentityRules) -> Identity:
    """Return what checked claims grant; ``exp`` and ``iat`` are numbers, ``iat`` may be missing.

    Raises:
        InvalidIdentity: The subject or the limits are missing or malformed.
    """
    subject = _claim(claims, rules.subject_claim)
    if not isinstance(subject, str) or not subject or len(subject) > _LONGEST_SUBJECT or not subject.isprintable():
        raise InvalidIdentity(
            f"the token's claim {rules.subject_claim!r} is not text of 1 to {_LONGEST_SUBJECT} letters"
        )
    games = _listed(_claim(claims, rules.games_claim), rules.games_prefix)
    types = _listed(_claim(claims, rules.types_claim), rules.types_prefix)
    if games is None and types is None:
        games = rules.default_games
    games, types = games or frozenset(), types or frozenset()
    everything = ALL in games or ALL in types
    return Identity(
        subject,
        None if everything else frozenset(filter(_SLUG.match, games)),
        frozenset() if everything else types,
        _limits(_claim(claims, rules.limits_claim), rules),
        claims.get("iat"),
        claims["exp"],
    )


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    """Return the claim with a name, else at a path; None when there is none."""
    if not name:
        return None
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _listed(value: Any, prefix: str) -> frozenset[str] | None:
    """Return the values of a claim that is a list, or text as of ``scope``; None when the claim is missing.

    Of values with another type nothing is granted.
    """
    if value is None:
        return None
    items = re.split(r"[\s,]+", value) if isinstance(value, str) else value if isinstance(value, list) else []
    texts = (item for item in items[:_MOST] if isinstance(item, str) and item.startswith(prefix))
    return frozenset(text.removeprefix(prefix) for text in texts) - {""}


def _limits(value: Any, rules: IdentityRules) -> Limits:
    """Return the limits of a claim, over the default ones."""
    if value is None:
        return rules.default_limits
    try:
        given = msgspec.convert(value, Limits)
    except (msgspec.ValidationError, UnicodeEncodeError):  # half of a character, which JSON can write
        given = None
    values = {} if given is None else {name: getattr(given, name) for name in Limits.__slots__}
    if given is None or any(number is not None and not 0 <= number <= _MOST_OF_LIMIT for number in values.values()):
        raise InvalidIdentity(f"the token's claim {rules.limits_claim!r} is not an object of limits and numbers")
    merged = {
        name: getattr(rules.default_limits, name) if number is None else number for name, number in values.items()
    }
    return Limits(**merged)
