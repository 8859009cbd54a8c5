"""A link whose connection is over: whatever is asked of it then does nothing. With the loops that people run."""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import pytest
import structlog
import uvloop

from relay.http.sse.sse_client import PlaceForm, SseClient
from relay.http.sse.sse_link import SseLink
from relay.http.websocket.websocket_link import WebSocketLink
from relay.links.stream_link import StreamLink
from relay.live.bounds import Bounds
from relay.live.channels import Subscription
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.link import CloseReason
from relay.live.ring import Ring
from relay.rpc.connect.proxy_link import RequestTransport
from rounds import Filter
from tests.relay.live.test_hub import entry

LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
LINGER_S: Final = 0.001
AFTER_LINGER_S: Final = 0.002
CRASH: Final = Subscription(frozenset({"crash"}), Filter())

CLIENT: Final = SseClient(PlaceForm.LINE, clean_end=True, heartbeat_s=None, events=None)

MakeLink = Callable[[asyncio.Transport, Ender], StreamLink]
LINKS: Final[Mapping[str, MakeLink]] = {
    "websocket": lambda transport, ender: WebSocketLink(
        transport, ender, window_bits=0, message_bytes=4096, frames_per_heartbeat=100, max_age_s=60
    ),
    "sse": lambda transport, ender: SseLink(transport, CLIENT, ender, chunked=True, max_age_s=60),
}

Leave = Callable[[StreamLink, socket.socket], None]


def reset(_: StreamLink, client: socket.socket) -> None:
    """The client's connection breaks."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


LEAVES: Final[Mapping[str, Leave]] = {
    "reset": reset,
    "closed by the client": lambda _, client: client.close(),
    "closed": lambda link, _: link.transport.close(),
    "aborted": lambda link, _: link.transport.abort(),
}

STEPS: Final[Mapping[str, Callable[[StreamLink], object]]] = {
    "heartbeat": lambda link: link.heartbeat(),
    "event": lambda link: link.send_event({"event": "pong"}),
    "end": lambda link: link.end(CloseReason.DRAINING),
    "end by the client": lambda link: link.end(CloseReason.CLIENT),
    "cut": lambda link: link.cut(CloseReason.FAILED),
    "write": lambda link: link.transport.write(b"1"),
    "write several": lambda link: link.transport.writelines([b"1", b"2"]),
    "end of writing": lambda link: link.transport.write_eof(),
    "close": lambda link: link.transport.close(),
    "abort": lambda link: link.transport.abort(),
    "pause": lambda link: link.transport.pause_reading(),
    "resume": lambda link: link.transport.resume_reading(),
    "limits": lambda link: link.transport.set_write_buffer_limits(high=1),
    "size": lambda link: link.transport.get_write_buffer_size(),
    "peer": lambda link: link.transport.get_extra_info("peername"),
    "socket name": lambda link: link.transport.get_extra_info("sockname"),
}
"""What the hub, the heartbeats, a drain, a replay or a log line may ask of a link at any time."""


class _Accepted(asyncio.Protocol):
    """Makes a link of an accepted connection."""

    def __init__(self, made: asyncio.Future[StreamLink], make: MakeLink, ender: Ender) -> None:
        self._made, self._make, self._ender = made, make, ender

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.link = self._make(cast("asyncio.Transport", transport), self._ender)  # uvloop's is no subclass
        self._made.set_result(self.link)

    def data_received(self, data: bytes) -> None:
        """Ignore it."""

    def connection_lost(self, exc: Exception | None) -> None:
        rest = self.link.connection_lost(exc)
        if rest is not None:
            rest()


async def ask_after_the_end(make: MakeLink, leave: Leave, step: Callable[[StreamLink], object]) -> None:
    """Connect, make a link, let its connection end, and then ask something of the link; rounds come too."""
    loop = asyncio.get_running_loop()
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1000)
    hub.begin(Bounds("k1", 1, 0))
    ender = Ender(hub, ReconnectDelays(0), linger_s=LINGER_S)
    made: asyncio.Future[StreamLink] = loop.create_future()
    server = await loop.create_server(lambda: _Accepted(made, make, ender), "127.0.0.1", 0)
    client = socket.create_connection(server.sockets[0].getsockname())
    link, lost = await made, asyncio.Event()
    link.on_closed = lost.set
    try:
        hub.add(link, CRASH)
        leave(link, client)
        await lost.wait()
        step(link)
        hub.publish([entry(1)])
        await asyncio.sleep(0)
        link.end(CloseReason.MAX_AGE)
        await asyncio.sleep(AFTER_LINGER_S)  # the abort of a link whose client lingers
    finally:
        client.close()
        server.close()


@pytest.mark.parametrize("leave", LEAVES)
@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("loop", LOOPS)
def test_lost_connection_takes_everything(loop: str, kind: str, leave: str) -> None:
    """uvloop raises RuntimeError for it, which was logged as a bug and ended what other links depend on."""
    failed = []
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        for name, step in STEPS.items():
            with structlog.testing.capture_logs() as logs:
                try:
                    runner.run(asyncio.wait_for(ask_after_the_end(LINKS[kind], LEAVES[leave], step), 5))
                except Exception as error:  # noqa: BLE001 - all steps are tried
                    failed.append((name, repr(error)))
                failed += [(name, str(line)) for line in logs]

    assert not failed


class LeftRequest:
    """A request whose connection aiohttp has lost; the task of its handler is cancelled a turn of the loop later."""

    transport = None


def test_stream_of_the_proxy_takes_everything_when_its_connection_is_lost() -> None:
    """The hub may write a round in between."""
    transport = RequestTransport(cast("Any", LeftRequest()))

    transport.write(b"1")
    transport.abort()

    assert (transport.get_write_buffer_size(), transport.is_closing()) == (0, True)
