"""A load balancer in front of one relay at a time: between two relays, new connections wait for the next one."""

import asyncio
import contextlib
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.clients.forwarder import Forwarder, close, copy


class Balancer(Forwarder):
    """Forwards bytes both ways, and the end of each direction."""

    def __init__(self) -> None:
        super().__init__()
        self._relay: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @contextlib.contextmanager
    def forwarding_to(self, url: str) -> Iterator[None]:
        """Forward new connections to the relay at `url` while the block runs."""
        port = urlsplit(url).port
        assert port is not None
        self._relay.set_result(port)
        try:
            yield
        finally:
            self._relay = asyncio.get_running_loop().create_future()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either end closes it."""
        from_relay, to_relay = await asyncio.open_connection("127.0.0.1", await asyncio.shield(self._relay))
        ways = [asyncio.create_task(copy(reader, to_relay)), asyncio.create_task(copy(from_relay, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await close(to_relay)
