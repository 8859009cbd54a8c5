"""A relay process stands still for longer than several heartbeats: nobody is disconnected, and no round is lost."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Final

import aiohttp
import pytest

from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.relay.conftest import Publish
from tests.relay.serving import Serving, serving
from tests.rpc.caller import Caller
from tests.rpc.envelopes import element, envelope

pytestmark = pytest.mark.service

HEARTBEAT_S: Final = 1.0
STALL_S: Final = 4 * HEARTBEAT_S
EACH: Final = 8
"""Clients of each protocol."""
BEFORE, DURING, AFTER = 1, 300, 302
"""The last rounds published before, during and after the stall."""


class Client:
    """Reads one link for as long as it lasts."""

    def __init__(self) -> None:
        self.rounds: list[int] = []
        self.pings = 0
        self.end: object = None
        self._changed = asyncio.Event()

    def got(self, round_id: int) -> None:
        self.rounds.append(round_id)
        self._changed.set()

    def pinged(self) -> None:
        self.pings += 1
        self._changed.set()

    def ended(self, end: object) -> None:
        self.end = end
        self._changed.set()

    async def until(self, holds: Callable[["Client"], bool]) -> None:
        """Wait until something holds of this client; fail when its link ends before."""
        async with asyncio.timeout(30):
            while not holds(self):
                assert self.end is None, self.end
                self._changed.clear()
                await self._changed.wait()


async def read_websocket(client: Client, ws: aiohttp.ClientWebSocketResponse) -> None:
    while (message := await ws.receive()).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING):
        if message.type is aiohttp.WSMsgType.PING:
            await ws.pong(message.data)
            client.pinged()
        else:
            client.got(json.loads(message.data)["round_id"])
    client.ended((message.type, message.data, message.extra))


async def read_sse(client: Client, response: aiohttp.ClientResponse) -> None:
    while line := await response.content.readline():
        if line.startswith(b"data:"):
            client.got(json.loads(line[5:])["round_id"])
        elif line.startswith(b":"):
            client.pinged()
    client.ended("the end")


async def read_connect(client: Client, response: aiohttp.ClientResponse) -> None:
    while True:
        flags, message = await element(response)
        if flags & 2:
            client.ended(message)
            return
        client.got(int(json.loads(message)["round_id"]))


async def read_grpc(client: Client, call: AsyncIterator[pb.Round]) -> None:
    async for round_ in call:
        client.got(round_.round_id)
    client.ended("the end")


class Clients:
    """Links of all protocols."""

    def __init__(self, stack: AsyncExitStack, relay: Serving) -> None:
        self.websocket: list[Client] = []
        self.others: list[Client] = []
        self._stack, self._relay = stack, relay
        self._reading: list[asyncio.Task[None]] = []
        self._headers = {"X-API-Key": relay.key}

    @property
    def all(self) -> list[Client]:
        return self.websocket + self.others

    async def connect(self) -> None:
        http = await self._stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(60))
        )
        self._stack.callback(lambda: [task.cancel() for task in self._reading])
        calling = await self._stack.enter_async_context(Caller(f"127.0.0.1:{self._relay.grpc_port}", self._relay.key))
        url, connect = self._relay.url, {"Content-Type": "application/connect+json"}
        for _ in range(EACH):
            ws = await http.ws_connect(f"{url}/ws/crash", headers=self._headers, autoping=False)
            self.websocket.append(self._read(read_websocket, ws))
            events = await self._stack.enter_async_context(http.get(f"{url}/sse/crash", headers=self._headers))
            self.others.append(self._read(read_sse, events))
            stream = await self._stack.enter_async_context(
                http.post(
                    f"{url}/api/grpc/datastream.DataStream/StreamByGame",
                    data=envelope(b'{"gameSlug":"crash"}'),
                    headers=self._headers | connect,
                )
            )
            self.others.append(self._read(read_connect, stream))
            call = calling.call(pb.StreamByGameRequest(game_slug="crash"), timeout_s=60)
            await call.initial_metadata()
            self.others.append(self._read(read_grpc, call))

    def _read(self, read: Callable[[Client, Any], Coroutine[Any, Any, None]], connection: object) -> Client:
        client = Client()

        async def reading() -> None:
            try:
                await read(client, connection)
            except Exception as error:  # noqa: BLE001 - the test reports it
                client.ended(error)

        self._reading.append(asyncio.create_task(reading()))
        return client


async def test_stall_costs_nobody_a_link_or_a_round(nats: NatsServer, publish: Publish) -> None:
    """Rounds that were stored meanwhile come after it, and the next heartbeats are answered."""
    async with (
        serving(nats.url, RELAY_LINKS_HEARTBEAT_S=str(HEARTBEAT_S), RELAY_LINKS_LINGER_S="0.2") as relay,
        AsyncExitStack() as stack,
    ):
        clients = Clients(stack, relay)
        await clients.connect()
        await publish("crash", BEFORE)
        for client in clients.all:
            await client.until(lambda client: bool(client.rounds))
        for client in clients.websocket:
            await client.until(lambda client: client.pings > 0)

        relay.freeze()
        try:
            await publish("crash", *range(BEFORE + 1, DURING + 1))
            await asyncio.sleep(STALL_S)
        finally:
            relay.signal(signal.SIGCONT)
        pinged = 4 + max(client.pings for client in clients.websocket)
        for client in clients.websocket:
            await client.until(lambda client: client.pings >= pinged)
        await publish("crash", *range(DURING + 1, AFTER + 1))
        for client in clients.all:
            await client.until(lambda client: client.rounds[-1] == AFTER)
        await relay.logged("process_stalled")

    assert [client.rounds for client in clients.all] == [list(range(BEFORE, AFTER + 1))] * 4 * EACH
