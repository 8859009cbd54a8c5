"""Connections of asyncio that end with their block: what a test opens, and what it accepts.

A connection that is open when its loop closes is reported by the garbage collector, often in a later test.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple

from roundlog.tasks import cancel_and_wait

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

BUFFER_BYTES: Final = 1 << 16
"""What a reader takes in before it is read; asyncio's default."""
_LINGER_0: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close sends RST."""


class Streams(NamedTuple):
    """One connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@asynccontextmanager
async def connected(
    *where: Any,
    limit: int = BUFFER_BYTES,
    sock: socket.socket | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[Streams]:
    """Connect to a host and port, or use a connected socket; with a context, by TLS. Abort it when the block ends."""
    reader, writer = await asyncio.open_connection(*where, limit=limit, sock=sock, ssl=context)
    try:
        yield Streams(reader, writer)
    finally:
        if _is_open(writer):  # on a closed one, abort fails in Python 3.11
            writer.transport.abort()
        await closed(writer)


@asynccontextmanager
async def serving(serve: Serve, *, limit: int = BUFFER_BYTES) -> AsyncIterator[int]:
    """Call `serve` for each connection to a local port, which the system chooses. Yield the port.

    A connection is closed when `serve` returns; what was written is sent first. When the block ends, calls of `serve`
    are cancelled, and open connections aborted. Nothing of them runs or is open afterwards.

    Raises:
        Exception: What a `serve` raised first, except for the end of its connection.
    """
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    failures: list[BaseException] = []

    async def converse(accepted: socket.socket) -> None:
        async with connected(sock=accepted, limit=limit) as (reader, writer):
            await serve(reader, writer)
            writer.close()
            await closed(writer)

    def accept() -> None:
        try:
            accepted, _ = listener.accept()
        except OSError:
            return  # the client has given up
        accepted.setblocking(False)
        task = asyncio.create_task(converse(accepted), name="accepted-connection")
        tasks.add(task)
        task.add_done_callback(lambda task: end(task, accepted))

    def end(task: asyncio.Task[None], accepted: socket.socket) -> None:
        tasks.discard(task)
        accepted.close()  # still open after a cancellation before the first step
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, OSError | EOFError):
            failures.append(error)

    # Not asyncio.start_server: it loses what it has accepted in the turn in which it is closed.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        loop.add_reader(listener, accept)
        try:
            yield listener.getsockname()[1]
        finally:
            loop.remove_reader(listener)
            await cancel_and_wait(*tasks)
    if failures:
        raise failures[0]


async def closed(writer: asyncio.StreamWriter) -> None:
    """Wait until a connection that was closed or aborted is closed."""
    with suppress(OSError):
        await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """Abort a connection with RST."""
    if _is_open(writer):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        writer.transport.abort()


def _is_open(writer: asyncio.StreamWriter) -> bool:
    connection = writer.get_extra_info("socket")  # uvloop has none of a TLS connection that is lost
    return connection is not None and connection.fileno() != -1
