"""A stand-in for a connection pooler in transaction mode: notifications of the server reach nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.postgres_server import PostgresServer

_NOTIFICATION = b"A"
_NO_TLS = b"N"


@asynccontextmanager
async def pooler_before(server: PostgresServer) -> AsyncIterator[int]:
    """Stand before `server` for as long as the block lasts; yield the port."""
    pumps: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
        for pump in (_to_server(reader, far_writer), _to_client(far_reader, writer)):
            pumps.add(asyncio.create_task(pump))

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _to_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


async def _to_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        if (kind := await reader.readexactly(1)) == _NO_TLS:
            writer.write(kind)
            kind = await reader.readexactly(1)
        while True:
            size = await reader.readexactly(4)
            body = await reader.readexactly(int.from_bytes(size, "big") - 4)
            if kind != _NOTIFICATION:
                writer.write(kind + size + body)
            kind = await reader.readexactly(1)
    except (asyncio.IncompleteReadError, OSError):
        writer.close()
