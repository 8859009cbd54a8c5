"""The publisher against a cluster of three whose leaders step down or die: nothing lost, doubled or reordered."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.errors import Error as NatsError

from backends.contract import Captured
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.client.api import ask_api
from roundlog.client.connection import connect
from roundlog.log_errors import LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.stream import StreamInfo, open_log
from tests.backends.harness import DeadLetters, Source, assert_log_is, captured_events, make_round, stored
from tests.backends.publish.test_publisher import duplicate_window_passed, without_probes
from tests.edits import edit
from tests.nats import NatsServer, nats_client
from tests.nats_cluster import nats_cluster
from tests.roundlog.nats_wire import NatsWire
from tests.waiting import until

pytestmark = [pytest.mark.service, pytest.mark.heavy, pytest.mark.timeout(180)]


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[dict[str, NatsServer]]:
    """Three servers by name, each knowing the others."""
    async with nats_cluster(tmp_path) as servers:
        yield servers


async def ask(server: NatsServer, call: str) -> dict[str, Any]:
    async with nats_client(LogSettings(url=server.url)) as nc:
        answer = await nc.request(f"$JS.API.{call}", b"", timeout=5)
    decoded: dict[str, Any] = msgspec.json.decode(answer.data)
    return decoded


async def leader_of(servers: list[NatsServer]) -> str:
    """Wait until the stream has a leader; return its name."""
    async with asyncio.timeout(60):
        while True:
            for server in servers:
                try:
                    info = await ask(server, "STREAM.INFO.ROUNDS")
                except (NatsError, TimeoutError):
                    continue
                if leader := info.get("cluster", {}).get("leader"):
                    return str(leader)


async def allow_batches(cluster: dict[str, NatsServer], settings: LogSettings, *, allowed: bool) -> None:
    """Create the stream, or edit it as `nats stream edit` does."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with connect(settings, name="test") as connection:
                    await open_log(connection, settings)
                    config = (await ask_api(connection, "STREAM.INFO.ROUNDS", None, StreamInfo)).config
                    edited = config | {"allow_batched": allowed}
                    if (await ask_api(connection, "STREAM.UPDATE.ROUNDS", edited, StreamInfo)).error is None:
                        return
            except LogUnavailable:  # no leader yet
                continue


@pytest.mark.parametrize(("allowed", "step"), [(False, 3_000), (True, 20_000)], ids=["one per game", "batches"])
async def test_leaders_that_step_down_or_die_cost_nothing(
    cluster: dict[str, NatsServer], *, allowed: bool, step: int
) -> None:
    """During an election a round may be dropped and the next one stored, unless so few are in flight."""
    source, rejects = Source(7 * step), DeadLetters()
    settings = LogSettings(url=",".join(server.url for server in cluster.values()), replicas=3)
    await allow_batches(cluster, settings, allowed=allowed)
    publisher: Publisher[int] = Publisher(
        settings, PublisherSettings(ack_timeout_s=2), confirm=source.confirm, rejects=rejects
    )
    running = asyncio.create_task(publisher.run(source.read()))

    for offset in (step, 2 * step, 3 * step):
        await source.confirmed_to(offset)
        leader = await leader_of(list(cluster.values()))
        await ask(cluster[leader], "STREAM.LEADER.STEPDOWN.ROUNDS")
    for offset in (4 * step, 5 * step):
        await source.confirmed_to(offset)
        leader = await leader_of(list(cluster.values()))
        await cluster[leader].kill()
        await leader_of([server for name, server in cluster.items() if name != leader])
        await cluster[leader].start()
    await running

    leader = await leader_of(list(cluster.values()))
    assert_log_is(await stored(cluster[leader]), source.rounds)
    assert source.confirmed[-1] == 7 * step
    assert publisher.stats.resent > 0


async def test_batches_can_be_allowed_and_forbidden_while_ingest_works(cluster: dict[str, NatsServer]) -> None:
    """An operator edits the stream. Nothing is lost, and rounds are sent in the way that the stream allows."""
    source, rejects = Source(100_000), DeadLetters()
    settings = LogSettings(url=",".join(server.url for server in cluster.values()), replicas=3)
    await allow_batches(cluster, settings, allowed=True)
    publisher: Publisher[int] = Publisher(settings, PublisherSettings(), confirm=source.confirm, rejects=rejects)
    running = asyncio.create_task(publisher.run(source.read()))

    await source.confirmed_to(20_000)
    with captured_events() as events:
        await allow_batches(cluster, settings, allowed=False)
        await events.seen("log_lost")
    await allow_batches(cluster, settings, allowed=True)
    await running

    leader = await leader_of(list(cluster.values()))
    assert_log_is(await stored(cluster[leader]), source.rounds)


