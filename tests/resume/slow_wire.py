"""A connection to nats-server on which live rounds are late, as from another zone of a cloud."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def slow_wire(port: int, *, client: str, delay_s: float) -> AsyncIterator[int]:
    """Carry bytes to and from a local port; yield the port to connect to.

    What the server says to the connection that calls itself `client` is late by `delay_s`; to others it is not.
    """
    name = re.compile(rb'"name": *"%b"' % client.encode())
    connections: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())  # type: ignore[arg-type]  # inside a task there is one
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(await far_reader.readuntil(b"\r\n"))  # INFO; the client answers with its name
            connect = await reader.readuntil(b"\r\n")
            far_writer.write(connect)
            async with asyncio.TaskGroup() as both:
                both.create_task(_copy(reader, far_writer, 0))
                both.create_task(_copy(far_reader, writer, delay_s if name.search(connect) else 0))
        finally:
            far_writer.close()
            writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
        await server.wait_closed()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay_s: float) -> None:
    loop = asyncio.get_running_loop()
    while data := await reader.read(1 << 16):
        if delay_s:  # each piece on its own: the wire is long, not narrow
            loop.call_later(delay_s, _write, writer, data)
        else:
            _write(writer, data)
    writer.close()


def _write(writer: asyncio.StreamWriter, data: bytes) -> None:
    if not writer.is_closing():
        writer.write(data)
