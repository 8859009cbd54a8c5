"""A standby takes over from a reader that works and cannot publish, for both backends that read from Postgres."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from backends.contract import Backend
from backends.ingest.run_ingest import run_ingest
from backends.postgres.replication.protocol.replication_connection import Record
from backends.postgres.replication.slot import Slot
from backends.postgres.replication.slot_offset import SlotOffset
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from roundlog.tasks import cancel_and_wait
from tests.backends.harness import captured_events, stored
from tests.nats import NatsServer, nats_client
from tests.network.wire import Wire
from tests.postgres.ingest_process import ingesting as ingesting_process
from tests.postgres.ingesting import notify_backend, set_up_notify
from tests.postgres.reading import make_backend
from tests.postgres.test_replication_faults import messages, stored_ids
from tests.postgres_server import PostgresServer
from tests.roundlog.nats_wire import NatsWire
from tests.waiting import until

pytestmark = pytest.mark.service

_HAND_OVER_S: Final = 0.7
_READING: Final = ("streaming", "reading")


@pytest.fixture(params=["postgres-replication", "postgres-notify"])
async def make(request: pytest.FixtureRequest, postgres: PostgresServer) -> Callable[[], Any]:
    """Makes backends of one kind that read one table."""
    await postgres.make_rounds_table()
    if request.param == "postgres-notify":
        await set_up_notify(postgres)
        return lambda: notify_backend(postgres, retry_max_s=0.2)
    async with make_backend(postgres).open():
        return lambda: make_backend(postgres)


@asynccontextmanager
async def ingesting(backend: Backend[Any], log: LogSettings, **settings: Any) -> AsyncIterator[None]:
    """Run ingest for as long as the block lasts. A slow machine must not look like a log that takes nothing."""
    task = asyncio.create_task(run_ingest(backend, log, PublisherSettings(**{"hand_over_s": _HAND_OVER_S, **settings})))
    try:
        yield
    finally:
        await cancel_and_wait(task)
        if not task.cancelled():
            task.result()


def log_at(url: str) -> LogSettings:
    """The log; it recognises ids for so short a time that every round stored again would show."""
    return LogSettings(url=url, duplicate_window_s=0.1)


def ack_of_round(subject: bytes, body: bytes) -> bool:
    """Say whether a message is the ack of a round: `NatsWire` then loses it."""
    return subject.startswith(b"_INBOX.") and body.startswith(
        (b'{"stream":"ROUNDS","seq":', b'{"stream":"ROUNDS", "seq":')
    )


async def reads(backend: Any) -> None:
    await until(lambda: backend.status.state in _READING)


async def waits(backend: Any) -> None:
    await until(lambda: backend.status.state == "standby")


@asynccontextmanager
async def reader_and_standby(make: Callable[[], Any], url: str, standby_url: str) -> AsyncIterator[tuple[Any, Any]]:
    """Run two processes, each with its way to NATS; the first reads."""
    first, second = make(), make()
    async with ingesting(first, log_at(url)):
        await reads(first)
        async with ingesting(second, log_at(standby_url)):
            await waits(second)
            yield first, second


async def test_reader_that_cannot_reach_nats_hands_over_and_takes_over_again(
    make: Callable[[], Any], postgres: PostgresServer, nats: NatsServer
) -> None:
    """Few rounds wait, far from a full window. Each is stored once, in order, in both directions."""
    first, second = make(), make()
    async with Wire("ingest>nats", lambda: nats.port).listening() as wire, ingesting(first, log_at(wire.url)):
        await reads(first)
        async with ingesting(second, log_at(nats.url)):
            await waits(second)
            await postgres.insert_rounds(1, 10)
            await stored_ids(nats, 10)
            wire.hold()
            await postgres.insert_rounds(11, 30)
            await stored_ids(nats, 30)
            assert second.status.state in _READING
            wire.heal()
            await waits(first)
            await postgres.insert_rounds(31, 40)
            await stored_ids(nats, 40)
        await reads(first)
        await postgres.insert_rounds(41, 50)
        assert await stored_ids(nats, 50) == list(range(1, 51))


async def test_idle_reader_that_cannot_reach_nats_hands_over_before_the_next_round(
    make: Callable[[], Any], postgres: PostgresServer, nats: NatsServer
) -> None:
    """No round has to wait for it."""
    async with (
        Wire("ingest>nats", lambda: nats.port).listening() as wire,
        reader_and_standby(make, wire.url, nats.url) as (_, second),
    ):
        wire.hold()
        wire.cut()
        await reads(second)
        await postgres.insert_rounds(1, 10)
        assert await stored_ids(nats, 10) == list(range(1, 11))
        wire.heal()


async def test_reader_without_the_right_to_publish_hands_over(
    make: Callable[[], Any], postgres: PostgresServer, tmp_path: Path
) -> None:
    """NATS answers everything else; a publish without the right has no answer."""
    users = '{user: a, password: a, permissions: {publish: {deny: "rounds.>"}}}, {user: b, password: b}'
    server = NatsServer(tmp_path, config=f"authorization {{ users: [{users}] }}")
    await server.start()
    urls = [f"nats://{user}:{user}@127.0.0.1:{server.port}" for user in "ab"]
    try:
        async with reader_and_standby(make, *urls) as (first, second):
            await postgres.insert_rounds(1, 10)
            await reads(second)
            await waits(first)
        assert [number for _, number in await stored(server, urls[1])] == list(range(1, 11))
    finally:
        await server.kill()


async def test_reader_whose_acks_are_lost_hands_over(
    make: Callable[[], Any], postgres: PostgresServer, nats: NatsServer
) -> None:
    """Its rounds are stored, and the standby finds them in the log."""
    async with NatsWire(nats).listening() as wire, reader_and_standby(make, wire.url, nats.url) as (_, second):
        wire.loses = ack_of_round
        await postgres.insert_rounds(1, 10)
        await reads(second)
        wire.loses = None
        await postgres.insert_rounds(11, 20)
        assert await stored_ids(nats, 20) == list(range(1, 21))


async def test_outage_for_all_processes_is_waited_for_without_a_reader(
    make: Callable[[], Any], postgres: PostgresServer, nats: NatsServer
) -> None:
    """Nobody takes over from a reader when nobody can publish; afterwards one of them reads, and nothing is doubled."""
    with captured_events() as events:
        async with reader_and_standby(make, nats.url, nats.url):
            await postgres.insert_rounds(1, 10)
            await stored_ids(nats, 10)
            await nats.kill()
            await postgres.insert_rounds(11, 20)
            await events.seen("reading_handed_over")
            connection = await postgres.connect()
            await connection.execute("SELECT pg_sleep($1)", 6 * _HAND_OVER_S)  # the situation: a long outage
            await connection.close()
            await nats.start()
            await postgres.insert_rounds(21, 30)
            assert await stored_ids(nats, 30) == list(range(1, 31))
    assert events.count("reading_handed_over") <= 3  # one each, and room for a slow machine


async def test_readers_whose_acks_are_lost_take_turns_and_double_nothing(
    make: Callable[[], Any], postgres: PostgresServer, nats: NatsServer
) -> None:
    """No check shows that a log does not ack rounds. Each stores what the other has not, and it ends with the fault."""
    first, second = make(), make()
    with captured_events() as events:
        async with (
            NatsWire(nats).listening() as wire,
            ingesting(first, log_at(wire.url)),
            ingesting(second, log_at(wire.url)),
        ):
            await until(lambda: {first.status.state, second.status.state} & set(_READING))
            wire.loses = ack_of_round
            await postgres.insert_rounds(1, 10)
            await until(lambda: events.count("reading_handed_over") >= 1)
            await postgres.insert_rounds(11, 20)
            await until(lambda: events.count("reading_handed_over") >= 2)
            wire.loses = None
            await postgres.insert_rounds(21, 30)
            assert await stored_ids(nats, 30) == list(range(1, 31))


async def test_rounds_stored_after_a_standby_has_looked_at_slot_and_log_are_not_stored_again(
    postgres: PostgresServer, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks again when the slot is free, also if the slot was not advanced."""
    await postgres.make_rounds_table()
    standby, other = make_backend(postgres), make_backend(postgres)
    choose_start, looked, taken = SlotOffset.choose_start, asyncio.Event(), asyncio.Event()

    async def choose_and_pause(self: SlotOffset, system: Record, slot: Slot) -> None:
        await choose_start(self, system, slot)
        if not looked.is_set():
            looked.set()
            await taken.wait()

    monkeypatch.setattr(SlotOffset, "choose_start", choose_and_pause)
    async with ingesting(standby, log_at(nats.url), hand_over_s=0):
        await looked.wait()
        async with ingesting(other, log_at(nats.url), hand_over_s=0, confirm_lag_s=60):
            await reads(other)
            taken.set()
            await waits(standby)
            await postgres.insert_rounds(1, 10)
            await stored_ids(nats, 10)
            connection = await postgres.connect()
            await connection.execute("SELECT pg_sleep(1)")  # the situation: the duplicate window has passed
            await connection.close()
        await postgres.insert_rounds(11, 20)
        assert await stored_ids(nats, 20) == list(range(1, 21))


