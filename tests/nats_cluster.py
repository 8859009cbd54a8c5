"""A cluster of three nats-servers, each on ports that are held for it."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from tests.nats import NatsServer
from tests.network.ports import HeldPort

NAMES: Final = ("a", "b", "c")


def member_config(name: str, port: int, routes: Iterable[int], *, more: str = "") -> str:
    """Return the configuration of one server.

    Args:
        name: Its name in the cluster.
        port: Where it listens for other servers.
        routes: The ports at which it reaches the others.
        more: Settings of the section ``cluster``, each followed by a comma.
    """
    reached = ", ".join(f'"nats://127.0.0.1:{route}"' for route in routes)
    return f'server_name: {name}\ncluster {{ name: test, listen: "127.0.0.1:{port}", {more} routes: [{reached}] }}'


@asynccontextmanager
async def nats_cluster(folder: Path) -> AsyncIterator[dict[str, NatsServer]]:
    """Run three servers by name, which know each other, with their files in `folder`; kill them at the end."""
    held = [HeldPort() for _ in NAMES]
    ports = [port.number for port in held]
    servers = {}
    for name, port in zip(NAMES, ports, strict=True):
        store = folder / name
        store.mkdir()
        servers[name] = NatsServer(store, config=member_config(name, port, ports))
    try:
        await asyncio.gather(*(server.start() for server in servers.values()))
        yield servers
    finally:
        await asyncio.gather(*(server.kill() for server in servers.values()))
