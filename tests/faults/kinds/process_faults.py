"""Faults of whole processes: killed, frozen, drained, restarted; of ingest, relays, NATS and PostgreSQL."""

import asyncio
import signal
from typing import TYPE_CHECKING, ClassVar

from tests.faults.kinds.fault import Fault
from tests.faults.parts import Part, Relay

if TYPE_CHECKING:
    from tests.nats import NatsServer


class KillIngest(Fault):
    """A process of ingest crashes; a supervisor starts it at the end. With a standby, that one takes over."""

    name, kind = "kill-ingest", "standby"
    part: Part

    async def begin(self) -> None:
        self.part = self.pick_running(self.at.ingests)
        self.target = self.part.name
        await self.part.end()

    async def end(self) -> None:
        await self.at.restart(self.part)


class FreezeIngest(Fault):
    """A process of ingest stands still, and wakes up with all it had in memory."""

    name, kind = "freeze-ingest", "freeze"
    allows_late_doubles: ClassVar[bool] = True

    async def begin(self) -> None:
        self.part = self.pick_running(self.at.ingests)
        self.target = self.part.name
        self.part.freeze()

    async def end(self) -> None:
        self.part.thaw()


class KillRelay(Fault):
    name, kind = "kill-relay", "kill"

    async def begin(self) -> None:
        self.part = self.pick_running(self.at.relays)
        self.target = self.part.name
        await self.part.end()

    async def end(self) -> None:
        if self.part in self.at.relays:  # another fault may have replaced it
            await self.at.restart(self.part)


class FreezeRelay(Fault):
    name, kind = "freeze-relay", "freeze"

    async def begin(self) -> None:
        self.part = self.pick_running(self.at.relays)
        self.target = self.part.name
        self.part.freeze()

    async def end(self) -> None:
        self.part.thaw()


class ReplaceRelay(Fault):
    """A deploy: a new relay is started first, then an old one drains within its grace."""

    name, kind = "replace-relay", "drain"

    async def begin(self) -> None:
        old: Relay = self.pick_running(self.at.relays)
        self.target = old.name
        await self.at.new_relay()
        self.draining = asyncio.create_task(old.end(signal.SIGTERM))
        self.old = old

    async def end(self) -> None:
        await self.draining
        if self.old in self.at.relays:
            self.at.relays.remove(self.old)


class KillNats(Fault):
    """One server of NATS crashes; it comes back with its store."""

    name, kind = "kill-nats", "kill"

    async def begin(self) -> None:
        self.server: NatsServer = self.pick(self.at.nats)
        self.target = f"nats {self.at.nats.index(self.server)}"
        await self.server.kill()

    async def end(self) -> None:
        await self.server.start()


class KillAllNats(Fault):
    """Every server of the cluster crashes."""

    name, kind, needs_cluster = "kill-all-nats", "kill", True

    async def begin(self) -> None:
        await asyncio.gather(*(server.kill() for server in self.at.nats))

    async def end(self) -> None:
        await asyncio.gather(*(server.start() for server in self.at.nats))


class FreezeNats(Fault):
    name, kind = "freeze-nats", "freeze"

    async def begin(self) -> None:
        self.server: NatsServer = self.pick(self.at.nats)
        self.target = f"nats {self.at.nats.index(self.server)}"
        self.server.freeze()

    async def end(self) -> None:
        self.server.thaw()


class KillPostgres(Fault):
    name, kind = "kill-postgres", "kill"

    async def begin(self) -> None:
        await self.at.postgres.kill()

    async def end(self) -> None:
        await self.at.postgres.start()


class FreezePostgres(Fault):
    name, kind = "freeze-postgres", "freeze"

    async def begin(self) -> None:
        self.at.postgres.freeze()

    async def end(self) -> None:
        self.at.postgres.thaw()


class RestartPostgres(Fault):
    """A fast shutdown, which waits for the reader of the slot, and a start."""

    name, kind = "restart-postgres", "restart"

    async def begin(self) -> None:
        await self.at.postgres.stop("fast")

    async def end(self) -> None:
        await self.at.postgres.start()


FAULTS: tuple[type[Fault], ...] = (
    KillIngest, FreezeIngest, KillRelay, FreezeRelay, ReplaceRelay, KillNats, KillAllNats, FreezeNats, KillPostgres,
    FreezePostgres, RestartPostgres,
)  # fmt: skip
