"""A load balancer in front of one relay at a time: between two relays, new connections wait for the next one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.clients.cutting_proxy import close, copy


class Balancer:
    """Forwards bytes both ways, and the end of each direction."""

    def __init__(self) -> None:
        self.url = ""
        self._forwarding: set[asyncio.Task[None]] = set()
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
        task = asyncio.current_task()
        assert task is not None
        self._forwarding.add(task)
        try:
            from_relay, to_relay = await asyncio.open_connection("127.0.0.1", await asyncio.shield(self._relay))
            ways = [asyncio.create_task(copy(reader, to_relay)), asyncio.create_task(copy(from_relay, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await close(to_relay)
        except asyncio.CancelledError:
            pass  # `end` cancels it; the server of asyncio would log that
        finally:
            await close(writer)
            self._forwarding.discard(task)

    async def end(self) -> None:
        """Cut the open connections."""
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)


@asynccontextmanager
async def balancer() -> AsyncIterator[Balancer]:
    """Run a balancer on its own port while the block runs."""
    running = Balancer()
    server = await asyncio.start_server(running.forward, "127.0.0.1", 0)
    running.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            yield running
        finally:
            await running.end()
