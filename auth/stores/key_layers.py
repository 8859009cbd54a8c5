"""Put the keys of several stores together, and note whether each store is still reached.

Owns which key is in force when several stores have its id, and how long the keys of a store that is away may be used.
Does not know stores: each gives its keys to a `KeyLayer`. Why: docs/adr/0025-key-stores-and-staleness.md
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Protocol

import structlog

from auth.key import Key
from auth.key_ring import KeyRing
from auth.revocations import Revocation
from auth.stores.key_store import Contents

log = structlog.get_logger()

_LINES: Final = 20
"""Faults that are logged of one change; the metric has their number."""


class RevocationReceiver(Protocol):
    """Takes revocations, as `auth.revocations` does."""

    def replace(self, revocations: Iterable[Revocation]) -> None:
        """Take `revocations` in place of all that were known."""

    def change(self, revocations: Iterable[Revocation]) -> None:
        """Take new revocations."""


class KeyLayer:
    """What one store holds, in force as long as the store is reached often enough. A `StoreReceiver`."""

    def __init__(
        self, layers: "KeyLayers", name: str, *, stale_s: float | None, revocations: RevocationReceiver | None
    ) -> None:
        self.name = name
        self.keys: dict[str, Key] = {}
        self.faults: dict[str, str] = {}
        """One sentence for each entry that is no key, or has a member without effect."""
        self.error: Exception | None = None
        """Why the store cannot be reached now; None while it is."""
        self._layers = layers
        self._stale_s = stale_s
        self._revocations = revocations
        self._is_loaded = stale_s is None
        self._reached_at = time.monotonic()
        self._is_first = True

    @property
    def age_s(self) -> float:
        """Seconds since everything that the store held was known; 0 for a store that cannot be away."""
        return 0.0 if self._stale_s is None else time.monotonic() - self._reached_at

    @property
    def is_usable(self) -> bool:
        """Whether its keys may be used: it was read, and not too long ago."""
        return self._is_loaded and (self._stale_s is None or self.age_s <= self._stale_s)

    @property
    def sentence(self) -> str:
        """Why it is not usable, for operators."""
        why = "it has not been read yet" if self.error is None else str(self.error)
        if not self._is_loaded:
            return f"key store {self.name}: {why}"
        return (
            f"key store {self.name} was reached {self.age_s:.0f} s ago, at most {self._stale_s:g} s are allowed: {why}"
        )

    def replace(self, contents: Contents) -> None:
        coming = {key.id: key for key in contents.keys}
        ids = {key_id for key_id in self.keys.keys() | coming.keys() if self.keys.get(key_id) is not coming.get(key_id)}
        self.keys = coming
        kept = {key_id: text for key_id, text in self.faults.items() if key_id in coming and key_id not in ids}
        self._take(ids, contents.faults, kept)
        self._is_loaded = True
        if self._revocations is not None:
            self._revocations.replace(contents.revocations)

    def change(
        self,
        keys: Mapping[str, Key | None],
        revocations: Iterable[Revocation] = (),
        faults: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        for key_id, key in keys.items():
            if key is None:
                self.keys.pop(key_id, None)
            else:
                self.keys[key_id] = key
        self._take(keys, faults, {key_id: text for key_id, text in self.faults.items() if key_id not in keys})
        if self._revocations is not None:
            self._revocations.change(revocations)

    def reached(self) -> None:
        self._reached_at = time.monotonic()
        if self._is_first or self.error is not None:
            log.info("key_store_reached", store=self.name, keys=len(self.keys), faults=len(self.faults))
        self.error, self._is_first = None, False

    def lost(self, error: Exception) -> None:
        if self.error is None:
            log.warning("key_store_lost", store=self.name, error=str(error), stale_after_s=self._stale_s)
        self.error = error

    def _take(self, ids: Iterable[str], faults: Mapping[str, str], kept: dict[str, str]) -> None:
        """Put the keys `ids` into force, and note the faults: `kept` are those of other keys."""
        found = {**faults, **self._layers.apply(self, ids)}
        new = [text for key_id, text in found.items() if self.faults.get(key_id) != text]
        self.faults = kept | found
        for text in new[:_LINES]:
            log.warning("key_entry_fault", store=self.name, error=text)
        if len(new) > _LINES:
            log.warning("key_entry_fault", store=self.name, error="other entries", left_out=len(new) - _LINES)


class KeyLayers:
    """The keys of all stores in one ring. A key of an earlier layer hides one of the same id in a later layer."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring
        self._layers: list[KeyLayer] = []
        self.find_fault: Callable[[Key], str | None] = lambda _key: None
        """Returns what is wrong with a key that can be read: a sentence, or None."""

    def add(
        self, name: str, *, stale_s: float | None = None, revocations: RevocationReceiver | None = None
    ) -> KeyLayer:
        """Add a store after those that were added before.

        Args:
            name: Of the store, for logs and metrics.
            stale_s: For how many seconds its keys may be used without contact; None: it cannot be away.
            revocations: Takes its revocations.
        """
        layer = KeyLayer(self, name, stale_s=stale_s, revocations=revocations)
        self._layers.append(layer)
        return layer

    def __iter__(self) -> Iterator[KeyLayer]:
        return iter(self._layers)

    def blocked_by(self, key_id: str | None = None) -> KeyLayer | None:
        """Return the store without which a credential cannot be judged; None when it can.

        Args:
            key_id: The key of the credential; None when no store has its key, so it may be in one that is not usable.
        """
        if key_id is not None and (owner := self._owner(key_id)) is not None:
            return None if owner.is_usable else owner
        return next((layer for layer in self._layers if not layer.is_usable), None)

    def apply(self, layer: KeyLayer, ids: Iterable[str]) -> dict[str, str]:
        """Put changed keys of a layer into force; return a sentence for each that has a fault."""
        faults: dict[str, str] = {}
        effective: dict[str, Key | None] = {}
        for key_id in ids:
            owner, key = self._owner(key_id), layer.keys.get(key_id)
            effective[key_id] = None if owner is None else owner.keys[key_id]
            if owner is not None and key is None:
                owner.faults.pop(key_id, None)  # it was hidden so far
            if key is None:
                continue
            if owner is not None and owner is not layer:
                faults[key_id] = f"key {key_id!r} has no effect: {owner.name} has a key of this id"
            elif fault := self.find_fault(key):
                faults[key_id] = fault
        self.ring.change(effective)
        return faults

    def _owner(self, key_id: str) -> KeyLayer | None:
        return next((layer for layer in self._layers if key_id in layer.keys), None)
