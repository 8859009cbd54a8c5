"""A file, ingest, NATS, a relay and its clients together, each in its own process, while NATS is killed."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import aiohttp
import grpc
import pytest

from rounds import Round
from rounds import datastream_pb2 as pb
from tests.backends.file.replaying import START_MS, round_at, write
from tests.cli.command import COMMAND
from tests.clients.program import Program
from tests.nats import NatsServer
from tests.relay.serving import Serving, serving
from tests.waiting import until

pytestmark = pytest.mark.service

COUNT: Final = 1_200
"""Rounds of each of two games."""
EVERY_MS: Final = 5
KILLED_AT: Final = (300, 700)
"""Rounds of a game after which NATS is killed."""
FIRST_ID: Final = round_at(0).round_id


class Client:
    """Reads one link, which must not end before the last round has come."""

    def __init__(self, read: AsyncIterator[int]) -> None:
        self.ids: list[int] = []
        self._more = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(read))

    async def seen(self, count: int) -> None:
        """Wait until `count` rounds have come; fail when the link ends before."""
        async with asyncio.timeout(60), self._more:
            await self._more.wait_for(lambda: len(self.ids) >= count or self._reading.done())
        assert len(self.ids) >= count, f"the link ended after {len(self.ids)} rounds"

    async def leave(self) -> None:
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading

    async def _read(self, read: AsyncIterator[int]) -> None:
        try:
            async for round_id in read:
                self.ids.append(round_id)
                async with self._more:
                    self._more.notify_all()
        finally:
            async with self._more:
                self._more.notify_all()


async def websocket(relay: Serving, opened: Callable[[], None]) -> AsyncIterator[int]:
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": relay.key}) as http,
        http.ws_connect(f"{relay.url}/ws/crash") as ws,
    ):
        opened()
        async for message in ws:
            yield json.loads(message.data)["round_id"]


async def events(relay: Serving, opened: Callable[[], None]) -> AsyncIterator[int]:
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(headers={"X-API-Key": relay.key}, timeout=timeout) as http,
        http.get(f"{relay.url}/sse/crash") as stream,
    ):
        async for line in stream.content:
            if line.startswith(b"retry:"):
                opened()
            if line.startswith(b"data:"):
                yield json.loads(line[5:])["round_id"]


async def calls(relay: Serving, opened: Callable[[], None]) -> AsyncIterator[int]:
    [port] = re.findall(r'"grpc_port": (\d+)', "\n".join(relay.printed))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_stream(
            "/datastream.DataStream/StreamByGame",
            request_serializer=pb.StreamByGameRequest.SerializeToString,
            response_deserializer=pb.Round.FromString,
        )
        call = method(pb.StreamByGameRequest(game_slug="crash"), metadata=(("x-api-key", relay.key),))
        await call.initial_metadata()
        opened()
        async for message in call:
            yield message.round_id


async def attached(relay: Serving, protocol: Callable[[Serving, Callable[[], None]], AsyncIterator[int]]) -> Client:
    """Open a link and wait until it is open."""
    opened = asyncio.Event()
    client = Client(protocol(relay, opened.set))
    async with asyncio.timeout(20):
        await opened.wait()
    return client


async def not_ready(relay: Serving) -> None:
    """Wait until the relay reports that its log is unavailable."""
    async with aiohttp.ClientSession() as http:

        async def is_not_ready() -> bool:
            async with http.get(f"{relay.url}/readyz") as answer:
                return answer.status == 503

        await until(is_not_ready)


def recording(path: Path) -> Path:
    recorded: list[Round] = []
    for number in range(COUNT):
        recorded += [round_at(number, at_ms=START_MS + number * EVERY_MS, game=game) for game in ("crash", "dice")]
    return write(path, recorded)


async def test_killed_nats_costs_no_client_a_round_or_its_link(nats: NatsServer, tmp_path: Path) -> None:
    """NATS is killed twice with SIGKILL: every client gets every round, once and in order, on the same link."""
    ingest = {
        "RELAY_NATS_URL": nats.url,
        "RELAY_BACKEND_PATH": str(recording(tmp_path / "a.jsonl")),
        "RELAY_BACKEND_STATE_FILE": str(tmp_path / "state"),
    }
    async with serving(nats.url, RELAY_LOG_FORMAT="json") as relay:
        clients = [await attached(relay, protocol) for protocol in (websocket, events, calls)]
        with Program([COMMAND, "ingest"], env=ingest) as program:
            for count in KILLED_AT:
                await asyncio.gather(*(client.seen(count) for client in clients))
                await nats.kill()
                await not_ready(relay)
                await nats.start()
            code = await asyncio.to_thread(program.wait, within_s=60)
            await asyncio.gather(*(client.seen(COUNT) for client in clients))
        for client in clients:
            await client.leave()

    assert code == 0, program.printed
    for client in clients:
        assert client.ids == list(range(FIRST_ID, FIRST_ID + COUNT))
