"""The key stores that the settings choose: what they hold in one ring, followed while the relay runs.

Owns which stores there are and their order: the environment, the file, then the bucket or the tables. What a store that
is away means is in `auth.stores.key_layers`.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import structlog

from auth.key import Key
from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.revocations import Revocations
from auth.stores.file_keys import FileKeys
from auth.stores.key_layers import KeyLayer, KeyLayers
from auth.stores.key_store import Contents, KeyStore
from relay.config.sections import AuthSettings
from roundlog.log_settings import LogSettings
from roundlog.tasks import cancel_and_wait
from rounds import Catalogue

if TYPE_CHECKING:
    from pathlib import Path

log = structlog.get_logger()

_LOOK_S: Final = 1.0


class FollowedStores:
    """Follows the stores of one relay while `run` does."""

    def __init__(
        self, ring: KeyRing, settings: AuthSettings, nats: LogSettings, revocations: Revocations | None = None
    ) -> None:
        """Prepare the stores; read none of them.

        Args:
            ring: Has the keys of the environment and the file as they were read at the start, and gets all others.
            settings: Which stores.
            nats: The server of the bucket.
            revocations: Gets the revocations of the bucket or the tables.
        """
        self.layers = KeyLayers(ring)
        self.revocations = revocations
        self._followed: list[tuple[KeyStore, KeyLayer]] = []
        self._files: list[FileKeys] = []
        line = read_keys(text=settings.keys.get_secret_value())
        ids = {key.id for key in line}
        self.layers.add("env").replace(Contents(tuple(line)))
        if settings.keys_file is not None:
            self._follow_file(settings.keys_file, settings.stale_s, tuple(key for key in ring if key.id not in ids))
        store = _chosen(settings, nats)
        if store is not None:
            self._followed.append(
                (store, self.layers.add(store.name, stale_s=settings.stale_s, revocations=revocations))
            )

    def know(self, catalogue: Catalogue) -> None:
        """Report games and types of keys that are not in the catalogue; they have no effect."""
        self.layers.find_fault = lambda key: unknown_names(key, catalogue)

    def reload(self) -> None:
        """Read the files now."""
        for file in self._files:
            file.reload()

    async def run(self) -> None:
        """Follow all stores until cancelled; log when the keys of one may not be used any more."""
        async with AsyncExitStack() as stack:
            for store, _ in self._followed:
                await stack.enter_async_context(store)
            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(store.follow(layer), name=f"keys-{store.name}") for store, layer in self._followed
                ]
                running.append(tasks.create_task(self._watch_ages(), name="key-store-ages"))
                try:
                    await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    await cancel_and_wait(*running)

    async def _watch_ages(self) -> None:
        stale: set[str] = set()
        while True:
            for layer in self.layers:
                if layer.is_usable:
                    stale.discard(layer.name)
                elif layer.error is not None and layer.name not in stale:
                    stale.add(layer.name)
                    log.error("key_store_unavailable", store=layer.name, error=layer.sentence)
            await asyncio.sleep(_LOOK_S)

    def _follow_file(self, path: "Path", stale_s: float, keys: tuple[Key, ...]) -> None:
        file, layer = FileKeys(path), self.layers.add(FileKeys.name, stale_s=stale_s)
        layer.replace(Contents(keys))
        self._files.append(file)
        self._followed.append((file, layer))


def unknown_names(key: Key, catalogue: Catalogue) -> str | None:
    """Return a sentence about the first game or type of a key that is not in the catalogue; None when all are."""
    types = types_of(catalogue)
    if unknown := sorted((key.games or frozenset()) - catalogue.slugs):
        known = ", ".join(sorted(catalogue.slugs))
        return f"key {key.id!r}: games holds {unknown[0]!r}, which is not in the catalogue; known games: {known}"
    if unknown := sorted(key.types - types.keys()):
        known = ", ".join(sorted(types))
        return f"key {key.id!r}: types holds {unknown[0]!r}, which is not in the catalogue; known types: {known}"
    return None


def types_of(catalogue: Catalogue) -> Mapping[str, frozenset[str]]:
    """Return the games of each type."""
    return {game.type: catalogue.of_type(game.type) for game in catalogue.games.values()}


def _chosen(settings: AuthSettings, nats: LogSettings) -> KeyStore | None:
    match settings.chosen_store:
        case "nats":
            from auth.stores.nats_keys import NatsKeys

            return NatsKeys(nats, bucket=settings.bucket)
        case "postgres":
            from auth.stores.postgres_keys import PostgresKeys

            return PostgresKeys("" if settings.dsn is None else settings.dsn.get_secret_value())
        case _:
            return None
