"""What a fault is: it begins, it ends, and it says what it allows; and what all faults may use.

A fault acts on the installation and on the record of the log. It draws its target and its extent from its own seed.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar, Final, Literal, TypeVar

from nats.aio.client import Client as NatsClient

from tests.faults.installation import Installation
from tests.faults.parts import Part
from tests.faults.plan import Backend
from tests.faults.producer import Producer
from tests.faults.record import admin
from tests.faults.values import LogRecord

T = TypeVar("T")
P = TypeVar("P", bound=Part)

Kind = Literal[
    "kill", "freeze", "partition", "half-open", "slow", "reset", "full disk", "no files", "clock", "slot",
    "publication", "stream edited", "purged", "leader moved", "standby", "drain", "restart", "burst",
]  # fmt: skip
BACKENDS: Final[tuple[Backend, ...]] = ("postgres-replication", "postgres-notify")


class Fault(ABC):
    """One fault of one part. Built for one use."""

    name: ClassVar[str]
    kind: ClassVar[Kind]
    backends: ClassVar[Sequence[Backend]] = BACKENDS
    needs_cluster: ClassVar[bool] = False
    allows_late_doubles: ClassVar[bool] = False
    """A process of ingest may wake up after the duplicate window, and store rounds that another has stored."""
    reorders_by_id: ClassVar[bool] = False
    """Rounds are read from the table afterwards, ordered by id."""

    def __init__(self, installation: Installation, producer: Producer, record: LogRecord, seed: int) -> None:
        self.at = installation
        self.producer = producer
        self.record = record
        self.random = random.Random(seed)
        self.target = ""
        """What was hit, for the report."""

    @classmethod
    def applies(cls, installation: Installation) -> bool:
        """Whether this installation can have the fault; False is reported as left out."""
        schedule = installation.schedule
        return schedule.backend in cls.backends and (schedule.servers > 1 or not cls.needs_cluster)

    @abstractmethod
    async def begin(self) -> None:
        """Break something."""

    async def end(self) -> None:  # noqa: B027 - nothing has to be undone of some
        """Undo it; the parts then have to recover by themselves."""

    def pick(self, things: Sequence[T]) -> T:
        return self.random.choice(things)

    def pick_running(self, parts: Sequence[P]) -> P:
        """Choose a process that runs, if there is one: another fault may have ended some."""
        return self.pick([part for part in parts if part.runs and not part.expected_end] or parts)

    @asynccontextmanager
    async def nats(self) -> AsyncIterator[NatsClient]:
        """An administrator's connection to NATS."""
        async with admin([server.url for server in self.at.nats]) as client:
            yield client