async def test_single_process_resumes_after_an_outage(
    make: Callable[[], Any], postgres: PostgresServer, nats: NatsServer
) -> None:
    """It lets others read, nobody does, and it continues where the log ends."""
    backend = make()
    with captured_events() as events:
        async with ingesting(backend, log_at(nats.url)):
            await postgres.insert_rounds(1, 3000)
            await stored_ids(nats, 1000)
            await nats.kill()
            await postgres.insert_rounds(3001, 4000)
            await until(lambda: backend.status.state == "left")
            await nats.start()
            assert await stored_ids(nats, 4000) == list(range(1, 4001))
    assert [event["handed_over"] >= 1 for event in events.details if event["event"] == "ingest_finished"] == [True]


@pytest.mark.heavy  # on a busy machine the other process would stand still for longer than its lease, and hand over
@pytest.mark.parametrize("hand_over_s", [0.5, 0], ids=["hands-over", "never-hands-over"])
async def test_frozen_reader_that_resumes_after_the_duplicate_window_stores_nothing(
    postgres: PostgresServer, nats: NatsServer, hand_over_s: float
) -> None:
    """It held rounds in flight, in its queue and unread in its socket; all of them were stored meanwhile."""
    await postgres.make_rounds_table()
    log, publisher = {"duplicate_window_s": 3.0}, {"hand_over_s": hand_over_s}
    async with ingesting_process(postgres, nats, log=log, publisher=publisher, sender_timeout_s=1) as frozen:
        await frozen.said("stream_started")
        other = make_backend(postgres, sender_timeout_s=1)
        async with ingesting(other, LogSettings(url=nats.url, duplicate_window_s=3.0), hand_over_s=10):
            await waits(other)
            inserted = asyncio.create_task(postgres.insert_rounds(1, 10_000))
            async with nats_client(LogSettings(url=nats.url)) as nc:

                async def has_begun() -> bool:  # to read the rounds would take longer than to store all of them
                    return await messages(nc) >= 100

                await until(has_begun)
            frozen.freeze()
            assert len(await stored(nats)) < 10_000
            await inserted
            await stored_ids(nats, 10_000)
            connection = await postgres.connect()
            await connection.execute("SELECT pg_sleep(3.5)")  # the situation: the duplicate window has passed
            await connection.close()
            frozen.thaw()
            await frozen.said("slot_awaited")
            await postgres.insert_rounds(10_001, 10_010)
            assert await stored_ids(nats, 10_010) == list(range(1, 10_011))
