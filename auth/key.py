"""An API key as the relay knows it: what it allows, and the hashes of its secrets. Pure.

Owns the members of a key and what they mean. Does not know how keys are written (`auth.key_forms`), where they are
stored (`auth.stores`), or how a presented secret finds its key (`auth.key_ring`).
"""

import time
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Final, Literal

Kind = Literal["private", "public"]
Network = IPv4Network | IPv6Network

ANY_ORIGIN: Final = "*"
FILE_ORIGIN: Final = "file://"
"""Pages that were opened from a file. Browsers send this or ``null`` as their origin."""
EXAMPLE_ORIGIN: Final = "https://app.example.com"


class InvalidCredential(Exception):
    """A presented secret is not a valid key. Clients get 401; the text never contains the secret."""


class InvalidKeys(Exception):
    """The operator's keys or token secrets are wrong. One sentence: the entry, the field, what is allowed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one key may use on one relay. None: the default of the settings for the key's kind."""

    requests_per_min: int | None = None
    """REST, token and unary calls. Of a public key: per client address."""
    key_requests_per_min: int | None = None
    """The same for all addresses of a public key together."""
    links: int | None = None
    """Open links at a time."""
    links_per_s: float | None = None
    """New links."""
    replays: int | None = None
    """Replays at a time."""
    log_rounds_per_min: int | None = None
    """Rounds that are read from the log for this key; those found in memory cost nothing."""
    subscribes_per_min: int | None = None
    """Client messages of WebSocket links that change a subscription."""
    filters: int | None = None
    """Distinct filters at a time."""


DEFAULT_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """What is stored of one secret of a key: enough to recognize it, and not to use it."""

    digest: bytes
    """SHA-256 of the secret, 32 bytes."""
    prefix: str = ""
    """The first characters of the secret, for people; empty when they are not known."""
    expires_at: float | None = None
    """Unix seconds; None: never. Set when a key is rotated, so that the old secret is valid for a while."""

    @property
    def id(self) -> str:
        """Names the secret within its key, in tokens too: 16 hex digits of the digest."""
        return self.digest[:8].hex()

    def is_valid(self, now: float) -> bool:
        """Whether the secret may be used at `now`, in Unix seconds."""
        return self.expires_at is None or now < self.expires_at


@dataclass(frozen=True, slots=True)
class Key:
    """What a key allows. Its secrets are stored as hashes only."""

    id: str
    kind: Kind
    games: frozenset[str] | None = None
    """Slugs; None: all games, unless `types` is set."""
    allowed_origins: frozenset[str] = frozenset()
    """Of public keys only; "*" for any."""
    secrets: tuple[StoredSecret, ...] = field(default=(), repr=False)
    types: frozenset[str] = frozenset()
    """Types of games; all games of these are allowed in addition to `games`."""
    test: bool = False
    """Whether its secrets start with ``sk_test_`` or ``pk_test_``."""
    name: str = ""
    """For people: whose key it is."""
    limits: Limits = DEFAULT_LIMITS
    addresses: tuple[Network, ...] = ()
    """Networks from which clients may use it; empty: any."""
    created_at: float | None = None
    """Unix seconds."""
    expires_at: float | None = None
    """Unix seconds; None: it does not expire."""
    disabled: bool = False

    def is_valid(self, now: float | None = None) -> bool:
        """Whether the key may be used at `now`, in Unix seconds."""
        moment = time.time() if now is None else now
        return not self.disabled and (self.expires_at is None or moment < self.expires_at)

    def allows_address(self, address: str) -> bool:
        """Whether clients at `address` may use the key. One that is not an address is in no network."""
        if not self.addresses:
            return True
        try:
            found = ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.addresses)

    def next_expiry(self, now: float) -> float | None:
        """Return when the key, or one of its secrets, expires next after `now`, in Unix seconds; None: never."""
        moments = (self.expires_at, *(secret.expires_at for secret in self.secrets))
        return min((moment for moment in moments if moment is not None and moment > now), default=None)
