"""Everything that one schedule runs on: a database, NATS, ingest, relays, and the wires between them.

Owns the settings of the parts and the order of starting them. Faults act on its members. Clients connect through the
wires of its relays. Every part reaches the others through wires, except the producer and the judge.
"""

import asyncio
import itertools
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from auth.key_secret import generate
from tests.faults.disks import unmount
from tests.faults.parts import Ingest, Part, Relay
from tests.faults.plan import Schedule
from tests.faults.servers import Servers
from tests.nats import NatsServer
from tests.nats_cluster import NAMES
from tests.network.wire import Wire
from tests.postgres.ingesting import set_up_notify
from tests.postgres_server import PostgresServer
from tests.relay.conftest import wait_ready
from tests.waiting import until

_RELAY: Final = {
    "RELAY_HTTP_HOST": "127.0.0.1",
    "RELAY_HTTP_PORT": "0",
    "RELAY_GRPC_HOST": "127.0.0.1",
    "RELAY_GRPC_PORT": "0",
    "RELAY_LIMITS_PRIVATE_REQUESTS_PER_MIN": "0",  # all clients have one key, and come back many times a minute
    "RELAY_LIMITS_PRIVATE_LINKS_PER_S": "0",
    "RELAY_LINKS_HEARTBEAT_S": "2",
    "RELAY_LINKS_RETRY_MS": "300",
    "RELAY_LINKS_UNSENT_BYTES": "32768",
    "RELAY_DRAIN_GRACE_S": "3",
    "RELAY_DRAIN_MARGIN_S": "1",
    "RELAY_LOG_FORMAT": "json",
}
_INGEST: Final = {
    "RELAY_BACKEND_RETRY_MAX_S": "0.5",
    "RELAY_BACKEND_CONNECT_TIMEOUT_S": "3",
    "RELAY_PUBLISH_ACK_TIMEOUT_S": "2",
    "RELAY_INGEST_HOST": "127.0.0.1",
    "RELAY_INGEST_PORT": "0",
    "RELAY_LOG_FORMAT": "json",
}
_BACKENDS: Final = {
    "postgres-replication": {
        "RELAY_BACKEND_CREATE": "true",
        "RELAY_BACKEND_ON_LOST": "backfill",
        "RELAY_BACKEND_SENDER_TIMEOUT_S": "2",
    },
    "postgres-notify": {
        "RELAY_BACKEND_START": "beginning",
        "RELAY_BACKEND_POLL_S": "0.2",
        "RELAY_BACKEND_ANSWER_TIMEOUT_S": "3",
        "RELAY_BACKEND_TAKEOVER_S": "4",
    },
}


