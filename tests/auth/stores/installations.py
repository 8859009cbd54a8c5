"""One real store of each kind for the suite: how a test changes it from outside, and takes it away."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import asyncpg
import pytest

from auth.key import Key
from auth.stores.file_keys import FileKeys
from auth.stores.key_store import KeyStore
from auth.stores.nats_keys import NatsKeys, entry_name
from auth.stores.postgres_keys import PostgresKeys, statement
from auth.stores.stored_json import key_json
from roundlog.buckets.bucket import Bucket
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from tests.auth.stores.making import toml_of
from tests.nats import NatsServer, nats_client
from tests.postgres_server import PostgresServer


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


class PostgresInstallation:
    """The tables on a PostgreSQL of its own."""

    def __init__(self, server: PostgresServer, dsn: str) -> None:
        self.server = server
        self.dsn = dsn
        self._store = PostgresKeys(dsn)

    def open(self) -> PostgresKeys:
        return PostgresKeys(self.dsn)

    async def put(self, *keys: Key) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute(statement("create_key_tables"))
            await connection.executemany(
                "INSERT INTO stream_relay.keys (id, members) VALUES ($1, $2::text::jsonb) "
                "ON CONFLICT (id) DO UPDATE SET members = excluded.members",
                [(key.id, key_json(key).decode()) for key in keys],
            )
        finally:
            await connection.close()

    async def put_raw(self, key_id: str, text: str) -> None:
        text = text if text.endswith("}") else '{"truncated": true}'  # the column takes JSON only
        await self.server.execute(
            "INSERT INTO stream_relay.keys (id, members) VALUES ($1, $2::text::jsonb) "
            "ON CONFLICT (id) DO UPDATE SET members = excluded.members",
            key_id,
            text,
        )

    async def remove(self, key_id: str) -> None:
        await self.server.execute("DELETE FROM stream_relay.keys WHERE id = $1", key_id)

    async def go_away(self) -> None:
        await self.server.kill()

    async def come_back(self) -> None:
        await self.server.start()


class FileInstallation:
    """A TOML file that is replaced, as a deployment does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, str] = {}

    def open(self) -> FileKeys:
        return FileKeys(self.path)

    async def put(self, *keys: Key) -> None:
        self.entries |= {key.id: toml_of(key) for key in keys}
        self._replace()

    async def put_raw(self, key_id: str, text: str) -> None:
        self.entries[key_id] = f'[keys.{key_id}]\nhash = "{len(text)}"'
        self._replace()

    async def remove(self, key_id: str) -> None:
        del self.entries[key_id]
        self._replace()

    async def go_away(self) -> None:
        self.path.unlink()

    async def come_back(self) -> None:
        self._replace()

    def _replace(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("[keys]\n" + "\n\n".join(self.entries.values()), "utf-8")
        new.rename(self.path)


@asynccontextmanager
async def postgres_installation(_folder: Path) -> AsyncIterator[PostgresInstallation]:
    """Run a PostgreSQL without the tables."""
    try:
        server = PostgresServer(18)
    except LookupError as error:
        pytest.skip(str(error))
    try:
        await server.start()
        yield PostgresInstallation(server, server.dsn())
    finally:
        await server.discard()


@asynccontextmanager
async def file_installation(folder: Path) -> AsyncIterator[FileInstallation]:
    """Name a file that is not there yet."""
    yield FileInstallation(folder / "keys.toml")


Make = Callable[[Path], AbstractAsyncContextManager[Any]]

EDITABLE: Final[dict[str, Make]] = {"nats": nats_installation, "postgres": postgres_installation}
"""Those that tools can edit."""
INSTALLATIONS: Final[dict[str, Make]] = {**EDITABLE, "file": file_installation}
