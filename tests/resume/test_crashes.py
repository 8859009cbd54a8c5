"""Relays and NATS killed during a replay, and clients that hardly read: no round is lost, and no memory grows."""

import asyncio
import itertools
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Self

import aiohttp
import pytest

from auth.key_secret import generate
from tests.clients.program import Program
from tests.nats import NatsServer
from tests.network.streams import connected
from tests.relay.conftest import wait_ready
from tests.relay.serving import COMMAND, SETTINGS
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_round
from tests.resume.viewers import Viewer, sequence_of, token_of, watch

pytestmark = pytest.mark.service

PROTOCOLS = pytest.mark.parametrize("protocol", ["ws", "sse"])
A_BYTE_EVERY_S: Final = 1.0
"""The situation itself: a client as slow as this for as long as a test has time."""
A_ROUND_EVERY_S: Final = 0.01
"""The situation itself: live rounds at a steady pace, as fast as a busy log's."""
SMALL: Final = 1 << 16
COUNT: Final = 40_000
"""Rounds in the log: about 9 MB on the wire, more than all buffers on the way to a client take."""

KEY, KEY_HASH = generate("private")
SECRETS: Final = f"t:{secrets.token_hex(32)}"


class Process:
    """A relay in a process of its own."""

    def __init__(self, program: Program, url: str) -> None:
        self.url = url
        self._program = program

    @property
    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self._program.pid}/statm").read_text("ascii").split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        os.kill(self._program.pid, signal.SIGKILL)


@asynccontextmanager
async def relay_process(nats: NatsServer) -> AsyncIterator[Process]:
    keys = {"RELAY_AUTH_KEYS": f"k={KEY_HASH}", "RELAY_AUTH_TOKEN_SECRETS": SECRETS}
    environment = {**SETTINGS, **keys, "RELAY_NATS_URL": nats.url}
    program = await asyncio.to_thread(Program, [COMMAND, "serve"], env=environment)
    try:
        [found] = await asyncio.to_thread(program.wait_for, r'"url": "(http://127\.0\.0\.1:\d+)"')
        await wait_ready(found[1])
        yield Process(program, found[1])
    finally:
        await asyncio.to_thread(program.stop)


async def store_history(log: LogWriter) -> None:
    await log.store_many(make_round("crash", number, at_ms=TEN_O_CLOCK_MS) for number in range(1, COUNT + 1))


@PROTOCOLS
async def test_relay_that_is_killed_in_mid_replay(nats: NatsServer, log: LogWriter, protocol: str) -> None:
    """The client resumes at another relay after its last round: each round once, in order."""
    await store_history(log)
    seen: list[int] = []
    async with relay_process(nats) as first, relay_process(nats) as second:
        async with watch(
            first.url, "crash", protocol=protocol, key=KEY, after=log.cursor(0), receive_buffer=SMALL
        ) as viewer:
            await viewer.until_rounds(1000)
            first.kill()
            await viewer.to_the_end()
        seen += viewer.ids
        assert 1000 <= len(seen) < COUNT
        cursor = viewer.rounds[-1]["cursor"]
        async with watch(second.url, "crash", protocol=protocol, key=KEY, after=cursor) as again:
            await again.until_round(COUNT)
            await log.store(make_round("crash", COUNT + 1))
            await again.until_round(COUNT + 1)
        seen += again.ids

    assert seen == list(range(1, COUNT + 2))
    assert again.events[0]["complete"] is True


@PROTOCOLS
async def test_nats_that_is_killed_in_mid_replay(nats: NatsServer, relay: str, log: LogWriter, protocol: str) -> None:
    """The link stays open and the replay waits; when NATS is back, it continues and joins the live stream."""
    await store_history(log)
    async with watch(relay, "crash", protocol=protocol, after=log.cursor(0), receive_buffer=SMALL) as viewer:
        await viewer.until_rounds(1000)
        await nats.kill()
        await nats.start()
        await viewer.until_round(COUNT)
        async with LogWriter.open(log.settings) as writer:
            await writer.store(make_round("crash", COUNT + 1))
            await viewer.until_round(COUNT + 1)

    assert viewer.ids == list(range(1, COUNT + 2))
    assert [event["event"] for event in viewer.events] == ["hello"]


