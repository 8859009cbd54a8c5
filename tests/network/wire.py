"""The network between two parts: a TCP proxy that holds, slows, swallows and resets what it carries.

Owns a port that parts are given in place of the target's. Both directions of data are controlled separately. It does to
TCP what a real network does: bytes that are held arrive later, in order; bytes that are swallowed are lost
together with their connection.
"""

import asyncio
from collections.abc import Callable
from typing import ClassVar, Final, Literal

from tests.network.forwarder import Forwarder
from tests.network.streams import Streams, reset

Direction = Literal["there", "back"]
BOTH: Final[tuple[Direction, ...]] = ("there", "back")

_CHUNK: Final = 1 << 16
_SLOW_CHUNK: Final = 1024


class Wire(Forwarder):
    """One way from a part to another. By default it carries everything at once."""

    scheme: ClassVar = "nats"

    def __init__(self, name: str, target: Callable[[], int]) -> None:
        """Prepare a wire to the port that `target` returns at the time of each connection."""
        super().__init__()
        self.name = name
        self.carried = 0
        """Bytes in both directions."""
        self.swallowed = asyncio.Event()
        """Set when bytes were swallowed, until the next `cut`."""
        self._target = target
        self._flows = {direction: asyncio.Event() for direction in BOTH}
        self._swallows: set[Direction] = set()
        self._bytes_per_s: float | None = None
        self._refuses = False
        for flow in self._flows.values():
            flow.set()

    def hold(self, *directions: Direction) -> None:
        """Deliver nothing in these directions (default: both); connections stay open, new ones hang: a partition."""
        for direction in directions or BOTH:
            self._flows[direction].clear()

    def swallow(self, direction: Direction) -> None:
        """Read and lose what is sent in one direction. `cut` has to follow: TCP loses nothing within a connection."""
        self._swallows.add(direction)

    def slow(self, bytes_per_s: float) -> None:
        """Carry at most so much, in each direction of each connection."""
        self._bytes_per_s = bytes_per_s

    def refuse(self) -> None:
        """Reset every new connection."""
        self._refuses = True

    def cut(self) -> None:
        """Reset every open connection (RST to both sides), and swallow nothing more. New ones work unless held."""
        self._swallows.clear()
        self.swallowed.clear()
        super().cut()

    def heal(self) -> None:
        """Carry everything again, what was held first. Connections that swallowed something are reset."""
        if self._swallows:
            self.cut()
        self._bytes_per_s, self._refuses = None, False
        for flow in self._flows.values():
            flow.set()

    async def target(self) -> int:
        if self._refuses:
            raise ConnectionRefusedError
        await self._flows["there"].wait()
        return self._target()

    async def carry(self, near: Streams, far: Streams) -> None:
        """Forward both directions to their ends, then reset what is open."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(near.reader, far.writer, "there"))
                both.create_task(self._pump(far.reader, near.writer, "back"))
        finally:
            for side in (near, far):
                reset(side.writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        """Carry one direction to its end; a half-close is carried too, and a reset ends both directions."""
        try:
            while data := await reader.read(_SLOW_CHUNK if self._bytes_per_s else _CHUNK):
                await self._flows[direction].wait()
                if direction in self._swallows:
                    self.swallowed.set()
                    continue
                if self._bytes_per_s:
                    await asyncio.sleep(len(data) / self._bytes_per_s)
                self.carried += len(data)
                writer.write(data)
                await writer.drain()
            await self._flows[direction].wait()
            if direction not in self._swallows and writer.can_write_eof():
                writer.write_eof()
        except OSError:
            reset(writer)  # which ends the other direction too
