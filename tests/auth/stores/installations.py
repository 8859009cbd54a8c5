"""One real store of each kind for the suite: how a test changes it from outside, and takes it away."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

from auth.key import Key
from auth.stores.key_store import KeyStore
from auth.stores.nats_keys import NatsKeys, entry_name
from auth.stores.stored_json import key_json
from roundlog.buckets.bucket import Bucket
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer, nats_client


class Installation(Protocol):
    """A store that is empty at first."""

    def open(self) -> KeyStore:
        """Make another store on the same place, as each relay and tool does."""
        ...

    async def put(self, *keys: Key) -> None:
        """Store keys, new or changed."""

    async def put_raw(self, key_id: str, text: str) -> None:
        """Store text that is no key, where the store can hold such a thing."""

    async def remove(self, key_id: str) -> None:
        """Remove a key."""

    async def go_away(self) -> None:
        """Let the store be unreachable."""

    async def come_back(self) -> None:
        """Let it be reachable again, with what it held."""


class NatsInstallation:
    """A bucket on a nats-server of its own."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.settings = LogSettings(url=server.url, connect_timeout_s=0.5)
        self._store = NatsKeys(self.settings)

    def open(self) -> NatsKeys:
        return NatsKeys(self.settings)

    async def put(self, *keys: Key) -> None:
        async with connect(self.settings, name="test") as connection:
            bucket = Bucket(connection, "keys")
            await bucket.create(replicas=1)
            for key in keys:
                await bucket.put(entry_name(key.id), key_json(key))

    async def put_raw(self, key_id: str, text: str) -> None:
        async with nats_client(self.settings) as client:
            await client.request(f"$KV.keys.key.{key_id}", text.encode())

    async def remove(self, key_id: str) -> None:
        found = await self._store.read(key_id)
        assert found is not None
        await self._store.delete(key_id, revision=found[1])

    async def go_away(self) -> None:
        await self.server.kill()

    async def come_back(self) -> None:
        await self.server.start()


@asynccontextmanager
async def nats_installation(folder: Path) -> AsyncIterator[NatsInstallation]:
    """Run a nats-server with an empty bucket."""
    server = NatsServer(folder)
    await server.start()
    try:
        yield NatsInstallation(server)
    finally:
        await server.kill()


INSTALLATIONS: Final[dict[str, Callable[[Path], AbstractAsyncContextManager[Installation]]]] = {
    "nats": nats_installation,
}
EDITABLE: Final[dict[str, Callable[[Path], AbstractAsyncContextManager[Installation]]]] = {"nats": nats_installation}
"""Those that tools can edit."""
