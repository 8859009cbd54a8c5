"""Faults of the stream in NATS: edited, purged, trimmed, its leader moved."""

from contextlib import suppress
from typing import Any, Final

from nats.errors import Error as NatsError

from tests.faults.kinds.fault import Fault
from tests.faults.record import STREAM, ApiError, ask, retrying, update_record

_DAY_NS: Final = 86_400 * 10**9
_KEPT: Final = (5, 50, 300)
"""How many entries a purge leaves."""
_GONE: Final = (ApiError, NatsError, OSError, TimeoutError)


async def edit(fault: Fault, **changes: Any) -> None:
    """Change the stream's configuration as ``nats stream edit`` does."""
    async with fault.nats() as client:
        config = (await retrying(client, f"STREAM.INFO.{STREAM}"))["config"]
        await retrying(client, f"STREAM.UPDATE.{STREAM}", config | changes)


class EditStream(Fault):
    """An edit that breaks no promise: age, size, description; undone at the end."""

    name, kind = "edit-stream", "stream edited"

    async def begin(self) -> None:
        changes: tuple[dict[str, Any], ...] = (
            {"max_age": 20 * _DAY_NS},
            {"max_bytes": 1 << 30},
            {"description": "edited"},
        )
        change = self.pick(changes)
        self.target = ", ".join(change)
        with suppress(*_GONE):
            async with self.nats() as client:
                config = (await retrying(client, f"STREAM.INFO.{STREAM}"))["config"]
            self.before = {name: config.get(name, "") for name in change}
            await edit(self, **change)

    async def end(self) -> None:
        with suppress(*_GONE):
            await edit(self, **getattr(self, "before", {}))


class RemoveRepublish(Fault):
    """Live rounds no longer reach relays; at the end they do again, and what was stored meanwhile is in the log."""

    name, kind = "remove-republish", "stream edited"

    async def begin(self) -> None:
        self.before: Any = None
        with suppress(*_GONE):
            async with self.nats() as client:
                config = (await retrying(client, f"STREAM.INFO.{STREAM}"))["config"]
                before = config.pop("republish", None)
                await retrying(client, f"STREAM.UPDATE.{STREAM}", config)
                self.before = before

    async def end(self) -> None:
        if self.before is not None:
            await edit(self, republish=self.before)


class Purge(Fault):
    """Everything but the newest entries is purged, once they have been recorded."""

    name, kind = "purge", "purged"

    async def begin(self) -> None:
        with suppress(*_GONE):
            async with self.nats() as client:
                await update_record(client, self.record)
                first = max(self.record.entries, default=0) - self.pick(_KEPT)
                if first > self.record.purged_to + 1:
                    await ask(client, f"STREAM.PURGE.{STREAM}", {"seq": first})
                    self.record.purged_to = max(self.record.purged_to, first - 1)
                    self.target = f"before {first}"


class DeleteFromMiddle(Fault):
    """Single entries are deleted from the middle of the log. Who has not read them yet may miss them."""

    name, kind = "delete-from-middle", "purged"

    async def begin(self) -> None:
        with suppress(*_GONE):
            async with self.nats() as client:
                await update_record(client, self.record)
                there = [seq for seq in self.record.entries if not self.record.is_gone(seq)]
                for sequence in self.random.sample(sorted(there), min(5, len(there))):
                    self.record.deleted.add(sequence)
                    await ask(client, f"STREAM.MSG.DELETE.{STREAM}", {"seq": sequence})
                    self.target += f"{sequence} "


class MoveLeader(Fault):
    """The stream's leader steps down, and again at the end."""

    name, kind, needs_cluster = "move-leader", "leader moved", True

    async def begin(self) -> None:
        with suppress(*_GONE):
            async with self.nats() as client:
                await retrying(client, f"STREAM.LEADER.STEPDOWN.{STREAM}")

    async def end(self) -> None:
        await self.begin()


FAULTS: tuple[type[Fault], ...] = (EditStream, RemoveRepublish, Purge, DeleteFromMiddle, MoveLeader)
