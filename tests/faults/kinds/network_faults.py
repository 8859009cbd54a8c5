"""Faults of the network between two parts: partitions, half-open connections, slow links, lost bytes, resets."""

import asyncio
from abc import abstractmethod
from collections import Counter
from contextlib import suppress
from typing import Final

from tests.faults.kinds.fault import Fault
from tests.network.wire import Direction, Wire

_WAYS: Final = (
    ("ingest", "postgres"),
    ("ingest", "nats"),
    ("relay", "nats"),
    ("client", "relay"),
)
_SLOW_BYTES_PER_S: Final = 20_000
_RESET_EVERY_S: Final = 0.3


class _NetworkFault(Fault):
    """Hits all wires of one part, or of all parts, on one way."""

    async def begin(self) -> None:
        one, other = self.pick(_WAYS)
        wires = self.at.wires_between(one, other)
        if self.random.random() < 0.5:
            name = self.pick(sorted({_near(wire) if one != "client" else wire.name for wire in wires}))
            wires = [wire for wire in wires if name in (_near(wire), wire.name)]
            self.target = f"{name}>{other}"
        else:
            self.target = f"{one}>{other}"
        self.wires = wires
        for wire in wires:
            self.hit(wire)

    async def end(self) -> None:
        for wire in self.wires:
            wire.heal()

    @abstractmethod
    def hit(self, wire: Wire) -> None:
        """Break one wire."""


def _near(wire: Wire) -> str:
    return wire.name.split(">")[0]


class Partition(_NetworkFault):
    """Nothing passes; what was sent arrives at the end, unless a side has given up."""

    name, kind = "partition", "partition"

    def hit(self, wire: Wire) -> None:
        wire.hold()


class CutLeader(Fault):
    """The process of ingest that publishes loses NATS, or NATS and its source, and so to a standby.

    It comes back with all that it had read, and with what it had sent.
    """

    name, kind = "cut-leader", "partition"

    async def begin(self) -> None:
        carried: Counter[str] = Counter()
        for wire in self.at.wires_between("ingest", "nats"):
            carried[_near(wire)] += wire.carried
        [(leader, _)] = carried.most_common(1)
        others = self.pick((("nats",), ("nats", "postgres")))
        self.target = f"{leader}>{' and '.join(others)}"
        self.wires = [wire for other in others for wire in self.at.wires_between(leader, other)]
        for wire in self.wires:
            wire.hold()

    async def end(self) -> None:
        for wire in self.wires:
            wire.heal()


class HalfOpen(_NetworkFault):
    """One direction passes; what the other one carries is lost, and the connections with it."""

    name, kind = "half-open", "half-open"

    async def begin(self) -> None:
        self.direction: Direction = self.pick(("there", "back"))
        await super().begin()
        self.target += f", lost: {self.direction}"

    def hit(self, wire: Wire) -> None:
        wire.swallow(self.direction)


class Slow(_NetworkFault):
    name, kind = "slow", "slow"

    def hit(self, wire: Wire) -> None:
        wire.slow(_SLOW_BYTES_PER_S)


class Reset(_NetworkFault):
    """Every connection is reset, again and again; new ones work in between."""

    name, kind = "reset", "reset"

    async def begin(self) -> None:
        self.resetting: asyncio.Task[None] | None = None
        await super().begin()
        self.resetting = asyncio.create_task(self._again(), name="resets")

    def hit(self, wire: Wire) -> None:
        wire.cut()

    async def end(self) -> None:
        if self.resetting is not None:
            self.resetting.cancel()
            with suppress(asyncio.CancelledError):
                await self.resetting
        await super().end()

    async def _again(self) -> None:
        while True:
            await asyncio.sleep(_RESET_EVERY_S)
            for wire in self.wires:
                wire.cut()


class PartitionServer(Fault):
    """One server of the cluster is cut off from the others and from everybody else."""

    name, kind, needs_cluster = "partition-server", "partition", True

    async def begin(self) -> None:
        letter = self.pick(("a", "b", "c"))
        self.target = f"nats-{letter}"
        self.wires = [wire for wire in self.at.wires if self.target in wire.name.split(">")]
        for wire in self.wires:
            wire.hold()

    async def end(self) -> None:
        for wire in self.wires:
            wire.heal()


class PartitionRoutes(Fault):
    """One server is cut off from the other servers only: its clients stay connected to it."""

    name, kind, needs_cluster = "partition-routes", "partition", True

    async def begin(self) -> None:
        letter = self.pick(("a", "b", "c"))
        self.target = f"nats-{letter}"
        self.wires = [wire for wire in self.at.wires_between("nats", "nats") if self.target in wire.name.split(">")]
        for wire in self.wires:
            wire.hold()

    async def end(self) -> None:
        for wire in self.wires:
            wire.heal()


FAULTS: tuple[type[Fault], ...] = (Partition, CutLeader, HalfOpen, Slow, Reset, PartitionServer, PartitionRoutes)
