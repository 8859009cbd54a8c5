"""What the publisher's tests share: sources that count, and a look into the log."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import structlog

from backends.contract import Captured, Rejected
from roundlog.log_settings import LogSettings
from rounds import Round
from tests.nats import NatsServer, nats_client

GAMES = ("crash", "double", "fortune-dragon")


def make_round(number: int, game: str | None = None, extras: str = '{"point":"2.50"}') -> Round:
    return Round(
        number,
        GAMES[number % 3] if game is None else game,
        "multiplier",
        "2026-01-18T10:00:30Z",
        extras,
        1737194400000 + number,
    )


class Source:
    """Yields rounds 1 to `count`, each with its number as offset, and records what is confirmed."""

    def __init__(self, count: int, *, start: int = 1, batch: int = 100, pause_after: int | None = None) -> None:
        self.rounds = [make_round(number) for number in range(start, start + count)]
        self.yielded = 0
        self.confirmed: list[int] = []
        self._batch = batch
        self._pause_after = pause_after
        self._gate = asyncio.Event()
        self._changed = asyncio.Condition()
        self._notify: set[asyncio.Task[None]] = set()

    async def read(self) -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        for at in range(0, len(self.rounds), self._batch):
            if self.yielded == self._pause_after:
                await self._gate.wait()
            batch = self.rounds[at : at + self._batch]
            self.yielded += len(batch)
            yield [Captured(round_, round_.round_id) for round_ in batch]

    def confirm(self, offset: int) -> None:
        self.confirmed.append(offset)
        task = asyncio.create_task(self._tell())
        self._notify.add(task)
        task.add_done_callback(self._notify.discard)

    async def confirmed_to(self, offset: int) -> None:
        """Wait until everything up to `offset` is confirmed."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self.confirmed) and self.confirmed[-1] >= offset)

    def resume(self) -> None:
        """Go on after ``pause_after``."""
        self._gate.set()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class Events(list[str]):
    """The names of the structured events so far, and a way to wait for one."""

    def __init__(self) -> None:
        super().__init__()
        self.details: list[structlog.typing.EventDict] = []
        self._changed = asyncio.Event()

    def __call__(self, _: Any, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        self.append(event["event"])
        self.details.append(event)
        self._changed.set()
        raise structlog.DropEvent

    async def seen(self, name: str) -> None:
        """Wait until the event called `name` has happened."""
        while name not in self:
            self._changed.clear()
            await self._changed.wait()


@contextmanager
def captured_events() -> Iterator[Events]:
    """Take all structured events for as long as the block lasts."""
    processors = structlog.get_config()["processors"]
    kept, events = list(processors), Events()
    processors[:] = [structlog.stdlib.add_log_level, events]  # in place: loggers hold on to this list
    try:
        yield events
    finally:
        processors[:] = kept


class DeadLetters:
    """Takes rejected items and keeps them."""

    def __init__(self) -> None:
        self.items: list[Rejected[Any]] = []

    async def __call__(self, item: Rejected[Any]) -> None:
        self.items.append(item)


async def stored(server: NatsServer, url: str | None = None) -> list[tuple[str, int]]:
    """Read the whole log: subject and round id of each message, in log order; `url`: with credentials."""
    found: list[tuple[str, int]] = []
    async with nats_client(LogSettings(url=url or server.url)) as nc:
        for sequence in range(1, 1_000_000, 500):
            inbox = nc.new_inbox()
            subscription = await nc.subscribe(inbox)
            request = {"seq": sequence, "batch": 500, "next_by_subj": ">"}
            await nc.publish("$JS.API.DIRECT.GET.ROUNDS", msgspec.json.encode(request), reply=inbox)
            while True:
                message = await subscription.next_msg(timeout=10)
                headers = message.headers or {}
                if status := headers.get("Status"):
                    break
                if sequence <= int(headers["Nats-Sequence"]) < sequence + 500:
                    found.append((headers["Nats-Subject"], msgspec.json.decode(message.data)["round_id"]))
            await subscription.unsubscribe()
            if status == "404":
                break
    return found


def assert_log_is(found: list[tuple[str, int]], rounds: Sequence[Round]) -> None:
    """Assert that each game's rounds are in the log once, in the source's order, and that there is nothing else."""
    assert len(found) == len(rounds)
    for game in {round_.game_slug for round_ in rounds}:
        assert [number for subject, number in found if subject == f"rounds.{game}"] == [
            round_.round_id for round_ in rounds if round_.game_slug == game
        ]