async def test_log_that_is_full_takes_the_rest_of_a_batch_when_it_has_room(cluster: dict[str, NatsServer]) -> None:
    """An operator lets the stream refuse new rounds at a limit, instead of removing old ones, and takes that back."""
    source, rejects = Source(60_000), DeadLetters()
    settings = LogSettings(url=",".join(server.url for server in cluster.values()), replicas=3)
    await allow_batches(cluster, settings, allowed=True)
    publisher: Publisher[int] = Publisher(settings, PublisherSettings(), confirm=source.confirm, rejects=rejects)
    with captured_events() as events:
        running = asyncio.create_task(publisher.run(source.read()))
        await source.confirmed_to(10_000)
        before = await edit(cluster["a"], {"discard": "new", "max_msgs": 30_000})
        await events.seen("publish_refused")
        await source.confirmed_to(30_000)
        assert not running.done()
        await edit(cluster["a"], before)
        await running

    leader = await leader_of(list(cluster.values()))
    assert_log_is(await stored(cluster[leader]), source.rounds)
    assert source.confirmed[-1] == 60_000
    assert [event["code"] for event in events.details if event["event"] == "publish_refused"] == [10077]


async def test_two_publishers_on_a_replicated_log_disturb_neither_it_nor_each_other(
    cluster: dict[str, NatsServer],
) -> None:
    """A condition that fails stops a replicated stream permanently in nats-server 2.15, so none may be sent."""
    ours, same, theirs = Source(3000), Source(3000), Source(3000, start=10_001)
    theirs.rounds = [make_round(round_.round_id, f"{round_.game_slug}-2") for round_ in theirs.rounds]
    settings = LogSettings(url=",".join(server.url for server in cluster.values()), replicas=3)
    rejects = DeadLetters()
    publishers: list[Publisher[int]] = [
        Publisher(settings, PublisherSettings(), confirm=source.confirm, rejects=rejects)
        for source in (ours, same, theirs)
    ]

    async with asyncio.timeout(90):
        await asyncio.gather(
            *(one.run(source.read()) for one, source in zip(publishers, (ours, same, theirs), strict=True))
        )

    leader = await leader_of(list(cluster.values()))
    assert_log_is(await stored(cluster[leader]), [*ours.rounds, *theirs.rounds])
    stats = [one.stats for one in publishers]
    assert [one.acked + one.duplicates for one in stats] == [3000, 3000, 3000]
    # A round of a batch without a clear answer is found in the log, and counts as acked, whichever of the two stored
    # it; or it is published again, as a duplicate.
    assert sum(one.acked for one in stats) >= 6000 - sum(one.resent for one in stats)


async def test_lost_ack_delays_its_own_game_alone(cluster: dict[str, NatsServer]) -> None:
    """Acks of other games are no progress of it. It is sent again on the same connection, and order holds."""
    source, rejects, gate = Source(0), DeadLetters(), asyncio.Event()
    rounds = [make_round(number) for number in range(1, 2001)]

    async def read() -> AsyncIterator[Sequence[Captured[int]]]:
        for round_ in rounds:
            yield [Captured(round_, round_.round_id)]
            if not gate.is_set():
                await asyncio.sleep(0)

    await allow_batches(cluster, LogSettings(url=cluster["a"].url, replicas=3), allowed=False)
    async with NatsWire(cluster["a"]).listening() as wire:
        wire.loses = lambda subject, body: (
            subject.startswith(b"_INBOX.") and b'"stream":"ROUNDS"' in body and b'"seq":50}' in body and wire.lost < 1
        )
        settings = LogSettings(url=wire.url, replicas=3)
        publisher: Publisher[int] = Publisher(
            settings, PublisherSettings(ack_timeout_s=0.5), confirm=source.confirm, rejects=rejects
        )
        running = asyncio.create_task(publisher.run(read()))
        await until(lambda: wire.lost == 1)
        before = publisher.stats
        await source.confirmed_to(100)
        assert publisher.stats.reconnects == before.reconnects
        gate.set()
        await running

    leader = await leader_of(list(cluster.values()))
    assert_log_is(await stored(cluster[leader]), rounds)
    assert publisher.stats.duplicates >= 1


async def test_replicated_log_refuses_rounds_that_another_process_has_stored(cluster: dict[str, NatsServer]) -> None:
    """The duplicate window is over, and no clock shows that the process was paused."""
    slow, other, rejects = Source(600, pause_after=300), Source(600), DeadLetters()
    settings = LogSettings(url=cluster["a"].url, replicas=3, duplicate_window_s=0.1)
    first, second = (
        Publisher[int](settings, PublisherSettings(), confirm=source.confirm, rejects=rejects)
        for source in (slow, other)
    )
    running = asyncio.create_task(first.run(slow.read()))
    await slow.confirmed_to(300)
    before = first.stats.reconnects
    await second.run(other.read())
    await duplicate_window_passed(cluster["a"])
    slow.resume()
    await running

    leader = await leader_of(list(cluster.values()))
    assert_log_is(without_probes(await stored(cluster[leader])), slow.rounds)
    assert (first.stats.reconnects, first.stats.duplicates) == (before, 300)
