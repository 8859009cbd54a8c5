"""The NATS users of docs/operations.md have the permissions that the processes need, and no others."""

import asyncio
from pathlib import Path

import aiohttp
import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from auth.key_secret import DEMO_KEY
from backends.contract import BackendContext
from backends.file import FileReplay
from backends.ingest.run_ingest import run_ingest
from backends.publish.rejects_stream import RejectsStream
from roundlog.log_settings import LogSettings
from rounds import Catalogue
from tests.backends.file.replaying import jsonl, round_at
from tests.docs.pages import blocks, text_of
from tests.nats import NatsServer, nats_client
from tests.resume.conftest import running

pytestmark = pytest.mark.service

[CONFIG] = blocks(text_of("operations.md"), "conf")


@pytest.fixture
async def guarded(nats: NatsServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> NatsServer:
    """A server with the users of the page."""
    await nats.stop()
    monkeypatch.setenv("RELAY_PASSWORD", "of-relay")
    monkeypatch.setenv("INGEST_PASSWORD", "of-ingest")
    guarded = NatsServer(nats.store, config=CONFIG)
    await guarded.start()
    return guarded


def log_of(server: NatsServer, user: str) -> LogSettings:
    return LogSettings.model_validate({"url": server.url, "user": user, "password": f"of-{user}"})


async def test_ingest_and_relay_do_all_their_work_with_them(guarded: NatsServer, tmp_path: Path) -> None:
    """Rounds are stored, a rejected one is kept in REJECTS, a client replays and follows; nothing is denied."""
    path = tmp_path / "rounds.jsonl"
    path.write_bytes(jsonl([round_at(n) for n in range(600)]) + b"no round\n")
    options = {"path": str(path), "speed": "max", "rejects_file": str(tmp_path / "rejects.jsonl")}
    try:
        with capture_logs() as logs:
            log = log_of(guarded, "ingest")
            async with RejectsStream(log, "file") as rejects:
                backend = FileReplay(options, BackendContext(Catalogue.load()))
                stats = await run_ingest(backend, log, rejects=rejects, name="file")
            async with (
                running(log_of(guarded, "relay"), replay={"ring_rounds": 10}) as url,
                aiohttp.ClientSession() as http,
            ):
                seen = 0
                async with http.get(f"{url}/sse/crash?last=600", headers={"X-API-Key": DEMO_KEY}) as stream:
                    async for line in stream.content:
                        seen += line.startswith(b"data: ")
                        if seen == 600:
                            break
    finally:
        await guarded.kill()

    assert (stats.acked, stats.rejected) == (600, 1)
    denied = [entry for entry in logs if entry["event"] in ("nats_error", "rejects_not_kept", "reject_not_stored")]
    assert denied == []


@pytest.mark.parametrize("user", ["relay", "ingest"])
async def test_only_the_server_may_publish_live_rounds(guarded: NatsServer, user: str) -> None:
    """Relays trust messages on `live.rounds.*`, so a publish to it is refused."""
    refused: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def note(error: Exception) -> None:
        if not refused.done():
            refused.set_result(str(error))

    nc = Client()
    try:
        await nc.connect(guarded.url, user=user, password=f"of-{user}", error_cb=note)
        await nc.publish("live.rounds.crash", b"{}")
        async with asyncio.timeout(10):
            said = await refused
        await nc.close()
    finally:
        await guarded.kill()

    assert "permissions violation for publish" in said.lower()
    assert "live.rounds.crash" in said


async def test_relay_may_not_store_rounds(guarded: NatsServer) -> None:
    """A relay only reads."""
    try:
        async with nats_client(log_of(guarded, "relay")) as nc:
            with pytest.raises(TimeoutError):
                await nc.request("rounds.crash", b"{}", timeout=0.5)
    finally:
        await guarded.kill()
