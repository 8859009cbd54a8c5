"""A connection to nats-server on which live rounds are late, as from another zone of a cloud."""

import asyncio
import re
from typing import ClassVar

from tests.network.forwarder import Forwarder, until_one_ends
from tests.network.streams import Streams


class SlowWire(Forwarder):
    """Carries bytes to and from a local port.

    What the server says to the connection that calls itself `client` is late by `delay_s`; to others it is not.
    """

    scheme: ClassVar = "nats"

    def __init__(self, port: int, *, client: str, delay_s: float) -> None:
        super().__init__()
        self._port = port
        self._name = re.compile(rb'"name": *"%b"' % client.encode())
        self._delay_s = delay_s

    async def target(self) -> int:
        return self._port

    async def carry(self, near: Streams, far: Streams) -> None:
        """Forward one connection until either end closes it."""
        near.writer.write(await far.reader.readuntil(b"\r\n"))  # INFO; the client answers with its name
        connect = await near.reader.readuntil(b"\r\n")
        far.writer.write(connect)
        delay_s = self._delay_s if self._name.search(connect) else 0
        await until_one_ends(_copy(near.reader, far.writer, 0), _copy(far.reader, near.writer, delay_s))


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 16):
        if delay_s:  # each piece on its own: the wire is long, not narrow
            loop.call_later(delay_s, _write, writer, data)
        else:
            _write(writer, data)


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