class Installation:
    """The running parts. `relays` and `ingests` include those that faults have ended for a while."""

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        self.schedule = schedule
        self.folder = folder
        self.postgres = PostgresServer(settings={"track_commit_timestamp": "on"})
        self.nats: list[NatsServer] = []
        self.relays: list[Relay] = []
        self.ingests: list[Ingest] = []
        self.wires: list[Wire] = []
        """All of them; their names are ``from-to``."""
        self.ways: dict[str, tuple[Wire, Wire]] = {}
        """The wires of clients to each relay: HTTP and gRPC."""
        self.key, self._key_hash = generate("private")
        self._token_secrets = f"t:{secrets.token_hex(32)}"
        self._servers = Servers(folder, self._wire, small_disks=self._fills_disks)
        self._started: list[Part] = []
        """All that were ever started."""
        self._stack = AsyncExitStack()
        self._numbers = itertools.count(1)

    @property
    def parts(self) -> list[Part]:
        return [*self.relays, *self.ingests]

    @property
    def has_small_disks(self) -> bool:
        """Whether the stores of NATS are on disks of their own, which a fault may fill."""
        return bool(self._servers.disks)

    def wires_between(self, one: str, other: str) -> list[Wire]:
        """Return the wires whose ends' names begin so."""
        return [
            wire
            for wire in self.wires
            if wire.name.split(">")[0].startswith(one) and wire.name.split(">")[1].startswith(other)
        ]

    async def start(self) -> None:
        """Start every part, and wait until relays and ingest are ready."""
        _, self.nats = await asyncio.gather(self._start_postgres(), self._servers.start(self.schedule.servers))
        for _ in range(self.schedule.ingests):
            self.ingests.append(await self.new_ingest())
        for _ in range(self.schedule.relays):
            await self.new_relay()
        if self.schedule.backend == "postgres-replication":  # a slot begins when it is created
            await until(self._slot_is_read)
        await asyncio.gather(*(wait_ready(self.direct(relay), within_s=60) for relay in self.relays))

    async def _slot_is_read(self) -> bool:
        return bool(await self.postgres.fetch("SELECT FROM pg_replication_slots WHERE active"))

    async def stop(self) -> None:
        await asyncio.gather(*(part.end() for part in self._started))
        await asyncio.gather(*(server.kill() for server in self.nats), self.postgres.discard())
        for disk in self._servers.disks:
            unmount(disk)
        await self._stack.aclose()

    def direct(self, relay: Relay) -> str:
        """The URL of a relay without a wire."""
        return f"http://127.0.0.1:{relay.port}"

    async def new_ingest(self) -> Ingest:
        """Start another ingest process with wires of its own."""
        name = f"ingest{next(self._numbers)}"
        database = await self._wire(f"{name}>postgres", lambda: self.postgres.port)
        backend = self.schedule.backend
        environment = {
            **_INGEST,
            **_BACKENDS[backend],
            **await self._nats_environment(name),
            "RELAY_BACKEND_NAME": backend,
            "RELAY_BACKEND_DSN": f"postgresql://postgres@127.0.0.1:{database.port}/postgres",
        }
        ingest = Ingest(name, self.folder, environment)
        self._started.append(ingest)
        ingest.start()
        return ingest

    async def new_relay(self) -> Relay:
        """Start another relay; clients find it when it listens."""
        name = f"relay{next(self._numbers)}"
        environment = {
            **_RELAY,
            **await self._nats_environment(name),
            "RELAY_AUTH_KEYS": f"k={self._key_hash}",
            "RELAY_AUTH_TOKEN_SECRETS": self._token_secrets,
            "RELAY_LINKS_MAX_AGE_S": f"{self.schedule.max_age_s:g}",
            "RELAY_REPLAY_RING_ROUNDS": str(self.schedule.ring_rounds),
        }
        relay = Relay(name, self.folder, environment)
        self._started.append(relay)
        relay.start()
        await relay.listening()
        self.ways[name] = (
            await self._wire(f"client>{name}", lambda: relay.port),
            await self._wire(f"client>{name}-grpc", lambda: relay.grpc_port),
        )
        self.relays.append(relay)
        return relay

    async def restart(self, part: Part) -> None:
        """Start a part again as a supervisor does."""
        part.start()
        if isinstance(part, Relay):
            await part.listening()

    async def _nats_environment(self, name: str) -> dict[str, str]:
        wires = [
            await self._wire(f"{name}>nats-{letter}", _port_of(server))
            for letter, server in zip(NAMES, self.nats, strict=False)
        ]
        return {
            "RELAY_NATS_URL": ",".join(f"nats://127.0.0.1:{wire.port}" for wire in wires),
            "RELAY_NATS_REPLICAS": str(self.schedule.servers),
            "RELAY_NATS_DUPLICATE_WINDOW_S": f"{self.schedule.window_s:g}",
            "RELAY_NATS_CONNECT_TIMEOUT_S": "2",
        }

    async def _wire(self, name: str, target: Callable[[], int]) -> Wire:
        wire = await self._stack.enter_async_context(Wire(name, target).listening())
        self.wires.append(wire)
        return wire

    @property
    def _fills_disks(self) -> bool:
        return any(fault.name == "full-disk" for step in self.schedule.steps for fault in step.faults)

    async def _start_postgres(self) -> None:
        await self.postgres.start()
        await self.postgres.make_rounds_table()
        if self.schedule.backend == "postgres-notify":
            await set_up_notify(self.postgres)


@asynccontextmanager
async def running(schedule: Schedule, folder: Path) -> AsyncIterator[Installation]:
    """Run an installation while the block runs."""
    installation = Installation(schedule, folder)
    try:
        await installation.start()
        yield installation
    finally:
        await installation.stop()


def _port_of(server: NatsServer) -> Callable[[], int]:
    return lambda: server.port
