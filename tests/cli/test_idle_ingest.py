"""``ingest`` whose source has nothing: its readiness is that of the log, though no round waits for it."""

import asyncio
import json

import aiohttp
import pytest

from tests.cli.command import COMMAND
from tests.clients.program import clean_environment
from tests.nats import NatsServer
from tests.waiting import until

pytestmark = pytest.mark.service


async def test_idle_ingest_is_not_ready_while_the_log_is_away(nats: NatsServer) -> None:
    """Also before it was ever connected; it is ready again when the log is back."""
    await nats.stop()
    environment = {"RELAY_NATS_URL": nats.url, "RELAY_INGEST_HOST": "127.0.0.1", "RELAY_INGEST_PORT": "0"}
    pipe, null = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    ingest = await asyncio.create_subprocess_exec(
        *(COMMAND, "ingest", "--backend", "file", "-o", "path=-"),
        env=clean_environment() | environment,
        stdin=pipe,
        stdout=null,
        stderr=pipe,
    )
    try:
        assert ingest.stderr is not None
        listening = json.loads(await ingest.stderr.readline())
        async with aiohttp.ClientSession(f"http://127.0.0.1:{listening['port']}") as client:

            async def reason() -> str:
                async with client.get("/readyz") as response:
                    return str((await response.json()).get("reason", "ready"))

            async def is_away() -> bool:
                return await reason() == "log_unavailable"

            async def is_ready() -> bool:
                return await reason() == "ready"

            await until(is_away)
            await nats.start()
            await until(is_ready)
            await nats.kill()
            await until(is_away)
    finally:
        ingest.kill()
        await ingest.communicate()
