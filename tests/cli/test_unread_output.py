"""Processes whose output nobody reads: a log collector that stalls costs lines, not service."""

import asyncio
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex

import aiohttp
import pytest

from auth.key_secret import generate
from tests.cli.command import COMMAND
from tests.clients.program import clean_environment
from tests.nats import NatsServer
from tests.relay.conftest import metric
from tests.relay.serving import SETTINGS
from tests.waiting import until

pytestmark = pytest.mark.service

CLIENTS = 500
"""Their lines are more than twice what a pipe holds (64 KB)."""
END_S = 20.0


class Unread:
    """A process whose stderr is a pipe that is read only by `line`."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._reader, end = os.pipe()
        self._process = subprocess.Popen(
            [COMMAND, *arguments],
            env=clean_environment() | environment,
            stdin=subprocess.PIPE,
            stdout=end,
            stderr=end,
        )
        os.close(end)
        self._read = b""

    def line(self, pattern: str) -> re.Match[str]:
        """Read up to a line that matches. Later lines stay in the pipe."""
        while True:
            while b"\n" not in self._read:
                piece = os.read(self._reader, 1)
                assert piece, "the process has ended"
                self._read += piece
            line, _, self._read = self._read.partition(b"\n")
            if found := re.search(pattern, line.decode()):
                return found

    def feed(self, data: bytes) -> None:
        """Write to its standard input, and leave that open."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def stop(self) -> int:
        """End it with SIGTERM, without reading; return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(END_S)

    def close(self) -> None:
        os.close(self._reader)
        self._process.kill()
        self._process.communicate()


@contextmanager
def unread(*arguments: str, **environment: str) -> Iterator[Unread]:
    """Run a command while the block runs."""
    process = Unread(*arguments, **environment)
    try:
        yield process
    finally:
        process.close()


def come_and_go(port: int, key: str) -> None:
    """Open event streams one after another, and leave them: two log lines each."""
    request = f"GET /sse/crash HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n\r\n".encode()
    for _ in range(CLIENTS):
        with socket.create_connection(("127.0.0.1", port), timeout=END_S) as client:
            client.sendall(request)
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_relay_serves_and_drains(nats: NatsServer, log_format: str) -> None:
    """Every client is answered, probes and metrics too; SIGTERM ends it in time, with exit code 0."""
    key, stored = generate("private")
    settings = SETTINGS | {
        "RELAY_NATS_URL": nats.url,
        "RELAY_AUTH_KEYS": f"k={stored}",
        "RELAY_AUTH_TOKEN_SECRETS": f"t:{token_hex(32)}",
        "RELAY_LOG_FORMAT": log_format,
        "RELAY_DRAIN_GRACE_S": "2",
    }
    with unread("serve", **settings) as relay:
        port = int((await asyncio.to_thread(relay.line, r"(?=.*relay_listening).*http://127\.0\.0\.1:(\d+)"))[1])
        await asyncio.to_thread(relay.line, "log_connected")
        await asyncio.to_thread(come_and_go, port, key)
        async with aiohttp.ClientSession() as client:
            assert await metric(client, f"http://127.0.0.1:{port}", "relay_log_lines_dropped_total") == 0  # they wait

        assert await asyncio.to_thread(relay.stop) == 0


async def test_ingest_reads_and_stops(nats: NatsServer, tmp_path: Path) -> None:
    """A source of rows that are no rounds makes a line each: all are read, and SIGTERM ends it with exit code 0."""
    count = 1000
    settings = {"RELAY_NATS_URL": nats.url, "RELAY_INGEST_HOST": "127.0.0.1", "RELAY_INGEST_PORT": "0"}
    with unread(
        "ingest", "--backend", "file", "-o", "path=-", "-o", f"rejects_file={tmp_path}/rejects", **settings
    ) as ingest:
        port = (await asyncio.to_thread(ingest.line, r'(?=.*ingest_listening).*"port": (\d+)'))[1]
        await asyncio.to_thread(ingest.feed, b"{}\n" * count)
        async with aiohttp.ClientSession() as client:

            async def all_are_read() -> bool:
                return await metric(client, f"http://127.0.0.1:{port}", "ingest_rounds_rejected_total") >= count

            await until(all_are_read)
            assert await metric(client, f"http://127.0.0.1:{port}", "ingest_log_lines_dropped_total") == 0  # they wait

        assert await asyncio.to_thread(ingest.stop) == 0
