"""A TCP proxy between a relay and its nats-server that loses messages, stalls or disconnects, as a test requires.

It knows enough of the NATS protocol to drop single messages to the relay.
https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from tests.nats import NatsServer

Loses = Callable[[bytes, bytes], bool]
"""Called with a message's subject, and its headers and data together; returns whether it is dropped."""

_MESSAGES: Final = (b"MSG ", b"HMSG ")


class NatsWire:
    """All connections of one relay to NATS. Forwards everything until a test changes that."""

    def __init__(self, nats: NatsServer) -> None:
        self._nats = nats
        self._writers: set[asyncio.StreamWriter] = set()
        self._up = asyncio.Event()
        self._up.set()
        self.port = 0
        self.lost = 0
        """Messages dropped so far."""
        self.loses: Loses | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def silence(self) -> None:
        """Hold back all that the server sends; connections stay open."""
        self._up.clear()

    def restore(self) -> None:
        """Forward everything again, starting with what was held back."""
        self._up.set()

    def cut(self) -> None:
        """Break every connection; the relay can make new ones at once."""
        for writer in self._writers:
            writer.transport.abort()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection until either side ends it."""
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self._nats.port)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, to_server}
        self._writers |= ends
        directions = [
            asyncio.create_task(self._to_server(reader, to_server)),
            asyncio.create_task(self._to_relay(from_server, writer)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            for end in ends:
                end.transport.abort()
            self._writers -= ends

    async def _to_server(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    async def _to_relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                line = await reader.readuntil(b"\r\n")
                body, subject = b"", b""
                if line.startswith(_MESSAGES):
                    words = line.split()
                    subject, body = words[1], await reader.readexactly(int(words[-1]) + 2)
                await self._up.wait()
                if subject and self.loses is not None and self.loses(subject, body):
                    self.lost += 1
                    continue
                writer.write(line + body)
                await writer.drain()


@asynccontextmanager
async def nats_wire(nats: NatsServer) -> AsyncIterator[NatsWire]:
    """Run a proxy to a server for as long as the block lasts."""
    wire = NatsWire(nats)
    carrying: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(wire.carry(reader, writer))
        carrying.add(task)
        task.add_done_callback(carrying.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 22)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying, return_exceptions=True)


def live_round(number: int) -> Loses:
    """Drop one live round; the log still has it."""
    return lambda subject, body: subject.startswith(b"live.") and b'"round_id":%d,' % number in body
