"""All keys of this installation in memory: finds the key of a presented secret, and takes changes while it is used.

Owns which keys are known now, and who is notified of a change. Does not know where keys are stored: a store of
`auth.stores` calls `KeyRing.replace` and `KeyRing.change`.
"""

import hmac
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, Self

from auth.key import ANY_ORIGIN, InvalidCredential, Key, StoredSecret
from auth.key_secret import DEMO_KEY, DEMO_PUBLIC_KEY, digest_of, is_secret, prefix_of, stored

Watcher = Callable[[frozenset[str]], None]
"""Called after a change with the ids of the keys that were added, removed or are different."""

_UNKNOWN: Final = "the API key is unknown; check that it is complete and still in use"


class KeyRing:
    """The keys that are in force. Read at any time, changed by one store."""

    def __init__(self, keys: Iterable[Key] = ()) -> None:
        self._by_id: dict[str, Key] = {}
        # Looked up by half of the digest, then compared in constant time.
        self._by_digest: dict[bytes, tuple[StoredSecret, Key]] = {}
        self.watchers: list[Watcher] = []
        """Functions that are called, in this order, after each change; they must not raise."""
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
        """Return the key that `secret` belongs to.

        Timing can reveal at most parts of the digest of a guess, which a caller can neither choose nor invert.

        Raises:
            InvalidCredential: The secret does not have the form of a key, is unknown, or its key is not valid now.
        """
        if not is_secret(secret):
            raise InvalidCredential(
                "the API key is malformed; a key is sk_live_, pk_live_, sk_test_ or pk_test_ followed by 64 hex digits"
            )
        digest = digest_of(secret)
        found = self._by_digest.get(digest[:16])
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
        if not key.is_valid(now) or (secret_.expires_at is not None and now >= secret_.expires_at):
            raise InvalidCredential(_UNKNOWN)  # as for one that never existed
        return key

    def get(self, key_id: str) -> Key | None:
        """Return a key by its id, valid or not; None when there is none."""
        return self._by_id.get(key_id)

    def replace(self, keys: Iterable[Key]) -> None:
        """Take `keys` in place of all that were known. Ids and digests must be unique."""
        coming = {key.id: key for key in keys}
        self.change({**dict.fromkeys(self._by_id), **coming})

    def change(self, changes: Mapping[str, Key | None]) -> None:
        """Take changed keys by id; None removes one. Watchers are called when something is different."""
        changed = {key_id: key for key_id, key in changes.items() if self._by_id.get(key_id) != key}
        for key_id in changed:
            if (old := self._by_id.pop(key_id, None)) is not None:
                for secret in old.secrets:
                    self._by_digest.pop(secret.digest[:16], None)
        for key in filter(None, changed.values()):
            self._by_id[key.id] = key
            for secret in key.secrets:
                self._by_digest[secret.digest[:16]] = (secret, key)
        if changed:
            ids = frozenset(changed)
            for watcher in self.watchers:
                watcher(ids)

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def __repr__(self) -> str:
        return f"<KeyRing of {len(self)} keys>"
