"""The cases of the Autobahn test suite, against the handshake, the frames and the links of the relay.

The suite asks for an echo server, and the relay is none. So the server here echoes messages on the relay's own link;
everything else that the cases see is what clients of the relay see. `kosoku` runs the cases, which `autobahntestsuite`
does under Python 2.7 only; those of compression, which its version 0.1.0 cannot run, are written out here.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
from aiohttp import web
from kosoku import FailureError, run_fuzzingclient
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Opcode

from relay.admission.strangers import Share
from relay.http.connections.guarded import ConnectionLimits
from relay.http.protocol import protocol_factory
from relay.http.takeover import TakenOver, give_to, head, take_over
from relay.http.websocket.frames import Message
from relay.http.websocket.handshake import shake_hands
from relay.http.websocket.websocket_link import WebSocketLink
from relay.live.encode import WebSocketDeflate, frame
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.ring import Ring
from relay.turns import Turns

pytestmark = pytest.mark.service

MESSAGE_BYTES = 1 << 20
DEADLINE_S = 20.0
BINARY = 0x82

GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "reserved opcodes",
    "5": "fragments",
    "6": "UTF-8",
    "7": "closing",
    "9": "sizes",
    "10": "fragments of our choice",
}
TOO_LARGE = ("9.1.4", "9.1.5", "9.1.6", "9.2.4", "9.2.5", "9.2.6", "9.3.*", "9.4.*", "9.7.*", "9.8.*")
"""Messages of 4 MB and more, which no setting of the relay allows, and thousands of round trips."""
OFFERS = {
    "13.1": [ClientPerMessageDeflateFactory()],
    "13.2": [ClientPerMessageDeflateFactory(server_no_context_takeover=True)],
    "13.3": [ClientPerMessageDeflateFactory(server_max_window_bits=9)],
    "13.4": [ClientPerMessageDeflateFactory(server_max_window_bits=15)],
    "13.5": [ClientPerMessageDeflateFactory(server_no_context_takeover=True, server_max_window_bits=9)],
    "13.6": [ClientPerMessageDeflateFactory(server_no_context_takeover=True, server_max_window_bits=15)],
    "13.7": [
        ClientPerMessageDeflateFactory(server_no_context_takeover=True, server_max_window_bits=9),
        ClientPerMessageDeflateFactory(server_no_context_takeover=True),
        ClientPerMessageDeflateFactory(),
    ],
}
"""What the client offers, by the suite's groups of cases; 12 is the first of them with other data."""
SIZES = (
    (16, 0),
    (64, 0),
    (256, 0),
    (1024, 0),
    (4096, 0),
    (8192, 0),
    (65536, 0),
    (131072, 0),
    (8192, 256),
    (131072, 4096),
)
"""Bytes of a message, and of its fragments; 0: it is one frame."""


class Text(NamedTuple):
    """What a form renders, of which the forms of WebSocket read the JSON."""

    json: bytes
    cursor: str = ""
    round: Any = None


class EchoLink(WebSocketLink):
    """The relay's link, which sends each message back instead of reading it as JSON."""

    __slots__ = ()

    def _take(self, message: Message) -> None:
        if message.opcode in (Opcode.TEXT, Opcode.BINARY) and self.ended is None:
            self.transport.write(self._echo(message))
        else:
            super()._take(message)

    def _echo(self, message: Message) -> bytes:
        if message.opcode is Opcode.BINARY:
            return frame(message.data, first_byte=BINARY)
        if isinstance(self.form, WebSocketDeflate):  # as rounds are written
            return self.form.render(Text(message.data))
        return frame(message.data)


@asynccontextmanager
async def echo_server() -> AsyncIterator[str]:
    """Serve links that echo; yield the address."""
    hub = Hub(Ring(rounds_per_game=1, bytes_per_game=1 << 12), unsent_bytes=1 << 20)
    ender = Ender(hub, ReconnectDelays(0), linger_s=5)

    async def answer(request: web.Request) -> web.Response:
        handshake = shake_hands(request.headers, subprotocol=None)
        transport = take_over(request)
        link = EchoLink(
            transport,
            ender,
            window_bits=handshake.window_bits,
            message_bytes=MESSAGE_BYTES,
            frames_per_heartbeat=1_000_000,
            max_age_s=3600,
        )
        give_to(link, transport)
        transport.write(head(101, handshake.headers))
        raise TakenOver

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    limits = ConnectionLimits(Share(100), Share(100), request_s=10)
    factory = protocol_factory(runner, limits, Turns(), keepalive_s=75)
    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await runner.cleanup()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: f"{group} {GROUPS[group]}")
async def test_cases_pass(group: str) -> None:
    """None fails; what the standard leaves open is reported as such."""
    async with echo_server() as url:
        try:
            async with asyncio.timeout(100):
                results = await run_fuzzingclient(url, [f"{group}.*"], exclude_cases=TOO_LARGE, concurrency=8)
        except FailureError as error:
            failed = [f"{case.case_id}: {case.result} {case.result_close}" for case in error.results if not case.passed]
            pytest.fail("\n".join(failed))

    assert results


@pytest.mark.parametrize("offers", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize("kind", [str, bytes])
async def test_compressed_messages_come_back(offers: list[ClientPerMessageDeflateFactory], kind: type) -> None:
    """With each offer, as text and as bytes, whole and in fragments, several after another on one connection."""
    data = "".join(f'{{"number": {number * 7919 % 10007}}}, ' for number in range(9000))
    async with echo_server() as url, connect(url, extensions=offers, compression=None, max_size=None) as client:
        assert "permessage-deflate" in str(client.response and client.response.headers["Sec-WebSocket-Extensions"])
        for size, piece in SIZES:
            for start in range(0, 300, 100):
                text = data[start : start + size]
                message = text if kind is str else text.encode()
                pieces = [message[at : at + piece] for at in range(0, size, piece)] if piece else message
                await client.send(pieces)
                async with asyncio.timeout(DEADLINE_S):
                    assert await client.recv() == message