async def test_resume_while_nats_is_down(nats: NatsServer, relay: str, log: LogWriter) -> None:
    """Clients that reconnect meanwhile get a retry delay; links that are open stay open."""
    await log.store(*(make_round("crash", number) for number in range(1, 101)))
    async with watch(relay, "crash", after=log.cursor(100)) as live:
        await live.until(lambda message: message.get("event") == "hello")
        await nats.kill()
        async with watch(relay, "crash", after=log.cursor(3)) as refused:
            assert await refused.receive() is None
            assert refused.ended is not None
            assert (refused.ended["code"], refused.ended["reason"]) == (1013, "log_unavailable")
        await live.say(action="ping")
        await live.until(lambda message: message.get("event") == "pong")
        await nats.start()
        await wait_ready(relay)
        async with watch(relay, "crash", after=log.cursor(3)) as viewer:
            await viewer.until_round(100)

    assert viewer.sequences == list(range(4, 101))
    assert viewer.events[0]["complete"] is True


@PROTOCOLS
async def test_client_that_reads_one_byte_a_second(nats: NatsServer, log: LogWriter, protocol: str) -> None:
    """It costs some buffers and a page of the log, not the history that it asked for, and is not ended. Live clients
    see no difference. When it reads on, it gets every round once.
    """
    await store_history(log)
    async with relay_process(nats) as relay:
        # What the process allocates for the first replay is not counted.
        async with watch(relay.url, "crash", key=KEY, after=log.cursor(0)) as quick:
            await quick.until_round(COUNT)
        before = relay.resident_bytes
        async with SlowReader.open(relay.url, protocol, log.cursor(0)) as slow:
            async with watch(relay.url, "dice", key=KEY) as live, slow.reading_a_byte_a_second():
                delays_s = await delays_of_live_rounds(log, live, for_s=4)
                grown = relay.resident_bytes - before
            numbers = await slow.read_on(COUNT)

    assert grown < 12 << 20
    # A live round that waits for the slow client waits for its next byte.
    assert sorted(delays_s)[len(delays_s) // 2] < A_BYTE_EVERY_S / 2
    assert numbers == list(range(1, COUNT + 1))


class SlowReader:
    """A raw socket, so that no library reads ahead."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._read = b""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, protocol: str, after: str) -> AsyncIterator[Self]:
        """Request a stream and read nothing of the answer."""
        headers = [f"X-API-Key: {KEY}"]
        if protocol == "ws":
            async with aiohttp.ClientSession() as session:
                token = await token_of(session, url, KEY)
            headers = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
            headers += ["Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", f"Sec-WebSocket-Protocol: {token}"]
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        port = int(url.rpartition(":")[2])
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        lines = [f"GET /{protocol}/crash?after={after} HTTP/1.1", "Host: relay", *headers, "", ""]
        async with connected(sock=connection, limit=1024) as (reader, writer):
            writer.write("\r\n".join(lines).encode())
            yield cls(reader, writer)

    @asynccontextmanager
    async def reading_a_byte_a_second(self) -> AsyncIterator[None]:
        async def read() -> None:
            while True:
                self._read += await self._reader.readexactly(1)
                await asyncio.sleep(A_BYTE_EVERY_S)

        task = asyncio.create_task(read())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def read_on(self, last: int) -> list[int]:
        """Read at full speed up to round `last`; return the numbers of all rounds in the order they came."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        end = b'"round_id":%d,' % last
        async with asyncio.timeout(60):
            data = bytearray(self._read)
            while end not in data[-(1 << 17) :]:
                piece = await self._reader.read(1 << 16)
                assert piece, f"cut off behind {bytes(data[-200:])!r}"
                data += piece
        return [int(number) for number in re.findall(rb'"round_id":([0-9]+),', data)]


async def delays_of_live_rounds(log: LogWriter, live: Viewer, *, for_s: float) -> list[float]:
    """Store a round every 10 ms and return how long each took to come, in seconds."""
    delays = []
    until = time.monotonic() + for_s
    for number in itertools.count():
        stored = time.monotonic()
        if stored > until:
            break
        await log.store(make_round("dice", number))
        await live.until_round(number)
        delays.append(time.monotonic() - stored)
        await asyncio.sleep(A_ROUND_EVERY_S)
    assert sequence_of(live.rounds[-1]["cursor"]) == COUNT + len(delays)
    return delays
