"""The accounts in a cluster: requests and answers cross servers, and still stay in their account."""

import asyncio
import json
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from auth.key_secret import DEMO_KEY
from backends.contract import BackendContext
from backends.file import FileReplay
from backends.ingest.run_ingest import run_ingest
from backends.publish.rejects_stream import RejectsStream
from roundlog.client.connection import connect
from rounds import Catalogue
from tests.backends.file.replaying import jsonl, round_at
from tests.clients.tools import ROOT
from tests.nats import NatsServer
from tests.nats_cluster import NAMES
from tests.network.ports import HeldPort
from tests.resume.conftest import running
from tests.security.accounts import accounts, attacker, log_of

pytestmark = [pytest.mark.service, pytest.mark.heavy]

PAGE: Final = b'{"seq":1,"batch":100,"next_by_subj":"rounds.*"}'
COUNT: Final = 1200


async def test_relays_of_a_cluster_read_and_follow_the_log_and_reach_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With infra/nats-cluster.conf and a log with three replicas, through each server."""
    held = [HeldPort() for _ in NAMES]
    ports = [port.number for port in held]
    routes = ", ".join(f'"nats://routes:of-route@127.0.0.1:{port}"' for port in ports)
    monkeypatch.setenv("NATS_ROUTES", f"[{routes}]")
    servers = []
    try:
        for name, port in zip(NAMES, ports, strict=True):
            monkeypatch.setenv("NATS_NAME", name)
            servers.append(member(tmp_path / name, port))
            await servers[-1].start()
        path = tmp_path / "rounds.jsonl"
        path.write_bytes(jsonl([round_at(number) for number in range(COUNT)]))
        log = log_of(servers[0], "ingest", replicas=3)
        options = {"path": str(path), "speed": "max", "rejects_file": str(tmp_path / "rejects.jsonl")}
        async with asyncio.timeout(60), RejectsStream(log, "file") as rejects:
            backend = FileReplay(options, BackendContext(Catalogue.load()))
            stats = await run_ingest(backend, log, rejects=rejects, name="file")
        assert stats.acked == COUNT
        for server in servers:
            await replay_and_follow(server, servers)
        await attack(servers)
    finally:
        await asyncio.gather(*(server.kill() for server in servers))


def member(store: Path, port: int) -> NatsServer:
    """Prepare one of the servers."""
    store.mkdir()
    (store / "nats-accounts.conf").write_text(accounts())
    config = (ROOT / "infra/nats-cluster.conf").read_text("utf-8")
    for of_infra, of_tests in (
        ('"127.0.0.1:8222"', '"127.0.0.1:-1"'),
        ("/data", f'"{store}/jetstream"'),
        ('"0.0.0.0:6222"', f'"127.0.0.1:{port}"'),
    ):
        assert of_infra in config
        config = config.replace(of_infra, of_tests)
    return NatsServer(store, config=config, jetstream=False)


async def replay_and_follow(server: NatsServer, servers: list[NatsServer]) -> None:
    """Read all rounds through `server`, and one more that is published through another."""
    relay = log_of(server, "relay", create=False, replicas=3)
    other = servers[servers.index(server) - 1]
    async with (
        running(relay, replay={"ring_rounds": 10}) as url,
        aiohttp.ClientSession() as http,
        http.get(f"{url}/sse/crash?last={COUNT}", headers={"X-API-Key": DEMO_KEY}) as stream,
        asyncio.timeout(60),
    ):
        seen = 0
        async for line in stream.content:
            seen += line.startswith(b"data: ")
            if seen == COUNT:
                break
        async with connect(log_of(other, "ingest"), name="test") as ingest:
            body = round_at(COUNT + servers.index(server)).to_json()
            await ingest.request("rounds.crash", body)
        async for line in stream.content:
            if line.startswith(b"data: "):
                break


async def attack(servers: list[NatsServer]) -> None:
    """Ask through each server, with replies that mean something elsewhere."""
    async with connect(log_of(servers[0], "operator"), name="test") as operator:
        before = await operator.request("$JS.API.STREAM.INFO.ROUNDS", b"")
        for server in servers:
            async with attacker(server, "relay") as relay:
                for target in ("rounds.crash", "rejects.file", "$JS.API.STREAM.PURGE.ROUNDS"):
                    await relay.send("$JS.API.DIRECT.GET.ROUNDS", PAGE, reply=target)
                    await relay.send("$JS.API.STREAM.MSG.GET.ROUNDS", b'{"seq":1}', reply=target)
                assert await relay.answer("$JS.API.STREAM.INFO.ROUNDS") is not None  # the others were handled before
        after = await operator.request("$JS.API.STREAM.INFO.ROUNDS", b"")
    assert json.loads(after)["state"] == json.loads(before)["state"]
