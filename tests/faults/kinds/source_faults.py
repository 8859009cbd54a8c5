"""Faults of the source: slots and publications that disappear, ended sessions, wrong clocks, huge transactions."""

from contextlib import suppress
from typing import Final

import asyncpg

from tests.faults.kinds.fault import Fault
from tests.waiting import until

_SLOT: Final = "stream_relay"
_END_SESSIONS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name NOT LIKE 'producer%'"
)
_SHIFTS_S: Final = (-86_400, -120, 120, 86_400)
_BURST: Final = 3000
_WITHIN_S: Final = 20.0


class EndSessions(Fault):
    """The server ends every session of ingest, again at the end."""

    name, kind = "end-sessions", "slot"

    async def begin(self) -> None:
        with suppress(OSError, asyncpg.PostgresError):
            await self.at.postgres.execute(f"{_END_SESSIONS} AND pid <> pg_backend_pid()")

    async def end(self) -> None:
        await self.begin()


class DropSlot(Fault):
    """The slot is dropped while rounds are committed: ingest makes another, and fills in what was not read."""

    name, kind, backends, reorders_by_id = "drop-slot", "slot", ("postgres-replication",), True

    async def begin(self) -> None:
        async def dropped() -> bool:
            await self.at.postgres.execute(f"{_END_SESSIONS} AND pid <> pg_backend_pid()")
            try:
                await self.at.postgres.execute("SELECT pg_drop_replication_slot($1)", _SLOT)
            except asyncpg.ObjectInUseError:
                return False  # a standby was faster
            except asyncpg.UndefinedObjectError:
                self.target = "there was none"
            return True

        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await until(dropped, within_s=_WITHIN_S)


class DropPublication(Fault):
    """The publication is dropped; at the end somebody creates it again, as it was."""

    name, kind, backends, reorders_by_id = "drop-publication", "publication", ("postgres-replication",), True

    async def begin(self) -> None:
        with suppress(OSError, asyncpg.PostgresError):
            await self.at.postgres.execute("DROP PUBLICATION IF EXISTS stream_relay")

    async def end(self) -> None:
        with suppress(OSError, asyncpg.PostgresError):  # ingest may have created it by now
            await self.at.postgres.execute(
                "CREATE PUBLICATION stream_relay FOR TABLE rounds "
                "WITH (publish = 'insert', publish_via_partition_root = true)"
            )


class AlterPublication(Fault):
    """The table is taken out of the publication, or its inserts are; at the end it is as it was."""

    name, kind, backends, reorders_by_id = "alter-publication", "publication", ("postgres-replication",), True

    async def begin(self) -> None:
        self.back, self.target = self.pick(
            (
                ("ALTER PUBLICATION stream_relay ADD TABLE rounds", "ALTER PUBLICATION stream_relay DROP TABLE rounds"),
                (
                    "ALTER PUBLICATION stream_relay SET (publish = 'insert')",
                    "ALTER PUBLICATION stream_relay SET (publish = 'delete')",
                ),
            )
        )
        with suppress(OSError, asyncpg.PostgresError):
            await self.at.postgres.execute(self.target)

    async def end(self) -> None:
        with suppress(OSError, asyncpg.PostgresError):
            await self.at.postgres.execute(self.back)


class ShiftClock(Fault):
    """The producer's clock is wrong: ``finished_at`` is minutes or a day off, in either direction."""

    name, kind = "shift-clock", "clock"

    async def begin(self) -> None:
        self.producer.shift_s = self.pick(_SHIFTS_S)
        self.target = f"{self.producer.shift_s} s"

    async def end(self) -> None:
        self.producer.shift_s = 0


class Burst(Fault):
    """One transaction of thousands of rounds of two games."""

    name, kind = "burst", "burst"

    async def begin(self) -> None:
        await self.producer.commit(_BURST, ("crash", "dice"))


FAULTS: tuple[type[Fault], ...] = (
    EndSessions, DropSlot, DropPublication, AlterPublication, ShiftClock, Burst,
)  # fmt: skip
