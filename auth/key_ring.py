"""All keys of this installation in memory: finds the key of a presented secret, and takes changes while it is used.

Owns which keys are known now, and who is notified of a change. Does not know where keys are stored: a store of
`auth.stores` calls `KeyRing.replace` and `KeyRing.change`.
"""

import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Final, Self

from auth.key import ANY_ORIGIN, InvalidCredential, Key, StoredSecret
from auth.key_secret import DEMO_KEY, DEMO_PUBLIC_KEY, digest_of, is_secret, prefix_of, stored

Watcher = Callable[[frozenset[str]], None]
"""Called after a change with the ids of the keys that were added, removed or are different."""

_NOBODY: Final[tuple[None]] = (None,)
_UNKNOWN: Final = "the API key is unknown; check that it is complete and still in use"


class KeyRing:
    """The keys that are in force. Read at any time, changed by one store."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_id: dict[str, Key] = {}
        # Looked up by half of the digest, then compared in constant time. Of keys that have the same secret by mistake,
        # the first is in force.
        self._by_digest: dict[bytes, tuple[tuple[StoredSecret, Key], ...]] = {}
        self._types: Mapping[str, frozenset[str]] = MappingProxyType({})
        self.watchers: list[Watcher] = []
        """Functions that are called, in this order, after each change; they must not raise."""
        self.changes = 0
        """How often something was different, so far."""
        self.replace(keys)

    @classmethod
    def demo(cls) -> Self:
        """Return the keys of the demo: `DEMO_KEY` and `DEMO_PUBLIC_KEY`, all games, any origin. For loopback only."""
        any_origin = frozenset({ANY_ORIGIN})
        return cls(
            (
                Key("demo", "private", secrets=(stored(DEMO_KEY),)),
                Key("demo-public", "public", allowed_origins=any_origin, secrets=(stored(DEMO_PUBLIC_KEY),)),
            )
        )

    def authenticate(self, secret: str) -> Key:
        """Return the key that `secret` belongs to; raise as `recognize` does."""
        return self.recognize(secret)[0]

    def recognize(self, secret: str) -> tuple[Key, StoredSecret]:
        """Return the key that `secret` belongs to, and what is stored of the secret.

        Timing can reveal at most parts of the digest of a guess, which a caller can neither choose nor invert.

        Raises:
            InvalidCredential: The secret does not have the form of a key, is unknown, or its key is not valid now.
        """
        if secret.startswith("eyJ"):
            raise InvalidCredential(
                "this is a token, and an API key is needed here; "
                "a token opens a WebSocket or an event stream, with ?token= in its URL"
            )
        if not is_secret(secret):
            raise InvalidCredential(
                "the API key is malformed; a key is sk_live_, pk_live_, sk_test_ or pk_test_ followed by 64 hex digits"
            )
        digest = digest_of(secret)
        found = self._by_digest.get(digest[:16], _NOBODY)[0]
        # The prefix is hashed too, so a client cannot present a public key as a private one. But an operator can list a
        # public key as private by mistake, and a secret known to every browser must not get a server's rights.
        if (
            found is None
            or not hmac.compare_digest(found[0].digest, digest)
            or not secret.startswith(prefix_of(found[1].kind, test=found[1].test))
        ):
            raise InvalidCredential(_UNKNOWN)
        secret_, key = found
        now = time.time()
        if not key.is_valid(now) or not secret_.is_valid(now):
            raise InvalidCredential(_UNKNOWN)  # as for one that never existed
        return key, secret_

    def get(self, key_id: str) -> Key | None:
        """Return a key by its id, valid or not; None when there is none."""
        return self._by_id.get(key_id)

    def know_types(self, types: Mapping[str, frozenset[str]]) -> None:
        """Take the games of each type. Until then, a key that allows types allows none of their games."""
        self._types = types
        self.change(dict(self._by_id))

    def owner_of(self, digest: bytes) -> str | None:
        """Return the id of the key, valid or not, that a secret with this digest belongs to; None for none."""
        found = self._by_digest.get(digest[:16], _NOBODY)[0]
        return found[1].id if found is not None and found[0].digest == digest else None

    def replace(self, keys: Iterable[Key]) -> None:
        """Take `keys` in place of all that were known. Ids must be unique."""
        coming = {key.id: key for key in keys}
        self.change({**dict.fromkeys(self._by_id), **coming})

    def change(self, changes: Mapping[str, Key | None]) -> None:
        """Take changed keys by id; None removes one. Watchers are called when something is different.

        The games of a key's types are added to its games.
        """
        changed: dict[str, Key | None] = {}
        for key_id, given in changes.items():
            key = given if given is None or not given.types else self._with_games(given)
            known = self._by_id.get(key_id)
            if known is not key and known != key:
                changed[key_id] = key
        for key_id, key in changed.items():
            if (old := self._by_id.pop(key_id, None)) is not None:
                self._take_out(old)
            if key is not None:
                self._by_id[key_id] = key
                self._put_in(key)
        if changed:
            self.changes += 1
            ids = frozenset(changed)
            for watcher in self.watchers:
                watcher(ids)

    def _with_games(self, key: Key) -> Key:
        of_types = frozenset[str]().union(*(self._types.get(name, ()) for name in key.types))
        return replace(key, games=of_types if key.games is None else key.games | of_types)

    def _put_in(self, key: Key) -> None:
        for secret in key.secrets:
            half = secret.digest[:16]
            owners = [*self._by_digest.get(half, ()), (secret, key)]
            self._by_digest[half] = tuple(sorted(owners, key=_precedence)) if len(owners) > 1 else tuple(owners)

    def _take_out(self, key: Key) -> None:
        for secret in key.secrets:
            half = secret.digest[:16]
            owners = tuple(owner for owner in self._by_digest.get(half, ()) if owner[1].id != key.id)
            if owners:
                self._by_digest[half] = owners
            else:
                self._by_digest.pop(half, None)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self)} keys>"


def _precedence(owner: tuple[StoredSecret, Key]) -> tuple[float, str]:
    """Order keys that have the same secret, in the same way on every relay: the oldest first."""
    key = owner[1]
    return (key.created_at or 0, key.id)
