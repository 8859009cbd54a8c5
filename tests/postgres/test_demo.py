"""`stream-relay dev --backend postgres-…` as in the README."""

import asyncio
import re
import signal
import sys
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from auth.key_secret import DEMO_KEY
from tests.relay.conftest import wait_ready

pytestmark = pytest.mark.service

_PROGRAM = Path(sys.executable).with_name("stream-relay")
_INSERT = """INSERT INTO rounds (game_slug, extras) VALUES ('crash', '{"point": "777.77"}')"""


async def _printed(process: asyncio.subprocess.Process, pattern: str) -> str:
    assert process.stdout is not None
    seen = ""
    async for line in process.stdout:
        seen += line.decode()
        if match := re.search(pattern, seen):
            return match[1]
    raise AssertionError(seen)


@pytest.mark.parametrize("backend", ["postgres-replication", "postgres-notify"])
async def test_row_inserted_by_hand_reaches_a_client(backend: str) -> None:
    """The command that the demo prints works, the demo produces rounds by itself, and Ctrl-C ends everything."""
    process = await asyncio.create_subprocess_exec(
        _PROGRAM, "dev", "--backend", backend, "--port", "0",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            url = await _printed(process, r"is up\s+(http://\S+)")
            dsn = await _printed(process, r"(postgresql://\S+)")
            async with aiohttp.ClientSession(url, headers={"X-API-Key": DEMO_KEY}) as client:
                await wait_ready(url)
                await _insert_is_seen(client, dsn)
            process.send_signal(signal.SIGINT)
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode == 0


async def _insert_is_seen(client: aiohttp.ClientSession, dsn: str) -> None:
    async with client.get("/sse/crash") as stream:
        await _line_with(stream, b'"game_slug":"crash"')
        connection = await asyncpg.connect(dsn)
        await connection.execute(_INSERT)
        await connection.close()
        await _line_with(stream, b"777.77")


async def _line_with(stream: aiohttp.ClientResponse, text: bytes) -> None:
    async for line in stream.content:
        if text in line:
            return
    raise AssertionError("the stream ended")
