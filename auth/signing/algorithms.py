"""The algorithms of signatures (RFC 7518 section 3), and the keys that each takes. The only importer of pyjwt.

Owns which key fits which algorithm. A key is bound to one algorithm before a token is seen, so that the header of a
token selects nothing. HS256 needs only Python; the others need the extra ``signing`` (pyjwt and cryptography), which is
loaded when the settings name such a key: it takes 0.1 s to load.
"""

import hmac
from collections.abc import Mapping
from functools import cache
from typing import Any, Final, Protocol

HS256: Final = "HS256"

_KEY_TYPES: Final[Mapping[str, tuple[str, str | None]]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""By algorithm, the ``kty`` and ``crv`` of its keys."""
ASYMMETRIC: Final = tuple(_KEY_TYPES)
_OWN: Final = ("EdDSA", "ES256", "RS256")
"""Algorithms of our own tokens, in the order in which a key is tried. Each fits other keys than the others."""
_PRIVATE: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
"""Members of a JWK that must stay private: RFC 7518 section 6."""
_RSA_BITS: Final = (2048, 8192)
"""Shorter ones can be factored, longer ones take long to verify."""


class UnusableKey(ValueError):
    """A key does not fit, or is too weak. ``str()`` says which keys fit; it holds nothing of the key."""


class MissingLibrary(Exception):
    """The extra ``signing`` is not installed."""

    def __str__(self) -> str:
        return "keys other than shared secrets need pyjwt and cryptography: pip install 'stream-relay[signing]'"


class Verifier(Protocol):
    """A key that is bound to its algorithm."""

    @property
    def algorithm(self) -> str: ...

    def verify(self, signed: bytes, signature: bytes) -> bool:
        """Whether `signature` is of these bytes and this key."""
        ...


class Signer(Verifier, Protocol):
    """A key that can sign too."""

    def sign(self, signed: bytes) -> bytes:
        """Return the signature of these bytes."""
        ...


class SharedSecret:
    """A secret that signs and verifies by HS256."""

    __slots__ = ("_secret",)
    algorithm: Final = HS256

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def sign(self, signed: bytes) -> bytes:
        return hmac.digest(self._secret, signed, "sha256")

    def verify(self, signed: bytes, signature: bytes) -> bool:
        return hmac.compare_digest(self.sign(signed), signature)


class PublicKey:
    """A public key that verifies by one algorithm."""

    __slots__ = ("_implementation", "_key", "algorithm")

    def __init__(self, algorithm: str, key: Any) -> None:
        self.algorithm = algorithm
        self._implementation = _implementation(algorithm)
        self._key = key

    @classmethod
    def of_jwk(cls, jwk: Mapping[str, Any], algorithm: str) -> "PublicKey":
        """Make the key of a JWK for one of `ASYMMETRIC`.

        Raises:
            UnusableKey: It is of another type, too weak, malformed, or has private members.
        """
        kty, crv = _KEY_TYPES[algorithm]
        if jwk.get("kty") != kty or (crv is not None and jwk.get("crv") != crv):
            raise UnusableKey(f"{algorithm} needs a key of type {kty}{f' on {crv}' if crv else ''}")
        if _PRIVATE & jwk.keys():
            raise UnusableKey("it has members that must be private")
        try:
            key = _implementation(algorithm).from_jwk(dict(jwk))
        except MissingLibrary:
            raise
        except Exception:  # noqa: BLE001 - whatever pyjwt and cryptography find wrong; a cause may quote the key
            raise UnusableKey(f"it is not a public key for {algorithm}") from None
        _check_size(algorithm, key)
        return cls(algorithm, key)

    def verify(self, signed: bytes, signature: bytes) -> bool:
        try:
            return bool(self._implementation.verify(signed, self._key, signature))
        except Exception:  # noqa: BLE001 - whatever a hostile signature causes
            return False

    def jwk(self) -> dict[str, Any]:
        """Return its public members as a JWK."""
        made: dict[str, Any] = self._implementation.to_jwk(self._key, as_dict=True)
        return {name: made[name] for name in ("kty", "crv", "n", "e", "x", "y") if name in made}


class PrivateKey(PublicKey):
    """A private key that signs by one algorithm; as a `PublicKey` it is its public half."""

    __slots__ = ("_private",)

    def __init__(self, algorithm: str, private: Any) -> None:
        super().__init__(algorithm, private.public_key())
        self._private = private

    def sign(self, signed: bytes) -> bytes:
        signature: bytes = self._implementation.sign(signed, self._private)
        return signature


def key_of_pem(pem: bytes) -> PublicKey | PrivateKey:
    """Read a key for our own tokens from PEM; its type decides the algorithm.

    Raises:
        UnusableKey: It is not the key of Ed25519, P-256 or RSA with 2048 to 8192 bits; or it is encrypted.
        MissingLibrary: The extra ``signing`` is not installed.
    """
    for algorithm in _OWN:
        implementation = _implementation(algorithm)
        try:
            key = implementation.prepare_key(pem)
            made = implementation.to_jwk(key, as_dict=True)
        except Exception:  # noqa: BLE001, S112 - of another type; a cause may quote the key
            continue
        kty, crv = _KEY_TYPES[algorithm]
        if made["kty"] != kty or (crv is not None and made["crv"] != crv):
            continue
        _check_size(algorithm, key)
        return PrivateKey(algorithm, key) if "d" in made else PublicKey(algorithm, key)
    raise UnusableKey("it is not an unencrypted key in PEM of Ed25519, P-256, or RSA with at least 2048 bits")


def check_library() -> None:
    """Raise `MissingLibrary` when the extra ``signing`` is not installed."""
    _implementation("ES256")


@cache
def _implementation(algorithm: str) -> Any:
    try:
        import jwt

        return jwt.get_algorithm_by_name(algorithm)
    except (ImportError, NotImplementedError):
        raise MissingLibrary from None


def _check_size(algorithm: str, key: Any) -> None:
    low, high = _RSA_BITS
    if _KEY_TYPES[algorithm][0] == "RSA" and not low <= key.key_size <= high:
        raise UnusableKey(f"an RSA key of {key.key_size} bits is not accepted; it must have {low} to {high}")
