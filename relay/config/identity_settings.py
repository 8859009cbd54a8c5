"""The section ``identity``: the operator's own identity provider, whose JWTs are exchanged for stream tokens.

Owns the fields, and the rules that they make. `relay.http.tokens.provider_keys` fetches the provider's keys.
"""

from dataclasses import fields
from ipaddress import ip_address
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from auth.identity.identity_rules import IdentityRules
from auth.key import Limits
from auth.signing.algorithms import ASYMMETRIC
from auth.tokens import ISSUER
from relay.config.sections import Section

_LIMITS: Final = tuple(field.name for field in fields(Limits))
_TOGETHER: Final = ("jwks_url", "issuer", "audience")


class IdentitySettings(Section):
    jwks_url: str = ""
    """Where the provider publishes its keys. https; http for addresses of this machine only. Empty: no provider."""
    issuer: str = ""
    """The claim ``iss``, exactly as the provider writes it."""
    audience: str = ""
    """The claim ``aud``: the provider's name for this installation; several, separated by commas: one is enough."""
    algorithms: str = "RS256,PS256,ES256,EdDSA"
    """Algorithms that are accepted. Those with shared secrets cannot be: a public key would be the secret."""
    subject_claim: str = "sub"
    """The claim that identifies who signed in. It is what a revocation names."""
    games_claim: str = "games"
    """The claim with slugs of games: a list, or text as of ``scope``. ``*`` in it means all games. Dots lead into
    objects, as in ``realm_access.roles``."""
    games_prefix: str = ""
    """Only values of `games_claim` that begin with this count, without it; for scopes and roles of other services."""
    types_claim: str = "types"
    """The claim with types of games, likewise."""
    types_prefix: str = ""
    """As `games_prefix`."""
    default_games: str = ""
    """Games of an identity without both claims, separated by commas; ``*`` for all. Empty: it gets 403."""
    limits_claim: str = ""
    """The claim with an object of limits, by their names in `auth.key.Limits`. Empty: only `default_limits` count."""
    default_limits: str = ""
    """``name=number,name=number``: limits of each identity, such as ``links=5``. Not given: those of private keys."""
    max_life_s: float = Field(default=86_400.0, gt=0)
    """Longest ``exp - iat`` of a JWT. Access tokens of providers live from minutes to a day."""
    leeway_s: float = Field(default=5.0, ge=0, le=300)
    """How far the clocks of provider and relay may differ."""
    keys_max_age_s: float = Field(default=600.0, ge=10, le=86_400)
    """How long fetched keys are used before they are fetched again; the provider's ``max-age`` shortens it."""
    keys_stale_s: float = Field(default=86_400.0, ge=0)
    """How long keys are used after that while the provider cannot be reached. Then JWTs get 503."""
    keys_again_s: float = Field(default=10.0, ge=0.1, le=600)
    """Least time between two fetches, so that JWTs with unknown keys cause few. Providers publish a key before use."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """How long a fetch may take; JWTs with a new key wait for it."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        missing = [name for name in _TOGETHER if not getattr(self, name).strip()]
        if missing and len(missing) < len(_TOGETHER):
            raise ValueError(f"{', '.join(_TOGETHER)} must be set together; missing: {', '.join(missing)}")
        if not self.is_set:
            return self
        url = urlsplit(self.jwks_url)
        if not url.hostname or not (url.scheme == "https" or (url.scheme == "http" and _is_loopback(url.hostname))):
            raise ValueError("jwks_url must be an https URL; http is allowed for addresses of this machine only")
        if url.username is not None or url.password is not None:
            raise ValueError("jwks_url must not have a user or a password")
        if self.issuer == ISSUER:
            raise ValueError(f"issuer must not be {ISSUER!r}, which is that of stream tokens")
        algorithms = _items(self.algorithms)
        if not algorithms or not set(algorithms) <= set(ASYMMETRIC):
            raise ValueError(f"algorithms is {self.algorithms!r}; allowed are: {', '.join(ASYMMETRIC)}")
        self.rules()
        return self

    @property
    def is_set(self) -> bool:
        """Whether there is an identity provider."""
        return bool(self.jwks_url)

    def rules(self) -> IdentityRules:
        """Return what is accepted, and what it grants."""
        return IdentityRules(
            issuer=self.issuer,
            audiences=frozenset(_items(self.audience)),
            algorithms=tuple(_items(self.algorithms)),
            subject_claim=self.subject_claim,
            games_claim=self.games_claim,
            games_prefix=self.games_prefix,
            types_claim=self.types_claim,
            types_prefix=self.types_prefix,
            limits_claim=self.limits_claim,
            default_games=frozenset(_items(self.default_games)),
            default_limits=_limits(self.default_limits),
            max_life_s=self.max_life_s,
            leeway_s=self.leeway_s,
        )


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _limits(text: str) -> Limits:
    found: dict[str, float] = {}
    for item in _items(text):
        name, _, number = item.partition("=")
        if name not in _LIMITS or not number.isdigit():
            raise ValueError(f"default_limits holds {item[:40]!r}; it takes name=number, of: {', '.join(_LIMITS)}")
        found[name] = int(number)
    return Limits(**found)  # type: ignore[arg-type] # whole numbers fit all of them


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
