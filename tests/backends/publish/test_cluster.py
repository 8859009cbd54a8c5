"""The publisher against a cluster of three whose leaders step down or die: nothing lost, doubled or reordered."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nats.errors import Error as NatsError

from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from tests.backends.harness import DeadLetters, Source, assert_log_is, make_round, stored
from tests.nats import NatsServer, nats_client

pytestmark = [pytest.mark.service, pytest.mark.heavy, pytest.mark.timeout(180)]

NAMES = ("a", "b", "c")


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[dict[str, NatsServer]]:
    """Three servers by name, each knowing the others."""
    ports = free_ports(3)
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    servers = {}
    for name, port in zip(NAMES, ports, strict=True):
        store = tmp_path / name
        store.mkdir()
        config = f'server_name: {name}\ncluster {{ name: test, listen: "127.0.0.1:{port}", routes: [{routes}] }}'
        servers[name] = NatsServer(store, config=config)
    await asyncio.gather(*(server.start() for server in servers.values()))
    try:
        yield servers
    finally:
        await asyncio.gather(*(server.kill() for server in servers.values()))


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


async def test_leaders_that_step_down_or_die_cost_nothing(cluster: dict[str, NatsServer]) -> None:
    """During an election a round may be dropped and the next one stored; one round per game in flight keeps order."""
    source, rejects = Source(20_000), DeadLetters()
    settings = LogSettings(url=",".join(server.url for server in cluster.values()), replicas=3)
    publisher: Publisher[int] = Publisher(
        settings, PublisherSettings(ack_timeout_s=2), confirm=source.confirm, rejects=rejects
    )
    running = asyncio.create_task(publisher.run(source.read()))

    for offset in (2000, 5000, 8000):
        await source.confirmed_to(offset)
        leader = await leader_of(list(cluster.values()))
        await ask(cluster[leader], "STREAM.LEADER.STEPDOWN.ROUNDS")
    for offset in (11_000, 14_000):
        await source.confirmed_to(offset)
        leader = await leader_of(list(cluster.values()))
        await cluster[leader].kill()
        await leader_of([server for name, server in cluster.items() if name != leader])
        await cluster[leader].start()
    await running

    leader = await leader_of(list(cluster.values()))
    assert_log_is(await stored(cluster[leader]), source.rounds)
    assert source.confirmed[-1] == 20_000
    assert publisher.stats.resent > 0


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
    # A round whose ack was lost with a connection is found in the log, whichever of the two stored it.
    resent = sum(one.stats.resent for one in publishers)
    assert 6000 <= sum(one.stats.acked for one in publishers) <= 6000 + resent
