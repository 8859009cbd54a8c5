"""The keys of this installation that sign and verify stream tokens: shared secrets, and keys in PEM.

Owns their written forms, what is refused as too weak, and which key signs. Files are read elsewhere; their text comes
here. Pure.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from auth.key import InvalidKeys
from auth.signing.algorithms import PrivateKey, PublicKey, SharedSecret, UnusableKey, Verifier, key_of_pem
from auth.signing.secret_strength import ENOUGH_BITS, strength_bits

_ID: Final = re.compile(r"\A[A-Za-z0-9._-]{1,64}\Z")
_ID_ALLOWED: Final = "an id is 1 to 64 letters, digits or '.', '_', '-'"
_SECRET_BYTES: Final = 32  # at least the size of the hash output, RFC 7518 section 3.2
_MAKE_ONE: Final = "make one with: openssl rand -hex 32"


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """Keys by their id (``kid``): one signs, all verify."""

    signing_id: str
    by_id: Mapping[str, Verifier]

    @classmethod
    def of(cls, keys: Iterable[tuple[str, SharedSecret | PublicKey]], *, signing_id: str = "") -> Self:
        """Collect keys; `signing_id` names the one that signs, the first one by default.

        Raises:
            InvalidKeys: There is no key, an id is repeated, or the key that should sign cannot.
        """
        found: dict[str, Verifier] = {}
        for name, key in keys:
            if name in found:
                raise InvalidKeys(
                    f"token keys: the id {name!r} is used twice, by a secret or a key file; ids must differ"
                )
            found[name] = key
        if not found:
            raise InvalidKeys("token keys: there is none")
        first = signing_id or next(iter(found))
        if first not in found:
            raise InvalidKeys(
                f"token keys: no key has the id {first!r}, which should sign; there are: {', '.join(found)}"
            )
        if not hasattr(found[first], "sign"):
            raise InvalidKeys(f"token keys: key {first!r} is public, so it cannot sign; put its private key there")
        return cls(first, found)

    def public(self) -> list[dict[str, Any]]:
        """Return the public keys as JWKs (RFC 7517), for others who verify our tokens. Secrets are never among them."""
        return [
            {**key.jwk(), "kid": name, "alg": key.algorithm, "use": "sig"}
            for name, key in self.by_id.items()
            if isinstance(key, PublicKey)
        ]

    def __repr__(self) -> str:
        return f"<SigningKeys: {self.signing_id!r} signs, {sorted(self.by_id)} verify>"


def read_secrets(text: str) -> Iterator[tuple[str, SharedSecret]]:
    """Read ``id:secret``, separated by commas or line ends; lines that begin with ``#`` are comments.

    Raises:
        InvalidKeys: An entry is malformed, an id is repeated, or a secret is short or easy to guess.
    """
    ids = set()
    lines = text.split("\n")  # splitlines() also breaks at characters that a secret may have
    if len(lines) > 1:
        kept = (line.strip().rstrip(",") for line in lines if not line.lstrip().startswith("#"))
        text = ",".join(filter(None, kept))
    for number, entry in enumerate(text.split(","), 1):
        name, colon, secret = entry.strip().partition(":")
        # Neither part is echoed: without the colon, either may be the secret.
        if not colon or _ID.match(name) is None:
            raise InvalidKeys(f"token secrets: entry {number} is not id:secret; {_ID_ALLOWED}")
        if name in ids:
            raise InvalidKeys(f"token secrets: the id of entry {number} is repeated; ids must be unique")
        ids.add(name)
        yield name, SharedSecret(_checked(number, secret.encode("utf-8", "surrogateescape")))


def read_key_paths(text: str) -> Iterator[tuple[str, str]]:
    """Read ``id:path,id:path``; raise `InvalidKeys` for another form."""
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        name, colon, path = entry.partition(":")
        if not colon or _ID.match(name) is None or not path.strip():
            raise InvalidKeys(f"token key files: {entry[:80]!r} is not id:path; {_ID_ALLOWED}")
        yield name, path.strip()


def read_pem(name: str, pem: bytes) -> PublicKey | PrivateKey:
    """Read the key with an id from PEM; raise `InvalidKeys` when it cannot be used."""
    try:
        return key_of_pem(pem)
    except UnusableKey as error:
        raise InvalidKeys(f"token key {name!r} is not usable: {error}") from None


def _checked(number: int, secret: bytes) -> bytes:
    """Return the secret, whose bytes need not be UTF-8, since environment variables need not be."""
    at = f"token secrets: the secret of entry {number}"
    if len(secret) < _SECRET_BYTES:
        raise InvalidKeys(f"{at} has {len(secret)} bytes; it must have at least {_SECRET_BYTES}; {_MAKE_ONE}")
    if b"-----BEGIN " in secret or re.match(rb"(?:ssh|ecdsa|sk)-\S+ ", secret) or _is_jwk(secret):
        raise InvalidKeys(f"{at} is a certificate or an asymmetric key; use random text; {_MAKE_ONE}")
    if strength_bits(secret) < ENOUGH_BITS:
        raise InvalidKeys(f"{at} is easy to guess: it repeats itself, counts, or holds known words; {_MAKE_ONE}")
    return secret


def _is_jwk(secret: bytes) -> bool:
    """Whether a key in JSON was given: that its text is the secret is never meant."""
    try:
        return isinstance(json.loads(secret), dict)
    except (ValueError, RecursionError):
        return False
