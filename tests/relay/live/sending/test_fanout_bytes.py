"""What each client of a relay process gets is what was published, with the compiled loop and without it."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import grpc.aio
import pytest

from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.relay.conftest import Publish
from tests.relay.live.sending.open_links import LANGUAGES, sends_in
from tests.relay.raw_http import Connection, connection
from tests.relay.serving import Serving, serving

pytestmark = pytest.mark.service

LINKS = 20
ROUNDS = range(1, 201)
HEAD = "GET /{path} HTTP/{version}\r\nHost: x\r\nX-API-Key: {key}\r\n{more}\r\n"
WEBSOCKET = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


Delivered = list[tuple[int, str]]
"""Number and cursor of each round that a client has got."""


async def block(link: Connection) -> bytes:
    """Read the data of one SSE block, or a line that is none."""
    return (await link.until(b"\n")).removeprefix(b"data: ")


async def message(link: Connection) -> bytes:
    """Read one WebSocket message of less than 64 KB."""
    size = (await link.reader.readexactly(2))[1]
    return await link.reader.readexactly(size if size < 126 else int.from_bytes(await link.reader.readexactly(2)))


async def read_link(link: Connection, read: Callable[[Connection], Awaitable[bytes]]) -> Delivered:
    delivered: Delivered = []
    while len(delivered) < len(ROUNDS):
        data = await read(link)
        if b'"round_id"' in data:
            round_ = json.loads(data)
            delivered.append((round_["round_id"], round_["cursor"]))
    return delivered


async def read_call(call: Any) -> Delivered:
    rounds = [await call.read() for _ in ROUNDS]
    return [(each.round_id, each.cursor) for each in rounds]


async def open_call(relay: Serving, stack: AsyncExitStack) -> Any:
    """Open a gRPC stream on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    address = f"127.0.0.1:{relay.grpc_port}"
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
    stream = channel.unary_stream(
        "/datastream.DataStream/StreamByGame",
        request_serializer=pb.StreamByGameRequest.SerializeToString,
        response_deserializer=pb.Round.FromString,
    )
    call = stream(pb.StreamByGameRequest(game_slug="crash"), metadata=(("x-api-key", relay.key),))
    await call.initial_metadata()
    return call


@pytest.mark.parametrize("language", LANGUAGES)
async def test_all_clients_get_what_was_published(nats: NatsServer, publish: Publish, language: str) -> None:
    """One at a time and many at once, over WebSocket, SSE and gRPC."""
    sends_in(language)
    settings = {"RELAY_LINKS_COMPILED_SENDS": str(language == "c").lower(), "RELAY_LINKS_HEARTBEAT_S": "55"}
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(serving(nats.url, settings=settings))
        assert any(f'"sends": "{language}"' in line for line in relay.printed)
        links = [await stack.enter_async_context(connection(relay.url)) for _ in range(2 * LINKS)]
        for number, link in enumerate(links):
            path, version, more = ("ws/crash", "1.1", WEBSOCKET) if number % 2 else ("sse/crash", "1.0", "")
            await link.send(HEAD.format(path=path, version=version, key=relay.key, more=more).encode())
            await link.until(b"\r\n\r\n")
        calls = [await open_call(relay, stack) for _ in range(LINKS)]
        reading = [asyncio.create_task(read_link(link, (block, message)[at % 2])) for at, link in enumerate(links)]
        reading += [asyncio.create_task(read_call(call)) for call in calls]
        sequences = list[int]()
        for number in ROUNDS[:50]:
            sequences += await publish("crash", number)
        sequences += await publish("crash", *ROUNDS[50:])
        async with asyncio.timeout(60):
            got = await asyncio.gather(*reading)

    epoch = got[0][0][1].partition("-")[0]
    wanted = [(number, f"{epoch}-{sequence}") for number, sequence in zip(ROUNDS, sequences, strict=True)]
    assert all(each == wanted for each in got)
