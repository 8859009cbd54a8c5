"""What stands between two parts in tests: a port of its own, which forwards each connection to another port."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Final, Self

from roundlog.tasks import cancel_and_wait
from tests.network.streams import BUFFER_BYTES, Streams, connected, reset, serving

_CONNECT_S: Final = 5.0


class Forwarder(ABC):
    """Accepts connections while it listens. A subclass decides where they lead and what is forwarded."""

    scheme: ClassVar = "http"
    """Of the address."""
    limit: ClassVar = BUFFER_BYTES

    def __init__(self) -> None:
        self.port = 0
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Self]:
        """Listen while the block runs. At its end all connections are closed on both sides."""
        async with serving(self._accepted, limit=self.limit) as self.port:
            yield self

    def cut(self) -> None:
        """Reset every open connection (RST to both sides). New ones work."""
        for writer in self._open:
            reset(writer)

    @abstractmethod
    async def target(self) -> int:
        """Return the port to connect to, as soon as it is known; `OSError` resets the connection."""

    @abstractmethod
    async def carry(self, near: Streams, far: Streams) -> None:
        """Forward one connection to its end. Both sides are closed afterwards."""

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            port = await self.target()
            async with asyncio.timeout(_CONNECT_S) as connecting, connected("127.0.0.1", port, limit=self.limit) as far:
                connecting.reschedule(None)
                self._open.add(far.writer)
                try:
                    await self.carry(Streams(reader, writer), far)
                finally:
                    self._open.discard(far.writer)
        except OSError:  # the target does not listen
            reset(writer)
        finally:
            self._open.discard(writer)


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Forward one direction until it ends."""
    with suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()


async def until_one_ends(*directions: Coroutine[Any, Any, None]) -> None:
    """Run them until the first ends; raise what it raised."""
    tasks = [asyncio.create_task(direction) for direction in directions]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(*tasks)
    for task in ended:
        task.result()
