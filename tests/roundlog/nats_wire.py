"""A TCP proxy between a relay and its nats-server that loses messages, stalls or disconnects, as a test requires.

It knows enough of the NATS protocol to drop single messages to the relay.
https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar, Final

from tests.nats import NatsServer
from tests.network.forwarder import Forwarder, copy, until_one_ends
from tests.network.streams import Streams

Loses = Callable[[bytes, bytes], bool]
"""Called with a message's subject, and its headers and data together; returns whether it is dropped."""

_MESSAGES: Final = (b"MSG ", b"HMSG ")


class NatsWire(Forwarder):
    """All connections of one relay to NATS. Forwards everything until a test changes that."""

    scheme: ClassVar = "nats"
    limit: ClassVar = 1 << 22

    def __init__(self, nats: NatsServer) -> None:
        super().__init__()
        self._nats = nats
        self._up = asyncio.Event()
        self._up.set()
        self.lost = 0
        """Messages dropped so far."""
        self.loses: Loses | None = None

    def silence(self) -> None:
        """Hold back all that the server sends; connections stay open."""
        self._up.clear()

    def restore(self) -> None:
        """Forward everything again, starting with what was held back."""
        self._up.set()

    async def target(self) -> int:
        return self._nats.port

    async def carry(self, near: Streams, far: Streams) -> None:
        """Forward one connection until either side ends it."""
        await until_one_ends(copy(near.reader, far.writer), self._to_relay(far.reader, near.writer))

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


def live_round(number: int) -> Loses:
    """Drop one live round; the log still has it."""
    return lambda subject, body: subject.startswith(b"live.") and b'"round_id":%d,' % number in body
