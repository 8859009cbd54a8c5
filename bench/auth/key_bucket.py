"""Keys in a bucket of NATS KV, changed as ``stream-relay key`` does, from code that has no event loop."""

import asyncio
import secrets
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from auth.key import Key
from auth.key_secret import generate, stored
from auth.stores.nats_keys import NatsKeys
from roundlog.log_settings import LogSettings

T = TypeVar("T")

_SETTINGS: Final = {"RELAY_AUTH_STORE": "nats"}


class KeyBucket:
    """The bucket of the relays that are started with `settings`."""

    settings: Final = _SETTINGS
    """Environment variables of a relay that follows the bucket."""

    def __init__(self, nats_url: str) -> None:
        self._store = NatsKeys(LogSettings(url=nats_url))

    @contextmanager
    def key(self) -> Iterator[tuple[str, str]]:
        """Store a new private key for the block; yield its id and its secret."""
        secret, _ = generate("private")
        key = Key(f"bench-{secrets.token_hex(4)}", "private", secrets=(stored(secret),))
        _run(self._store.write(key, revision=0))
        yield key.id, secret

    def disable(self, key_id: str) -> None:
        """Disable a key."""
        _run(self._disable(key_id))

    async def _disable(self, key_id: str) -> None:
        found = await self._store.read(key_id)
        assert found is not None
        key, revision = found
        await self._store.write(replace(key, disabled=True), revision=revision)


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)
