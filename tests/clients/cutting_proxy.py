"""A network that loses connections: forwards to a relay and cuts every connection after a number of bytes."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class CuttingProxy:
    """Counts what it cut. A cut falls anywhere: within a frame, an event, or a character."""

    def __init__(self, relay_port: int, *, carry_bytes: int) -> None:
        self._relay_port = relay_port
        self._carry_bytes = carry_bytes
        self.url = ""
        self.cuts = 0

        self._carrying: set[asyncio.Task[None]] = set()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either end leaves it, or it is cut."""
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        try:
            from_relay, to_relay = await asyncio.open_connection("127.0.0.1", self._relay_port)
            asking = asyncio.create_task(_copy(reader, to_relay), name="proxy-asking")
            try:
                await self._answer(from_relay, writer)
            finally:
                asking.cancel()
                await _close(to_relay)
        finally:
            await _close(writer)
            self._carrying.discard(task)

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
        """Cut what is still open."""
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def cutting_proxy(relay_port: int, *, carry_bytes: int) -> AsyncIterator[CuttingProxy]:
    """Run a proxy on a port of its own for as long as the block lasts."""
    proxy = CuttingProxy(relay_port, carry_bytes=carry_bytes)
    server = await asyncio.start_server(proxy.carry, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        try:
            yield proxy
        finally:
            await proxy.end()
