"""The wires: what they hold arrives, what they swallow does not, and a reset reaches both ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.network.streams import connected, serving
from tests.network.wire import Wire

WAIT_S = 20.0


class Echo:
    """A server that answers every line with itself, and records its lines and how connections end."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        end = "end"
        try:
            while line := await reader.readline():
                self.lines.put_nowait(line)
                writer.write(line)
        except ConnectionResetError:
            end = "reset"
        finally:
            self.ended.put_nowait(end)


@asynccontextmanager
async def wired() -> AsyncIterator[tuple[Echo, Wire, asyncio.StreamReader, asyncio.StreamWriter]]:
    """A server, a wire to it, and a connection through it."""
    echo = Echo()
    async with (
        asyncio.timeout(WAIT_S),
        serving(echo.serve) as port,
        Wire("a>b", lambda: port).listening() as wire,
        connected("127.0.0.1", wire.port) as (reader, writer),
    ):
        yield echo, wire, reader, writer


async def test_wire_carries_both_directions_and_the_end() -> None:
    async with wired() as (echo, wire, reader, writer):
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        writer.write_eof()
        assert await reader.read() == b""
        assert await echo.ended.get() == "end"
        assert wire.carried == 8


async def test_partition_delivers_later_and_in_order() -> None:
    """Nothing is lost when neither side gives up."""
    async with wired() as (echo, wire, reader, writer):
        wire.hold()
        writer.write(b"one\n")
        late = asyncio.create_task(_line_over_a_new_connection(wire))
        writer.write(b"two\n")
        await writer.drain()
        assert echo.lines.empty()
        wire.heal()
        assert [await reader.readline(), await reader.readline()] == [b"one\n", b"two\n"]
        assert await late == b"new\n"


async def test_answers_alone_can_be_held() -> None:
    async with wired() as (echo, wire, reader, writer):
        wire.hold("back")
        writer.write(b"one\n")
        assert await echo.lines.get() == b"one\n"
        wire.heal()
        assert await reader.readline() == b"one\n"


async def test_what_is_swallowed_is_lost_with_its_connection() -> None:
    async with wired() as (echo, wire, reader, writer):
        wire.swallow("back")
        writer.write(b"one\n")
        assert await echo.lines.get() == b"one\n"
        wire.heal()
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        assert await echo.ended.get() in ("reset", "end")
        assert await _line_over_a_new_connection(wire) == b"new\n"


async def test_reset_reaches_both_ends() -> None:
    async with wired() as (echo, wire, reader, writer):
        writer.write(b"one\n")
        await reader.readline()
        wire.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        assert await echo.ended.get() == "reset"


async def test_refused_connection_is_reset() -> None:
    async with wired() as (_, wire, _, _):
        wire.refuse()
        with pytest.raises(ConnectionError):
            assert await _line_over_a_new_connection(wire) == b"new\n"


async def _line_over_a_new_connection(wire: Wire) -> bytes:
    async with connected("127.0.0.1", wire.port) as (reader, writer):
        writer.write(b"new\n")
        line = await reader.readline()
        if not line:
            raise ConnectionResetError
        return line
