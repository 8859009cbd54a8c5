"""What an accepted credential allows, for keys, stream tokens and other identities alike. Pure."""

from dataclasses import dataclass, field
from typing import Self

from auth.key import DEFAULT_LIMITS, Key, Kind, Limits


@dataclass(frozen=True, slots=True)
class Grant:
    """What a credential allows at the moment it was accepted. A link keeps the grant that it was opened with."""

    key_id: str
    kind: Kind
    games: frozenset[str] | None  # None: all games
    allowed_origins: frozenset[str]  # public keys only
    limits: Limits = DEFAULT_LIMITS
    token_id: str | None = field(default=None, compare=False)
    """Of the stream token that was presented (``jti``); None for a key."""
    subject: str | None = None
    """The identity for which the token was made, where that is not a key."""

    @classmethod
    def of(cls, key: Key) -> Self:
        return cls(key.id, key.kind, key.games, key.allowed_origins, key.limits)
