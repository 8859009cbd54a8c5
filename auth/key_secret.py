"""The secrets of API keys: how they are made, recognized and stored.

One SHA-256 is enough to store them: a secret has 256 random bits, so a slow hash would add nothing.
"""

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Final

from auth.key import Kind, StoredSecret

_PREFIXES: Final[Mapping[tuple[Kind, bool], str]] = {
    ("private", False): "sk_live_",
    ("public", False): "pk_live_",
    ("private", True): "sk_test_",
    ("public", True): "pk_test_",
}
"""By kind, and whether the key is for tests."""
PREFIXES: Final = tuple(_PREFIXES.values())
_SECRET: Final = re.compile(r"\A[sp]k_(?:live|test)_[0-9a-f]{64}\Z")
_SHOWN: Final = 12
"""Characters of a secret that are stored and shown: the kind and 16 of 256 bits."""

DEMO_KEY: Final = f"sk_live_{'0' * 64}"
"""The demo's private key. It is not secret: only `KeyRing.demo` accepts it, and `auth.key_forms` refuses its hash."""
DEMO_PUBLIC_KEY: Final = f"pk_live_{'0' * 64}"
"""The demo's public key, for browsers of any origin. Refused elsewhere like `DEMO_KEY`."""


def generate(kind: Kind, *, test: bool = False) -> tuple[str, str]:
    """Make a new key; return its secret, to show once, and its hash, to store."""
    secret = prefix_of(kind, test=test) + secrets.token_hex(32)
    return secret, hash_of(secret)


def prefix_of(kind: Kind, *, test: bool = False) -> str:
    """Return how the secrets of a kind of key begin."""
    return _PREFIXES[kind, test]


def is_secret(text: str) -> bool:
    """Whether `text` has the form of a secret."""
    return _SECRET.match(text) is not None


def digest_of(secret: str) -> bytes:
    """Return the SHA-256 of a secret, 32 bytes."""
    return hashlib.sha256(secret.encode()).digest()


def hash_of(secret: str) -> str:
    """Return the stored form of a secret: ``sha256:`` and 64 hex digits."""
    return f"sha256:{digest_of(secret).hex()}"


def stored(secret: str) -> StoredSecret:
    """Return what is stored of a secret."""
    return StoredSecret(digest_of(secret), secret[:_SHOWN])
