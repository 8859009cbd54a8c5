"""The contract of a key store: what each must do.

`KeyStore` is all that a relay needs. What an operator's tools need as well is a second protocol, `EditableKeyStore`;
not every store can be edited: the environment and files are part of a deployment.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, Self

from auth.key import InvalidKeys, Key
from auth.revocations import Revocation


@dataclass(frozen=True, slots=True)
class Contents:
    """All that a store holds at one moment."""

    keys: tuple[Key, ...] = ()
    revocations: tuple[Revocation, ...] = ()
    faults: Mapping[str, str] = field(default_factory=dict)
    """One sentence for each entry that could not be read, by its name. Such an entry is no key: it fails closed."""


class StoreReceiver(Protocol):
    """Takes what a store holds, in the order in which the store changed. Its methods do not block and do not raise."""

    def replace(self, contents: Contents) -> None:
        """Take the contents of a store that was read as a whole. Says that the store can be reached."""

    def change(
        self,
        keys: Mapping[str, Key | None],
        revocations: Iterable[Revocation] = (),
        faults: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Take changed keys by id, and new revocations.

        Args:
            keys: None for a key that was removed, or that cannot be read any more.
            revocations: Those that were added.
            faults: One sentence for each of `keys` that cannot be read.
        """

    def reached(self) -> None:
        """Note that the store can be reached and everything it holds has been received."""

    def lost(self, error: Exception) -> None:
        """Note that the store cannot be reached since now. What was received stays in force for a stated time."""


class KeyStore(Protocol):
    """Keys and revocations. Entered once per process with ``async with``."""

    name: str
    """The name by which the settings choose it, for logs and errors."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_error: object) -> None: ...

    async def load(self) -> Contents:
        """Read everything once.

        Raises:
            StoreUnavailable: The store cannot be reached, or (`StoreMissing`) was never made.
            InvalidKeys: The store as a whole is wrong, such as a file that is no TOML.
        """
        ...

    async def follow(self, receiver: StoreReceiver) -> None:
        """Give `receiver` the contents, then every change within 0.5 s of it, until cancelled.

        Reconnects by itself, with backoff; after an outage it calls `StoreReceiver.replace` again. Raises
        only what is a bug.
        """


class EditableKeyStore(KeyStore, Protocol):
    """A store whose keys can be changed by the commands ``stream-relay key`` and the admin API."""

    async def read(self, key_id: str) -> tuple[Key, int] | None:
        """Return a key and its revision, for `write`; None when there is none.

        Raises:
            UnreadableEntry: There is an entry of this name that is no key.
            StoreUnavailable: The store cannot be reached.
        """
        ...

    async def write(self, key: Key, *, revision: int) -> int:
        """Store a key in place of its `revision`, 0 for a new one; return the new revision.

        Raises:
            Conflict: The key has another revision. Nothing was stored: read it again.
            StoreUnavailable: The outcome is unknown; read it again.
        """
        ...

    async def delete(self, key_id: str, *, revision: int) -> None:
        """Remove a key; raise as `write` does."""

    async def revoke(self, revocation: Revocation) -> None:
        """Store a revocation. Storing it again is harmless."""


class StoreUnavailable(Exception):
    """The store cannot be reached or does not answer. ``str()`` says what to check, without secrets."""


class StoreDenied(StoreUnavailable):
    """The store has refused what was asked, and done nothing: its user may not do that."""


class StoreMissing(StoreUnavailable):
    """The store can be reached, and nothing was ever stored there: no bucket, no table."""


class Conflict(Exception):
    """Somebody else changed the key meanwhile."""


class UnreadableEntry(InvalidKeys):
    """An entry of a store is no key. It can be replaced or deleted by its `revision`."""

    def __init__(self, sentence: str, revision: int) -> None:
        super().__init__(sentence)
        self.revision = revision
