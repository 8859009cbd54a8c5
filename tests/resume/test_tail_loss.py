"""A log that loses its tail under a running relay, as when an older copy of the store is put back: never silence.

The log stays the same by name and epoch, and gives other rounds the sequences that it gave before.
"""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from auth.keys import DEMO_KEY
from roundlog.reader import LogReader
from roundlog.settings import LogSettings
from rounds import Round
from tests.nats import NatsServer
from tests.resume.conftest import StartRelay
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_round
from tests.resume.viewers import Viewer, watch

pytestmark = pytest.mark.service

PROTOCOLS = pytest.mark.parametrize("protocol", ["ws", "sse"])


class Restorable:
    """A nats-server whose store was copied when it held less."""

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
        """Kill the server, put the copy back, store `rounds` before any relay is there again; yield the log."""
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
async def told_of_100(store: Restorable, start_relay: StartRelay) -> AsyncIterator[tuple[str, LogWriter, Viewer]]:
    """A relay, its log and a client that has seen its rounds 1 to 100; what can be restored has 50 of them."""
    async with (
        start_relay() as relay,
        LogWriter.open(store.settings) as log,
        watch(relay, "crash", after=log.cursor(0)) as told,
    ):
        await log.store(*(make_round("crash", number) for number in range(51, 101)))
        await told.until_round(100)
        yield relay, log, told


@PROTOCOLS
async def test_live_clients_get_what_comes_next_and_are_told(
    store: Restorable, start_relay: StartRelay, protocol: str
) -> None:
    """Other rounds under sequences that were given before are new rounds; who knows of cursors hears why."""
    async with (
        start_relay() as relay,
        LogWriter.open(store.settings) as log,
        watch(relay, "crash", protocol=protocol, after=log.cursor(0)) as told,
        watch(relay, "crash", protocol=protocol, last=1) as untold,
    ):
        await log.store(*(make_round("crash", number) for number in range(51, 101)))
        for viewer in (told, untold):
            await viewer.until_round(100)
        async with store.restored() as less:
            assert less.epoch == log.epoch
            await told.until(lambda message: message.get("event") == "gap")
            await less.store(*(make_round("crash", number) for number in range(1051, 1071)))
            for viewer in (told, untold):
                await viewer.until_round(1070)

    assert told.gaps == [ahead(log, end=50, seen=100)]
    assert untold.events == []
    assert told.ids == [*range(1, 101), *range(1051, 1071)]
    assert untold.ids[-21:] == [100, *range(1051, 1071)]


@pytest.mark.parametrize("count", [20, 60])
async def test_rounds_stored_before_the_relay_is_back_are_not_taken_for_repeats(
    store: Restorable, start_relay: StartRelay, count: int
) -> None:
    """Where the log goes on as another is found by comparing rounds, even if it is longer again than it was."""
    rounds = [make_round("crash", number) for number in range(1051, 1051 + count)]
    async with told_of_100(store, start_relay) as (_, log, told), store.restored(*rounds) as less:
        await less.store(make_round("crash", 2000))
        await told.until_round(2000)

    assert told.gaps == [ahead(log, end=50, seen=100)]
    assert told.ids == [*range(1, 101), *range(1051, 1051 + count), 2000]


async def test_rounds_that_were_sent_again_are_no_loss(store: Restorable, start_relay: StartRelay) -> None:
    """Ingest sends again what was not confirmed: when it gets the same place, nothing has happened to clients."""
    rounds = [make_round("crash", number) for number in range(51, 111)]
    async with told_of_100(store, start_relay) as (_, _, told), store.restored(*rounds) as again:
        await again.store(make_round("crash", 111))
        await told.until_round(111)

    assert told.gaps == []
    assert told.ids == list(range(1, 112))


async def test_cursors_beyond_the_loss(store: Restorable, start_relay: StartRelay) -> None:
    """Streams say `ahead`, REST that the cursor is lost; a cursor from before the loss is as good as ever."""
    async with told_of_100(store, start_relay) as (relay, log, told), store.restored() as less:
        await told.until(lambda message: message.get("event") == "gap")
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


async def test_replay_under_way_goes_on_behind_the_loss(nats: NatsServer, start_relay: StartRelay) -> None:
    """A client that reads slowly is somewhere beyond the new end: a gap in its place, then what follows now."""
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


async def test_replica_that_is_behind_is_no_loss(
    nats: NatsServer, start_relay: StartRelay, log: LogWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may say that the log ends before what was handed on: only its leader is believed."""
    monkeypatch.setattr("relay.live.feed._POLL_S", 0.05)
    asked = 0

    async def late_last(_reader: LogReader) -> int:
        nonlocal asked
        asked += 1
        return 7

    async with start_relay() as relay, watch(relay, "crash", after=log.cursor(0)) as told:
        await log.store(*(make_round("crash", number) for number in range(1, 11)))
        await told.until_round(10)
        monkeypatch.setattr(LogReader, "last", late_last)
        number = 10
        while asked < 5:
            number += 1
            await log.store(make_round("crash", number))
            await told.until_round(number)

    assert told.gaps == []
    assert told.ids == list(range(1, number + 1))
