"""The network between two parts: a TCP proxy that holds, slows, swallows and resets what it carries.

Owns a port that parts are given in place of the target's. Both directions of data are controlled separately. It does to
TCP what a real network does: bytes that are held arrive later, in order; bytes that are swallowed are lost
together with their connection.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final, Literal

Direction = Literal["there", "back"]
BOTH: Final[tuple[Direction, ...]] = ("there", "back")

_CHUNK: Final = 1 << 16
_SLOW_CHUNK: Final = 1024
_CONNECT_S: Final = 5.0
_LINGER_0: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close sends RST."""


class Wire:
    """One way from a part to another. By default it carries everything at once."""

    def __init__(self, name: str, target: Callable[[], int]) -> None:
        """Prepare a wire to the port that `target` returns at the time of each connection."""
        self.name = name
        self.port = 0
        self.carried = 0
        """Bytes in both directions."""
        self._target = target
        self._flows = {direction: asyncio.Event() for direction in BOTH}
        self._swallows: set[Direction] = set()
        self._bytes_per_s: float | None = None
        self._refuses = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        for flow in self._flows.values():
            flow.set()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Wire"]:
        """Listen on a port that the system chooses while the block runs."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.heal()
            self.reset()
            for task in self._serving:
                task.cancel()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def hold(self, *directions: Direction) -> None:
        """Deliver nothing in these directions (default: both); connections stay open, new ones hang: a partition."""
        for direction in directions or BOTH:
            self._flows[direction].clear()

    def swallow(self, direction: Direction) -> None:
        """Read and lose what is sent in one direction. `reset` has to follow: TCP loses nothing within a connection."""
        self._swallows.add(direction)

    def slow(self, bytes_per_s: float) -> None:
        """Carry at most so much, in each direction of each connection."""
        self._bytes_per_s = bytes_per_s

    def refuse(self) -> None:
        """Reset every new connection."""
        self._refuses = True

    def reset(self) -> None:
        """Reset every open connection (RST to both sides)."""
        self._swallows.clear()
        for writer in self._writers:
            _reset(writer)

    def heal(self) -> None:
        """Carry everything again, what was held first. Connections that swallowed something are reset."""
        if self._swallows:
            self.reset()
        self._bytes_per_s, self._refuses = None, False
        for flow in self._flows.values():
            flow.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self._writers.add(writer)
        far_writer: asyncio.StreamWriter | None = None
        try:
            if self._refuses:
                return
            await self._flows["there"].wait()
            async with asyncio.timeout(_CONNECT_S):
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target())
            self._writers.add(far_writer)
            await asyncio.gather(
                self._pump(reader, far_writer, "there"), self._pump(far_reader, writer, "back"), return_exceptions=True
            )
        except (OSError, TimeoutError):
            pass  # the target does not listen
        finally:
            for one in (writer, far_writer):
                if one is not None:
                    self._writers.discard(one)
                    _reset(one)
            self._serving.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Carry one direction to its end; a half-close is carried too, and a reset ends both directions."""
        try:
            while data := await reader.read(_SLOW_CHUNK if self._bytes_per_s else _CHUNK):
                await self._flows[direction].wait()
                if direction in self._swallows:
                    continue
                if self._bytes_per_s:
                    await asyncio.sleep(len(data) / self._bytes_per_s)
                self.carried += len(data)
                writer.write(data)
                await writer.drain()
            await self._flows[direction].wait()
            if direction not in self._swallows and writer.can_write_eof():
                writer.write_eof()
        except (OSError, RuntimeError):
            _reset(writer)  # which ends the other direction too


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    writer.transport.abort()
