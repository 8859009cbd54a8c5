"""What stands between clients and a relay in tests: a port of its own, and a task for each connection."""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self


class Forwarder(ABC):
    """Accepts connections while it listens; a subclass says what is forwarded."""

    def __init__(self) -> None:
        self.url = ""
        self._forwarding: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Listen while the block runs, then cut the open connections."""
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server:
            try:
                yield self
            finally:
                for task in self._forwarding:
                    task.cancel()
                await asyncio.gather(*self._forwarding, return_exceptions=True)

    @abstractmethod
    async def forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection to its end. The client's side is closed afterwards."""

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._forwarding.add(task)
        try:
            await self.forward(reader, writer)
        except asyncio.CancelledError:
            pass  # `listening` cancels it; the server of asyncio would log that
        finally:
            await close(writer)
            self._forwarding.discard(task)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward one direction until it ends."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def close(writer: asyncio.StreamWriter) -> None:
    """Close one side, which may be broken."""
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
