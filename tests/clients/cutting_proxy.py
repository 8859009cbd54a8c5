"""A network that breaks connections: forwards to a relay and cuts every connection after a number of bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class CuttingProxy:
    """Counts its cuts. A cut can be anywhere: within a frame, an event, or a character."""

    def __init__(self, relay_port: int, *, carry_bytes: int) -> None:
        self._relay_port = relay_port
        self._carry_bytes = carry_bytes
        self.url = ""
        self.cuts = 0

        self._forwarding: set[asyncio.Task[None]] = set()

    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either end closes it, or it is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._forwarding.add(task)
        try:
            from_relay, to_relay = await asyncio.open_connection("127.0.0.1", self._relay_port)
            asking = asyncio.create_task(copy(reader, to_relay), name="proxy-asking")
            try:
                await self._answer(from_relay, writer)
            finally:
                asking.cancel()
                await close(to_relay)
        finally:
            await close(writer)
            self._forwarding.discard(task)

    async def _answer(self, from_relay: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self._carry_bytes
        with contextlib.suppress(ConnectionError):
            while data := await from_relay.read(left):
                writer.write(data)
                await writer.drain()
                left -= len(data)
                if left == 0:
                    self.cuts += 1
                    return

    async def end(self) -> None:
        """Cut the open connections."""
        for task in self._forwarding:
            task.cancel()
        await asyncio.gather(*self._forwarding, return_exceptions=True)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def cutting_proxy(relay_port: int, *, carry_bytes: int) -> AsyncIterator[CuttingProxy]:
    """Run a proxy on its own port while the block runs."""
    proxy = CuttingProxy(relay_port, carry_bytes=carry_bytes)
    server = await asyncio.start_server(proxy.forward, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            yield proxy
        finally:
            await proxy.end()
