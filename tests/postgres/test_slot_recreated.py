"""A slot that is dropped and recreated between its check and the start of a stream."""

import asyncio

import pytest

from backends.postgres.replication.protocol.replication_connection import Record
from backends.postgres.replication.slot import Slot, SlotLost, SlotState
from backends.postgres.replication.slot_offset import SlotOffset
from roundlog.log_settings import LogSettings
from tests.backends.harness import captured_events, stored
from tests.nats import NatsServer, nats_client
from tests.postgres.ingesting import ingesting
from tests.postgres.reading import CONFIRMED, HEAD, make_backend, wait_for_sql
from tests.postgres_server import PostgresServer
from tests.waiting import until

pytestmark = pytest.mark.service

_RECREATE = """
    SELECT pg_drop_replication_slot('stream_relay');
    SELECT pg_create_logical_replication_slot('stream_relay', 'pgoutput')
"""


async def test_slot_recreated_while_the_stream_begins_is_checked_again(
    postgres: PostgresServer, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounds between the two slots are missing, so none after them is stored: the process that recreated the slot
    fills them in first."""
    await postgres.make_rounds_table()
    first = make_backend(postgres)
    async with ingesting(first, nats):
        await until(lambda: first.status.state is SlotState.STREAMING)
        await postgres.insert_rounds(1, 10)
        await until(lambda: has(nats, 10))
    await postgres.slots_released()
    await postgres.insert_rounds(11, 20)
    choose_start, is_recreated = SlotOffset.choose_start, False

    async def choose_and_recreate(self: SlotOffset, system: Record, slot: Slot) -> None:
        nonlocal is_recreated
        await choose_start(self, system, slot)
        if not is_recreated:
            is_recreated = True
            await postgres.execute(_RECREATE)
            await postgres.insert_rounds(21, 30)

    monkeypatch.setattr(SlotOffset, "choose_start", choose_and_recreate)
    with captured_events() as events, pytest.raises(SlotLost) as caught:
        async with ingesting(make_backend(postgres), nats) as task:
            await asyncio.wait([task])

    assert caught.value.state is SlotState.MOVED
    assert "stream_lost" in events
    assert [number for _, number in await stored(nats)] == list(range(1, 11))


async def has(nats: NatsServer, count: int) -> bool:
    return len(await stored(nats)) == count


@pytest.mark.parametrize("what", ["all", "the newest game"])
async def test_our_own_slot_is_not_moved_when_the_log_was_purged(
    postgres: PostgresServer, nats: NatsServer, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Rounds carried its offset, and have expired or were purged. The slot is ours, and no round is missing."""
    await postgres.make_rounds_table()
    monkeypatch.setattr(SlotOffset, "empty_wal_end", lambda _: None)  # so no offset is kept beside the rounds
    first = make_backend(postgres)
    async with ingesting(first, nats):
        await until(lambda: first.status.state is SlotState.STREAMING)
        await postgres.insert_rounds(1, 5)
        (row,) = await postgres.fetch(HEAD)
        await postgres.insert_rounds(6, 10, game="double")
        await until(lambda: has(nats, 10))
        await wait_for_sql(postgres, CONFIRMED, lambda lsn: lsn > row[0])
    await postgres.slots_released()
    await postgres.insert_rounds(11, 12)
    async with nats_client(LogSettings(url=nats.url)) as client:
        await client.jetstream().purge_stream("ROUNDS", subject="rounds.double" if what == "the newest game" else None)

    with captured_events() as events:
        async with ingesting(make_backend(postgres), nats):
            await until(lambda: has(nats, 2 if what == "all" else 7))
    assert "slot_not_proven" in events
    assert [number for _, number in await stored(nats)][-2:] == [11, 12]
