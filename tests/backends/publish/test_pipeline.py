"""The pipeline over connections that work and that fail."""

import asyncio

import pytest

from backends.publish.pipeline import Pipeline
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.window.acks import Entry
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import open_log
from rounds import dedup_id
from tests.backends.harness import DeadLetters, assert_log_is, make_round, stored
from tests.nats import NatsServer

pytestmark = pytest.mark.service


async def test_server_that_was_away_for_hours_is_used_again(nats: NatsServer) -> None:
    """After any number of failed connections the wait for an ack stays bounded, and queued rounds are published."""
    round_, confirmed = make_round(1, "crash"), asyncio.Queue[int]()
    pipeline = Pipeline[int](PublisherSettings(), confirm=confirmed.put_nowait, rejects=DeadLetters())
    for _ in range(5000):
        pipeline.lost()
    await pipeline.add(Entry(1, b"rounds.crash", dedup_id("crash", 1).encode(), round_.to_json()))
    reader = asyncio.create_task(asyncio.sleep(0))  # a source that has ended

    async with connect(LogSettings(url=nats.url), name="ingest", reconnect=False) as nc:
        await pipeline.run(nc, await open_log(nc, LogSettings()), reader)

    assert confirmed.get_nowait() == 1
    assert_log_is(await stored(nats), [round_])
