"""When rounds are sent in a batch, and when one per game: the pipeline over a connection that only records."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backends.publish import pipeline as pipeline_module
from backends.publish.pipeline import Pipeline
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.window.acks import Entry
from roundlog.client.connection import Connection
from roundlog.publish.answers import Acks, ErrorAck
from roundlog.publish.fast_batch import UNCLEAR
from roundlog.publish.hpub import Publish
from roundlog.stream import LogInfo
from tests.backends.harness import DeadLetters

REPLICATED = LogInfo(epoch="e", first=1, last=0, stream="ROUNDS", replicas=3, allows_batches=True)


class RecordingConnection:
    """Records what is sent and answers nothing by itself."""

    is_open = True

    def __init__(self, on_acks: Callable[[Acks], None], on_error_ack: Callable[[ErrorAck], None]) -> None:
        self.sent: asyncio.Queue[tuple[str, list[int]]] = asyncio.Queue()
        self._on_acks = on_acks
        self._on_error_ack = on_error_ack
        self._stored = 0

    async def send(self, publishes: Iterable[Publish]) -> None:
        self.sent.put_nowait(("alone", [publish.number for publish in publishes]))

    async def send_batch(self, publishes: Iterable[Publish], *, head: int) -> None:
        assert head == self._stored
        self.sent.put_nowait(("batch", [publish.number for publish in publishes]))

    def ack(self, numbers: list[int]) -> None:
        self._stored += len(numbers)
        self._on_acks(Acks(numbers, 0, self._stored))

    def refuse(self, numbers: list[int], code: int) -> None:
        for number in numbers:
            self._on_error_ack(ErrorAck(number, code, "refused"))

    def drop_unsent(self, after_s: float) -> None:
        """No socket."""

    def abort(self) -> None:
        """Nothing to close."""


@asynccontextmanager
async def publishing(
    monkeypatch: pytest.MonkeyPatch, games: list[str], info: LogInfo = REPLICATED
) -> AsyncIterator[RecordingConnection]:
    """Publish one round of each of `games`, numbered from 0, over a connection that records."""
    opened: asyncio.Future[RecordingConnection] = asyncio.get_running_loop().create_future()

    async def open_recording(_: Connection, found: LogInfo, **callbacks: Any) -> RecordingConnection:
        assert found is info
        opened.set_result(RecordingConnection(**callbacks))
        return opened.result()

    monkeypatch.setattr(pipeline_module, "open_publish_connection", open_recording)
    pipeline = Pipeline[int](PublisherSettings(), confirm=lambda _: None, rejects=DeadLetters())
    for number, game in enumerate(games):
        await pipeline.add(Entry(number, f"rounds.{game}".encode(), f"{game}:{number}".encode(), b"{}"))
    reader = asyncio.create_task(asyncio.sleep(0))
    connection = cast("Connection", SimpleNamespace(max_payload=1 << 20))
    running = asyncio.create_task(pipeline.run(connection, info, reader))
    async with asyncio.timeout(20):
        yield await opened
        await running


async def test_rounds_of_one_game_go_in_one_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next batch waits for the answer to the one before it."""
    async with publishing(monkeypatch, ["crash"] * 3000) as connection:
        kind, first = await connection.sent.get()
        assert (kind, first) == ("batch", list(range(len(first))))
        await asyncio.sleep(0)
        assert connection.sent.empty()
        connection.ack(first)
        kind, second = await connection.sent.get()
        assert (kind, second[0]) == ("batch", len(first))
        connection.ack(second)
        while len(first) + len(second) < 3000:
            second += (further := (await connection.sent.get())[1])
            connection.ack(further)


async def test_rounds_that_may_be_stored_are_sent_one_per_game(monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-server acks a publish of a batch by its id alone, also when an election lost the round of this id."""
    async with publishing(monkeypatch, ["crash", "crash", "dice"]) as connection:
        assert await connection.sent.get() == ("batch", [0, 1, 2])
        connection.refuse([0, 1, 2], UNCLEAR)
        assert await connection.sent.get() == ("alone", [0, 2])
        connection.ack([2])
        connection.ack([0])
        assert await connection.sent.get() == ("alone", [1])
        connection.ack([1])


async def test_part_of_a_batch_that_was_stored_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that is elected ends the batch: the others follow one per game, and then new rounds in batches again."""
    async with publishing(monkeypatch, ["crash"] * 3000) as connection:
        _, first = await connection.sent.get()
        connection.ack(first[:-2])
        connection.refuse(first[-2:], 0)
        assert await connection.sent.get() == ("alone", first[-2:-1])
        connection.ack(first[-2:-1])
        assert await connection.sent.get() == ("alone", first[-1:])
        connection.ack(first[-1:])
        done = len(first)
        while done < 3000:
            kind, further = await connection.sent.get()
            assert kind == "batch"
            connection.ack(further)
            done += len(further)


async def test_single_round_is_published_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of one has nothing to keep in order, and its ack takes the slow way through nats-py."""
    async with publishing(monkeypatch, ["crash"]) as connection:
        assert await connection.sent.get() == ("alone", [0])
        connection.ack([0])
