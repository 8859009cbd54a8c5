"""Two processes of one source: what the other has stored meanwhile is never stored again, however late a round is sent.

nats-server recognises ids for its duplicate window only, which is over in all of these.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from backends.contract import Captured, HasStandby, Rejected
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from tests.backends.harness import DeadLetters, Source, assert_log_is, stored
from tests.backends.publish.test_publisher import duplicate_window_passed, without_probes
from tests.nats import NatsServer
from tests.network.wire import Wire
from tests.roundlog.nats_wire import NatsWire
from tests.waiting import until

pytestmark = pytest.mark.service

_WINDOW_S = 0.1


def publisher(
    url: str, source: Source, *, window_s: float = _WINDOW_S, standby: HasStandby | None = None, **settings: Any
) -> Publisher[int]:
    return Publisher(
        LogSettings(url=url, duplicate_window_s=window_s, connect_timeout_s=0.5),
        PublisherSettings(**{"ack_timeout_s": 0.5, **settings}),
        confirm=source.confirm,
        rejects=DeadLetters(),
        standby=standby,
    )


async def test_round_read_and_not_yet_sent_is_looked_up_after_an_outage(nats: NatsServer) -> None:
    """A process without NATS reads on until its window is full; meanwhile another one stores everything."""
    async with Wire("ingest>nats", lambda: nats.port).listening() as wire:
        away, other = Source(3000, pause_after=1000), Source(3000)
        first, second = publisher(wire.url, away, max_in_flight=500), publisher(nats.url, other)
        running = asyncio.create_task(first.run(away.read()))
        await away.confirmed_to(1000)
        wire.hold()
        away.resume()
        await until(lambda: first.stats.in_flight == 500)
        await until(lambda: first.stats.reconnects > 0)
        await second.run(other.read())
        await duplicate_window_passed(nats)
        wire.heal()
        await running

    assert_log_is(without_probes(await stored(nats)), away.rounds)
    assert away.confirmed[-1] == 3000


async def test_outage_in_which_nothing_was_in_flight_is_looked_up_too(nats: NatsServer) -> None:
    """The source yields late what another process has stored during the outage."""
    async with Wire("ingest>nats", lambda: nats.port).listening() as wire:
        away, other = Source(600, pause_after=300), Source(600)
        first = publisher(wire.url, away)
        running = asyncio.create_task(first.run(away.read()))
        await away.confirmed_to(300)
        wire.cut()
        wire.hold()
        await until(lambda: first.stats.reconnects > 0)
        await publisher(nats.url, other).run(other.read())
        await duplicate_window_passed(nats)
        wire.heal()
        away.resume()
        await running

    assert_log_is(without_probes(await stored(nats)), away.rounds)


async def test_log_refuses_what_another_process_has_stored_although_no_clock_shows_a_stall(nats: NatsServer) -> None:
    """A virtual machine that was paused: its clocks and its connection are as before. The log's condition fails."""
    slow, other = Source(900, pause_after=300), Source(900)
    first = publisher(nats.url, slow, ack_timeout_s=30)
    running = asyncio.create_task(first.run(slow.read()))
    await slow.confirmed_to(300)
    await publisher(nats.url, other).run(other.read())
    await duplicate_window_passed(nats)
    slow.resume()
    await running

    assert_log_is(without_probes(await stored(nats)), slow.rounds)
    assert first.stats.reconnects == 0
    assert first.stats.duplicates == 600


class Waiting:
    """A process that others may take turns with."""

    leads = False

    async def step_down(self) -> None: ...


async def test_standby_stores_nothing_that_was_stored_since_it_connected(nats: NatsServer) -> None:
    """It begins to read long after it has connected; its first write has no condition that would fail."""
    late, other = Source(300), Source(300)
    begins = asyncio.Event()

    async def read() -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        await begins.wait()
        async for batch in late.read():
            yield batch

    standby = publisher(nats.url, late, standby=Waiting())
    running = asyncio.create_task(standby.run(read()))
    await until(lambda: standby.has_log)
    await publisher(nats.url, other).run(other.read())
    await duplicate_window_passed(nats)
    begins.set()
    await running

    assert_log_is(without_probes(await stored(nats)), late.rounds)
    assert standby.stats.duplicates == 300


async def test_one_lost_ack_ends_the_wait_of_the_rounds_behind_it(nats: NatsServer) -> None:
    """Acks of later rounds are no progress of the oldest one: it is looked up after ``ack_timeout_s``."""
    source, gate = Source(0), asyncio.Event()

    async def endless() -> AsyncIterator[Sequence[Captured[int]]]:
        rounds = Source(5000).rounds
        for round_ in rounds:
            source.rounds.append(round_)
            yield [Captured(round_, round_.round_id)]
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(gate.wait(), 0.005)
            if gate.is_set():
                return

    async with NatsWire(nats).listening() as wire:
        wire.loses = lambda subject, body: b"_INBOX" in subject and b'"seq":50}' in body and wire.lost == 0
        publishing = publisher(wire.url, source, window_s=120, ack_timeout_s=2)
        running = asyncio.create_task(publishing.run(endless()))
        await until(lambda: wire.lost == 1)
        await source.confirmed_to(100)
        assert publishing.stats.in_flight < 1000
        gate.set()
        await running

    assert_log_is(await stored(nats), source.rounds)
    assert publishing.stats.reconnects == 1
