"""Links over real connections, for tests of what is sent past their transports."""

import asyncio
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, cast

import pytest
import uvloop

from relay.links.stream_link import StreamLink
from relay.live.bounds import Bounds
from relay.live.encode import WebSocketText
from relay.live.ending import Ender, ReconnectDelays
from relay.live.hub import Hub
from relay.live.link import Disconnect
from relay.live.ring import Ring
from relay.live.sending.sends import Sends, choose_sends
from tests.relay.live.test_hub import subscription

LOOPS: Final = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
LANGUAGES: Final = ("c", "python")


def sends_in(language: str) -> Sends:
    """Return the way to send that is written in `language`; skip the test when it is not installed."""
    sends = choose_sends(compiled=language == "c")
    if sends.language != language:
        pytest.skip("the loop was not compiled: there was no C compiler when this was installed")
    return sends


def new_hub(sends: Sends, unsent_bytes: int) -> Hub:
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=unsent_bytes, sends=sends)
    hub.begin(Bounds("k1", 1, 0))
    return hub


class OpenLink(StreamLink):
    """A link whose end is its close."""

    def heartbeat(self) -> bool:
        self.transport.write(b"beat")
        return True

    def send_event(self, event: Mapping[str, object]) -> None:
        """Send nothing."""

    def write_disconnect(self, disconnect: Disconnect) -> None:
        self.transport.close()


class _Accepted(asyncio.Protocol):
    """Makes a link of an accepted connection."""

    def __init__(self, rig: "Rig") -> None:
        self._rig = rig

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link = OpenLink(
            cast("asyncio.Transport", transport), WebSocketText(), self._rig.ender, max_age_s=60
        )  # uvloop's is no subclass
        self._rig.accepted.put_nowait(self._link)

    def pause_writing(self) -> None:
        self._link.pause_writing()

    def resume_writing(self) -> None:
        self._link.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        rest = self._link.connection_lost(exc)
        if rest is not None:
            rest()


class Rig:
    """A hub, and clients with small socket buffers, each with its link."""

    def __init__(self, sends: Sends, *, unsent_bytes: int = 1 << 20) -> None:
        self.hub = new_hub(sends, unsent_bytes)
        self.ender = Ender(self.hub, ReconnectDelays(0), linger_s=60)
        self.accepted: asyncio.Queue[OpenLink] = asyncio.Queue()
        self._clients: list[socket.socket] = []
        self._server: Any = None

    def client(self) -> socket.socket:
        """Return a socket that is not connected."""
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._clients.append(client)
        return client

    async def link(self, *games: str, client: socket.socket | None = None) -> tuple[OpenLink, socket.socket]:
        """Return a new link that is subscribed to games, crash by default, and its client, which does not block."""
        loop = asyncio.get_running_loop()
        if self._server is None:
            self._server = await loop.create_server(lambda: _Accepted(self), "127.0.0.1", 0)
        client = client or self.client()
        client.connect(self._server.sockets[0].getsockname())
        client.setblocking(False)
        link = await self.accepted.get()
        file_of(link).setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.hub.add(link, subscription(*(games or ("crash",))))
        return link, client

    def close(self) -> None:
        for client in self._clients:
            client.close()
        if self._server is not None:
            self._server.close()


@contextmanager
def rig_of(sends: Sends, **options: int) -> Iterator[Rig]:
    rig = Rig(sends, **options)
    try:
        yield rig
    finally:
        rig.close()


def file_of(link: OpenLink) -> Any:
    """Return the socket of a link's transport."""
    return link.transport.get_extra_info("socket")


def read_some(client: socket.socket, most: int = 1 << 16) -> bytes:
    """Return what has arrived; nothing when nothing has."""
    try:
        return client.recv(most)
    except BlockingIOError:
        return b""


async def read_exactly(client: socket.socket, count: int) -> bytes:
    """Read `count` bytes in pieces, while the loop runs."""
    data = b""
    while len(data) < count:
        if some := read_some(client):
            data += some
        else:
            await asyncio.sleep(0)
    return data
