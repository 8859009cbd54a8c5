"""SIGHUP reads files again, and ends no process of ours: not a relay, nor ingest, nor the demo."""

import os
import signal
from pathlib import Path

import aiohttp
import pytest

from auth.key_secret import generate
from backends.recordings import bundled
from tests.cli.command import assert_one_line, run
from tests.clients.program import Program
from tests.nats import NatsServer
from tests.relay.serving import COMMAND, SETTINGS, Serving, serving
from tests.waiting import until

pytestmark = pytest.mark.service


async def test_relay_reads_its_keys_file_again(nats: NatsServer, tmp_path: Path) -> None:
    """A key that was added is accepted, one that was removed is not, and open links stay."""
    secrets, hashes = zip(*(generate("private") for _ in range(2)), strict=True)
    path = tmp_path / "keys.toml"
    path.write_text(f'[keys.one]\nhash = "{hashes[0]}"')
    async with (
        serving(nats.url, RELAY_AUTH_KEYS_FILE=str(path)) as relay,
        aiohttp.ClientSession(relay.url) as http,
        http.ws_connect("/ws/crash", headers={"X-API-Key": relay.key}) as ws,
    ):

        async def is_answered(secret: str, status: int) -> bool:
            async with http.get("/api/games", headers={"X-API-Key": secret}) as response:
                return response.status == status

        assert await is_answered(secrets[0], 200)
        path.write_text(f'[keys.two]\nhash = "{hashes[1]}"')
        relay.signal(signal.SIGHUP)
        await relay.logged("reload_requested")
        await until(lambda: is_answered(secrets[1], 200))
        await until(lambda: is_answered(secrets[0], 401))

        path.write_text("[keys.")
        relay.signal(signal.SIGHUP)
        await relay.logged("is not TOML.*key_entry_fault")
        assert await is_answered(secrets[1], 200)
        assert await is_answered(relay.key, 200)  # of the environment
        assert not ws.closed


def test_demo_survives_it() -> None:
    """It has no files to read again; other tools send it to all processes of a machine."""
    with Program([COMMAND, "dev", "--port", "0"], env=SETTINGS) as demo:
        demo.wait_for("stream-relay is up")
        os.kill(demo.pid, signal.SIGHUP)
        [found] = demo.wait_for(r"in the browser:\W+(?P<url>http://127\.0\.0\.1:\d+)")
        assert run("tail", "crash", "--count", "1", "--url", found["url"]).code == 0


def test_ingest_survives_it() -> None:
    """Here while it waits for NATS; SIGTERM still ends it."""
    settings = {"RELAY_NATS_URL": "nats://127.0.0.1:9", "RELAY_NATS_CONNECT_TIMEOUT_S": "0.2"}
    with Program([COMMAND, "ingest", "--backend", "file", "-o", f"path={bundled()}"], env=settings) as ingest:
        ingest.wait_for("cannot be reached")
        os.kill(ingest.pid, signal.SIGHUP)
        ingest.wait_for("reload_requested")
        os.kill(ingest.pid, signal.SIGTERM)
        assert ingest.wait() == 0


async def test_relay_with_a_store_and_no_keys_starts(nats: NatsServer) -> None:
    """With token secrets and nothing else, keys are those of NATS; the relay says what is missing, and goes on."""
    settings = {"RELAY_NATS_URL": nats.url, "RELAY_AUTH_TOKEN_SECRETS": Serving.token_secrets, **SETTINGS}
    with Program([COMMAND, "serve"], env=settings) as relay:
        relay.wait_for("does not exist; make a first key with: stream-relay key create.*key_store_lost")
        relay.wait_for("key_store_unavailable")


def test_dsn_is_masked_in_the_printed_settings() -> None:
    """And required for its store."""
    dsn = "postgresql://relay:hunter2@db.example/app"
    outcome = run("config", RELAY_AUTH_STORE="postgres", RELAY_AUTH_DSN=dsn)
    assert "RELAY_AUTH_STALE_S" in outcome.out
    assert "hunter2" not in outcome.out
    outcome = run("config", "--json", RELAY_AUTH_STORE="postgres", RELAY_AUTH_DSN=dsn)
    assert "hunter2" not in outcome.out

    assert_one_line(run("config", RELAY_AUTH_STORE="postgres"), "RELAY_AUTH", "needs dsn (RELAY_AUTH_DSN)")
    wrong = run("config", RELAY_AUTH_STORE="postgres", RELAY_AUTH_DSN="host=db password=hunter2")
    assert_one_line(wrong, "dsn (RELAY_AUTH_DSN) is not a URL of the form postgresql://")
    assert "hunter2" not in wrong.err
    assert_one_line(run("config", RELAY_AUTH_STORE="redis"), "RELAY_AUTH_STORE='redis'", "postgres")
