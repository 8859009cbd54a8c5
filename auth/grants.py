"""What an accepted credential allows, for keys, stream tokens and other identities alike. Pure."""

from dataclasses import dataclass, field, replace
from typing import Final, Self

from auth.key import ANY_ORIGIN, DEFAULT_LIMITS, FILE_ORIGIN, Key, Kind, Limits

IDENTITY_PREFIX: Final = "identity/"
"""How the `key_id` of an identity begins; no id of a key has a slash."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What a credential allows at the moment it was accepted. A link's is judged again when its key has changed."""

    key_id: str
    kind: Kind
    games: frozenset[str] | None  # None: all games
    allowed_origins: frozenset[str]  # public keys only
    limits: Limits = DEFAULT_LIMITS
    token_id: str | None = field(default=None, compare=False)
    """Of the stream token that was presented (``jti``); None for a key."""
    subject: str | None = None
    """The identity for which the token was made, where that is not a key."""
    issued_at: float | None = field(default=None, compare=False)
    """Unix seconds at which the token was made; None for a key."""
    secret_id: str | None = field(default=None, compare=False)
    """`StoredSecret.id` of the secret that was presented, or for which the token was made; None: not known."""
    origin: str | None = field(default=None, compare=False)
    """The ``Origin`` of the request that presented the credential."""

    @classmethod
    def of(cls, key: Key, *, secret_id: str | None = None) -> Self:
        return cls(key.id, key.kind, key.games, key.allowed_origins, key.limits, secret_id=secret_id)

    @property
    def is_identity(self) -> bool:
        """Whether it is of an identity of the operator's own provider. No key has its `key_id`, nor a store."""
        return self.key_id.startswith(IDENTITY_PREFIX)

    def within(self, games: frozenset[str] | None) -> Self:
        """Return the grant of those of its games that are among `games`; None narrows nothing."""
        if games is None:
            return self
        return replace(self, games=games if self.games is None else self.games & games)

    def allows_origin(self, origin: str | None) -> bool:
        """Whether the credential may be used by a request with this ``Origin`` header; None: it has none."""
        # Browsers send ``null`` for pages from files, and also for sandboxed frames: docs/auth.md.
        named = FILE_ORIGIN if origin == "null" else origin
        return self.kind != "public" or bool(self.allowed_origins & {named, ANY_ORIGIN})
