"""Batches against a real nats-server: what is stored, and what each publish is answered."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from roundlog.client.api import ask_api
from roundlog.client.codes import ErrorCode
from roundlog.client.connection import Connection, connect
from roundlog.client.nats_internals import writer_of
from roundlog.log_settings import LogSettings
from roundlog.publish.answers import Acks, ErrorAck
from roundlog.publish.fast_batch import UNCLEAR, FastBatch
from roundlog.publish.hpub import Publish, encode
from roundlog.publish.publish_connection import PublishConnection, open_publish_connection
from roundlog.stream import StreamInfo, open_log
from tests.backends.harness import stored
from tests.edits import edit
from tests.nats import NatsServer

pytestmark = pytest.mark.service


def publishes(*numbers: int, size: int = 2) -> list[Publish]:
    data = json.dumps({"round_id": 0, "extras": "x" * size}).encode()
    return [
        Publish(b"rounds.crash", number, b"crash:%d" % number, None, b"", data.replace(b": 0", b": %d" % number))
        for number in numbers
    ]


class Answered:
    """Collects the answers to publishes."""

    def __init__(self) -> None:
        self.acked: dict[int, int] = {}
        self.errors: dict[int, int] = {}
        self.duplicates = 0
        self._changed = asyncio.Event()

    def on_acks(self, acks: Acks) -> None:
        self.acked.update(dict.fromkeys(acks.numbers, acks.sequence))
        self.duplicates += acks.duplicates
        self._changed.set()

    def on_error_ack(self, error: ErrorAck) -> None:
        self.errors.setdefault(error.number, error.code)
        self._changed.set()

    async def all_of(self, numbers: Sequence[int]) -> None:
        async with asyncio.timeout(20):
            while not set(numbers) <= self.acked.keys() | self.errors.keys():
                self._changed.clear()
                await self._changed.wait()


@asynccontextmanager
async def publishing(
    nats: NatsServer, answers: Answered, *, allowed: bool = True, max_message_bytes: int = -1
) -> AsyncIterator[tuple[PublishConnection, Connection]]:
    settings = LogSettings(url=nats.url)
    async with connect(settings, name="publisher") as connection:
        await open_log(connection, settings)
        found = await ask_api(connection, "STREAM.INFO.ROUNDS", None, StreamInfo)
        edited = found.config | {"allow_batched": True, "max_msg_size": max_message_bytes}
        assert (await ask_api(connection, "STREAM.UPDATE.ROUNDS", edited, StreamInfo)).error is None
        info = await open_log(connection, settings)
        assert info.allows_batches
        if not allowed:
            edited["allow_batched"] = False
            assert (await ask_api(connection, "STREAM.UPDATE.ROUNDS", edited, StreamInfo)).error is None
        opened = await open_publish_connection(
            connection, info, on_acks=answers.on_acks, on_error_ack=answers.on_error_ack
        )
        yield opened, connection


async def test_a_batch_is_stored_in_order_and_acked_once(nats: NatsServer) -> None:
    """One final ack answers all publishes of a batch; batches follow one another on a connection."""
    answers = Answered()
    async with publishing(nats, answers) as (opened, _):
        for first in (1, 701, 1401):
            numbers = range(first, first + 700)
            await opened.send_batch(publishes(*numbers), head=first - 1)
            await answers.all_of(numbers)

    assert await stored(nats) == [("rounds.crash", number) for number in range(1, 2101)]
    assert (answers.errors, answers.duplicates) == ({}, 0)
    assert answers.acked[2100] == 2100


@pytest.mark.parametrize("again", [(1, 2, 3), (1, 4, 5), (4, 2, 5), (4, 5, 3), (1, 2), (2, 6, 7, 8)])
async def test_known_ids_in_a_batch_are_not_stored_again_and_make_it_unclear(
    nats: NatsServer, again: tuple[int, ...]
) -> None:
    """nats-server counts them as stored, also when an election lost them, so no ack of such a batch is believed."""
    answers = Answered()
    async with publishing(nats, answers) as (opened, _):
        await opened.send_batch(publishes(1, 2, 3), head=0)
        await answers.all_of((1, 2, 3))
        answers.acked.clear()
        await opened.send_batch(publishes(*again), head=3)
        await answers.all_of(again)

    assert answers.errors == dict.fromkeys(again, UNCLEAR)
    assert answers.acked == {}
    new = [number for number in again if number > 3]
    assert await stored(nats) == [("rounds.crash", number) for number in (1, 2, 3, *new)]


async def test_nothing_after_a_refused_publish_is_stored(nats: NatsServer) -> None:
    """A round over the stream's limit has the server's own error; the later ones are sent again by the pipeline."""
    answers = Answered()
    async with publishing(nats, answers, max_message_bytes=2000) as (opened, _):
        batch = [*publishes(1, 2), *publishes(3, size=3000), *publishes(4, 5)]
        await opened.send_batch(batch, head=0)
        await answers.all_of(range(1, 6))

    assert sorted(answers.acked) == [1, 2]
    assert answers.errors == {3: ErrorCode.MESSAGE_TOO_LARGE, 4: 0, 5: 0}
    assert await stored(nats) == [("rounds.crash", 1), ("rounds.crash", 2)]


@pytest.mark.parametrize("limit", [{"max_msgs": 3}, {"max_bytes": 400}, {"max_msgs_per_subject": 3}], ids=str)
async def test_full_log_refuses_the_rest_of_a_batch(nats: NatsServer, limit: dict[str, int]) -> None:
    """With ``discard`` new. The first round that has no room gets the reason; a batch is stored again once there is."""
    answers = Answered()
    full = {"discard": "new", "discard_new_per_subject": "max_msgs_per_subject" in limit}
    async with publishing(nats, answers) as (opened, _):
        before = await edit(nats, {**full, **limit})
        await opened.send_batch(publishes(1, 2, 3, 4, 5), head=0)
        await answers.all_of(range(1, 6))
        await opened.send_batch(publishes(6, 7, 8), head=3)
        await answers.all_of(range(6, 9))
        await edit(nats, before)
        await opened.send_batch(publishes(9, 10), head=3)
        await answers.all_of((9, 10))

    assert sorted(answers.acked) == [1, 2, 3, 9, 10]
    assert answers.errors == {4: 10077, 5: 0, 6: 10077, 7: UNCLEAR, 8: UNCLEAR}
    assert await stored(nats) == [("rounds.crash", number) for number in (1, 2, 3, 9, 10)]


@pytest.mark.parametrize("lost", [1, 2, 4])
async def test_nothing_after_a_lost_publish_is_stored(nats: NatsServer, lost: int) -> None:
    """A server that drops a publish drops the rest of the batch with it: this is what keeps the order of a game."""
    answers = Answered()
    async with publishing(nats, answers) as (opened, connection):
        batch = publishes(1, 2, 3, 4, 5)
        opened.batch = FastBatch(opened.inbox, 1, [publish.number for publish in batch], head=0)
        kept = [pair for pair in zip(batch, opened.batch.replies(), strict=True) if pair[0].number != lost]
        writer = writer_of(connection.client)
        assert writer is not None
        writer.write(encode(*zip(*kept, strict=True)))
        await answers.all_of(range(1, 6))

    assert sorted(answers.acked) == list(range(1, lost))
    assert set(answers.errors) == set(range(lost, 6))
    assert await stored(nats) == [("rounds.crash", number) for number in range(1, lost)]


async def test_a_stream_that_allows_no_batches_refuses_each_publish(nats: NatsServer) -> None:
    """An operator has turned them off while ingest works: it learns that from the first answer."""
    answers = Answered()
    async with publishing(nats, answers, allowed=False) as (opened, _):
        await opened.send_batch(publishes(1, 2, 3), head=0)
        await answers.all_of((1, 2, 3))

    assert answers.errors == dict.fromkeys((1, 2, 3), ErrorCode.BATCHES_NOT_ALLOWED)
    assert await stored(nats) == []
