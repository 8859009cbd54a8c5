"""A JSON Web Key Set (RFC 7517 section 5): the public keys of an identity provider, by id and algorithm. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Self

from auth.signing.algorithms import PublicKey, UnusableKey, Verifier
from auth.signing.compact import MalformedToken, read_object

_MOST: Final = 100
"""Keys that are read; providers have a few."""
_LONGEST_ID: Final = 256


class MalformedKeySet(ValueError):
    """The text is not a key set. ``str()`` says what it is not."""


class KeySet:
    """Keys that verify by the algorithms that are allowed, without the other keys of the set."""

    def __init__(self, keys: Iterable[tuple[str | None, Verifier]] = ()) -> None:
        self._found: dict[tuple[str | None, str], list[Verifier]] = {}
        self._by_algorithm: dict[str, list[Verifier]] = {}
        for name, key in keys:
            self._found.setdefault((name, key.algorithm), []).append(key)
            self._by_algorithm.setdefault(key.algorithm, []).append(key)

    @classmethod
    def read(cls, data: bytes, algorithms: Iterable[str]) -> Self:
        """Read the keys that fit `algorithms`.

        Keys that cannot be used are omitted: for encryption, secret, weak, of another type, or of another algorithm.

        Raises:
            MalformedKeySet: The text is not a JSON object with an array ``keys``.
        """
        try:
            keys = read_object(data).get("keys")
        except MalformedToken:
            raise MalformedKeySet("it is not a JSON object that has each member once") from None
        if not isinstance(keys, list):
            raise MalformedKeySet("it has no array 'keys'")
        allowed = tuple(algorithms)
        return cls(pair for jwk in keys[:_MOST] if isinstance(jwk, dict) for pair in _usable(jwk, allowed))

    def find(self, name: str | None, algorithm: str) -> Sequence[Verifier]:
        """Return the keys of an id that verify by an algorithm.

        Without an id, that is the only key for the algorithm: where there are several, none can be chosen.
        """
        if name is not None:
            return self._found.get((name, algorithm), ())
        only = self._by_algorithm.get(algorithm, ())
        return only if len(only) == 1 else ()

    def __len__(self) -> int:
        return sum(map(len, self._found.values()))


def _usable(jwk: Mapping[str, Any], algorithms: Iterable[str]) -> Iterable[tuple[str | None, Verifier]]:
    name, operations = jwk.get("kid"), jwk.get("key_ops", ["verify"])
    if name is not None and (not isinstance(name, str) or len(name) > _LONGEST_ID):
        return
    if jwk.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return
    for algorithm in algorithms:
        if jwk.get("alg", algorithm) != algorithm:
            continue
        try:
            yield name, PublicKey.of_jwk(jwk, algorithm)
        except UnusableKey:
            continue
