"""A log that loses its tail under a running relay, as when an older copy of the store is restored: clients get a gap.

The log stays the same by name and epoch, and gives other rounds the sequences that it gave before.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from auth.key_secret import DEMO_KEY
from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader
from rounds import Round
from tests.nats import NatsServer
from tests.resume.conftest import StartRelay
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_round
from tests.resume.viewers import Viewer, watch

pytestmark = pytest.mark.service

PROTOCOLS = pytest.mark.parametrize("protocol", ["ws", "sse"])


class Restorable:
    """A nats-server whose store was copied earlier."""

    def __init__(self, nats: NatsServer) -> None:
        self._nats = nats
        self._store, self._copy = nats.store / "jetstream", nats.store / "copy"
        self.settings = LogSettings(url=nats.url)

    async def copy(self) -> None:
        await self._nats.stop()
        shutil.copytree(self._store, self._copy)
        await self._nats.start()

    @asynccontextmanager
    async def restored(self, *rounds: Round) -> AsyncIterator[LogWriter]:
        """Kill the server, restore the copy, store `rounds` before a relay reconnects; yield the log."""
        await self._nats.kill()
        shutil.rmtree(self._store)
        shutil.copytree(self._copy, self._store)
        if rounds:
            elsewhere = NatsServer(self._nats.store)
            await elsewhere.start()
            async with LogWriter.open(LogSettings(url=elsewhere.url)) as log:
                await log.store(*rounds)
            await elsewhere.stop()
        await self._nats.start()
        async with LogWriter.open(self.settings) as log:
            yield log


@pytest.fixture
async def store(nats: NatsServer) -> Restorable:
    """A log of which rounds 1 to 50 are in the copy."""
    made = Restorable(nats)
    async with LogWriter.open(made.settings) as log:
        await log.store(*(make_round("crash", number) for number in range(1, 51)))
        await made.copy()
    return made


def ahead(log: LogWriter, *, end: int, seen: int) -> dict[str, object]:
    return {"event": "gap", "from": log.cursor(end), "to": log.cursor(seen), "reason": "ahead"}


@asynccontextmanager
async def viewer_of_100(store: Restorable, start_relay: StartRelay) -> AsyncIterator[tuple[str, LogWriter, Viewer]]:
    """A relay, its log and a client that has seen its rounds 1 to 100; what can be restored has 50 of them."""
    async with (
        start_relay() as relay,
        LogWriter.open(store.settings) as log,
        watch(relay, "crash", after=log.cursor(0)) as with_cursor,
    ):
        await log.store(*(make_round("crash", number) for number in range(51, 101)))
        await with_cursor.until_round(100)
        yield relay, log, with_cursor


@PROTOCOLS
async def test_live_clients_get_a_gap_and_the_next_rounds(
    store: Restorable, start_relay: StartRelay, protocol: str
) -> None:
    """Other rounds under sequences that were used before are new rounds; clients with cursors get the reason."""
    async with (
        start_relay() as relay,
        LogWriter.open(store.settings) as log,
        watch(relay, "crash", protocol=protocol, after=log.cursor(0)) as with_cursor,
        watch(relay, "crash", protocol=protocol, last=1) as without,
    ):
        await log.store(*(make_round("crash", number) for number in range(51, 101)))
        for viewer in (with_cursor, without):
            await viewer.until_round(100)
        async with store.restored() as less:
            assert less.epoch == log.epoch
            await with_cursor.until(lambda message: message.get("event") == "gap")
            await less.store(*(make_round("crash", number) for number in range(1051, 1071)))
            for viewer in (with_cursor, without):
                await viewer.until_round(1070)

    assert with_cursor.gaps == [ahead(log, end=50, seen=100)]
    assert without.events == []
    assert with_cursor.ids == [*range(1, 101), *range(1051, 1071)]
    assert without.ids[-21:] == [100, *range(1051, 1071)]


@pytest.mark.parametrize("count", [20, 60])
async def test_rounds_stored_before_the_relay_reconnects_are_not_taken_for_repeats(
    store: Restorable, start_relay: StartRelay, count: int
) -> None:
    """The relay compares rounds to find where the log differs, even when it is longer than before."""
    rounds = [make_round("crash", number) for number in range(1051, 1051 + count)]
    async with viewer_of_100(store, start_relay) as (_, log, with_cursor), store.restored(*rounds) as less:
        await less.store(make_round("crash", 2000))
        await with_cursor.until_round(2000)

    assert with_cursor.gaps == [ahead(log, end=50, seen=100)]
    assert with_cursor.ids == [*range(1, 101), *range(1051, 1051 + count), 2000]


async def test_rounds_that_were_published_again_are_no_loss(store: Restorable, start_relay: StartRelay) -> None:
    """Ingest publishes unacknowledged rounds again: when they get the same sequences, clients see no difference."""
    rounds = [make_round("crash", number) for number in range(51, 111)]
    async with viewer_of_100(store, start_relay) as (_, _, with_cursor), store.restored(*rounds) as again:
        await again.store(make_round("crash", 111))
        await with_cursor.until_round(111)

    assert with_cursor.gaps == []
    assert with_cursor.ids == list(range(1, 112))


async def test_cursors_after_the_lost_tail(store: Restorable, start_relay: StartRelay) -> None:
    """Streams send `ahead`, REST answers `cursor_lost`; a cursor from before the loss stays valid."""
    async with viewer_of_100(store, start_relay) as (relay, log, with_cursor), store.restored() as less:
        await with_cursor.until(lambda message: message.get("event") == "gap")
        async with watch(relay, "crash", after=log.cursor(100)) as late:
            await late.until(lambda message: message.get("event") == "gap")
            await less.store(*(make_round("crash", number) for number in range(1051, 1061)))
            await late.until_round(1060)
        async with watch(relay, "crash", after=log.cursor(40)) as early:
            await early.until_round(1060)
        async with aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as session:
            async with session.get(f"{relay}/api/history/crash", params={"after": log.cursor(100)}) as refused:
                status = refused.status
            async with session.get(f"{relay}/api/history/crash", params={"limit": "12"}) as newest:
                found = [round_["round_id"] for round_ in await newest.json()]

    assert late.gaps == [ahead(log, end=50, seen=100)]
    assert late.ids == list(range(1051, 1061))
    assert early.ids == [*range(41, 51), *range(1051, 1061)]
    assert (early.events[0]["complete"], early.gaps) == (True, [])
    assert status == 404
    assert found == [*range(1060, 1050, -1), 50, 49]


async def test_replay_continues_after_the_lost_tail(nats: NatsServer, start_relay: StartRelay) -> None:
    """The replay of a slow client is past the new end: it gets a gap, then the rounds stored after the end."""
    store, small = Restorable(nats), 1 << 16
    async with LogWriter.open(store.settings) as log:
        await log.store(make_round("crash", 1, at_ms=TEN_O_CLOCK_MS))
        await store.copy()
    async with start_relay(replay={"ring_rounds": 20}) as relay, LogWriter.open(store.settings) as log:
        await log.store_many(make_round("crash", number, at_ms=TEN_O_CLOCK_MS) for number in range(2, 30_001))
        async with (
            watch(relay, "crash", after=log.cursor(0), receive_buffer=small) as slow,
            watch(relay, "crash", after=log.cursor(30_000)) as live,
        ):
            await slow.until_rounds(100)
            async with store.restored() as less:
                await live.until(lambda message: message.get("event") == "gap")
                await less.store(make_round("crash", 40_000))
                for viewer in (live, slow):
                    await viewer.until_round(40_000)

    [gap] = slow.gaps
    had = int(gap["to"].rpartition("-")[2])
    assert (gap["from"], gap["reason"]) == (log.cursor(1), "ahead")
    assert slow.ids == [*range(1, had + 1), 40_000]


async def test_replica_that_lags_is_no_loss(
    nats: NatsServer, start_relay: StartRelay, log: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica may end before what was delivered: only the leader's answer counts."""
    monkeypatch.setattr("relay.live.following.feed._POLL_S", 0.05)
    asked = 0

    async def late_last(_reader: LogReader) -> int:
        nonlocal asked
        asked += 1
        return 7

    async with start_relay() as relay, watch(relay, "crash", after=log.cursor(0)) as with_cursor:
        await log.store(*(make_round("crash", number) for number in range(1, 11)))
        await with_cursor.until_round(10)
        monkeypatch.setattr(LogReader, "last", late_last)
        number = 10
        while asked < 5:
            number += 1
            await log.store(make_round("crash", number))
            await with_cursor.until_round(number)

    assert with_cursor.gaps == []
    assert with_cursor.ids == list(range(1, number + 1))
