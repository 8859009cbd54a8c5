"""Sign-in by an operator's own identity provider: from its JWT to a grant.

Owns the way from the claims of an identity to games of the catalogue. Its tokens are those of a private key without a
key: `auth.grants.Grant.is_identity`.
"""

import hashlib
import math
import time
from typing import NamedTuple

from auth.grants import IDENTITY_PREFIX, Grant
from auth.identity.identity_rules import Identity, IdentityRules
from auth.identity.identity_token import checked_identity, read_identity
from auth.tokens import LIFE_S
from relay.errors import NotAllowed
from relay.http.tokens.provider_keys import ProviderKeys
from rounds import Catalogue, UnknownType


class SignedIn(NamedTuple):
    """What an identity may do, and for how long its JWT is valid."""

    grant: Grant
    life_s: int = LIFE_S
    """Seconds that its stream token may live: not longer than the JWT, and at most `LIFE_S`."""


class Identities:
    """Accepts the JWTs of one identity provider."""

    def __init__(self, rules: IdentityRules, keys: ProviderKeys, catalogue: Catalogue) -> None:
        self._rules = rules
        self._keys = keys
        self._catalogue = catalogue

    async def sign_in(self, token: str) -> SignedIn:
        """Return what a JWT grants.

        Raises:
            InvalidIdentity: The JWT is not accepted.
            IdentityUnavailable: The provider's keys are not known now.
            NotAllowed: The identity covers no game.
        """
        presented = read_identity(token, self._rules)
        keys = await self._keys.find(presented.key_id, presented.algorithm)
        now = time.time()
        identity = checked_identity(presented, keys, self._rules, now=now)
        games = self._games(identity)
        grant = Grant(
            IDENTITY_PREFIX + hashlib.sha256(identity.subject.encode()).hexdigest()[:16],
            "private",
            games,
            frozenset(),
            identity.limits,
            subject=identity.subject,
            issued_at=identity.issued_at,
        )
        return SignedIn(grant, max(1, min(LIFE_S, math.floor(identity.expires_at - now))))

    def _games(self, identity: Identity) -> frozenset[str] | None:
        """Return the games of the catalogue that the claims name; unknown ones may be those of another installation."""
        if identity.games is None:
            return None
        games = set(identity.games & self._catalogue.slugs)
        for name in identity.types:
            try:
                games |= self._catalogue.of_type(name)
            except UnknownType:
                continue
        if not games:
            raise NotAllowed("this identity covers no game; ask the operator which claims grant games")
        return frozenset(games)
