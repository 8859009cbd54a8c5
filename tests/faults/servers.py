"""The servers of NATS: one, or a cluster of three whose routes go through wires and which advertises no addresses."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.faults.disks import mount_small_disk
from tests.faults.record import admin, retrying
from tests.nats import NatsServer
from tests.nats_cluster import NAMES, member_config
from tests.network.ports import HeldPort
from tests.network.wire import Wire

_DISK_MB: Final = 64

MakeWire = Callable[[str, Callable[[], int]], Awaitable[Wire]]


class Servers:
    """Starts them; `disks` are the folders on small disks, which the caller unmounts."""

    def __init__(self, folder: Path, make_wire: MakeWire, *, small_disks: bool) -> None:
        self.disks: list[Path] = []
        self._folder = folder
        self._make_wire = make_wire
        self._small_disks = small_disks

    async def start(self, count: int) -> list[NatsServer]:
        """Start one server or three; return when the log can be made."""
        if count == 1:
            servers = [NatsServer(self._store(NAMES[0]))]
        else:
            self._held = {name: HeldPort() for name in NAMES}
            ports = {name: port.number for name, port in self._held.items()}
            servers = [await self._member(name, ports) for name in NAMES]
        await asyncio.gather(*(server.start() for server in servers))
        async with admin([server.url for server in servers]) as client:  # until every server is a peer
            probe = {"name": "PROBE", "subjects": ["probe"], "num_replicas": count}
            await retrying(client, "STREAM.CREATE.PROBE", probe)
            await retrying(client, "STREAM.DELETE.PROBE")
        return servers

    async def _member(self, name: str, ports: dict[str, int]) -> NatsServer:
        wires = [
            await self._make_wire(f"nats-{name}>nats-{other}", _constant(port))
            for other, port in ports.items()
            if other != name
        ]
        config = member_config(
            name, ports[name], [wire.port for wire in wires], more="no_advertise: true, pool_size: -1,"
        )
        return NatsServer(self._store(name), config=config)

    def _store(self, name: str) -> Path:
        store = self._folder / f"nats-{name}"
        store.mkdir()
        if self._small_disks and mount_small_disk(store, _DISK_MB):
            self.disks.append(store)
        return store


def _constant(port: int) -> Callable[[], int]:
    return lambda: port
