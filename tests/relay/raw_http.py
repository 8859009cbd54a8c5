"""HTTP as bytes: for requests that proper clients refuse to send, and details of answers that they hide."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tests.network.streams import connected

DEADLINE_S = 20.0


class RawAnswer(NamedTuple):
    """A whole answer as received: header names in lower case; the body with its chunk headers."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Connection:
    """One connection to a relay."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until(self, end: bytes) -> bytes:
        """Read up to and including `end`."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.reader.readuntil(end)

    async def rest(self) -> bytes:
        """Read until the connection ends, in any way."""
        data = b""
        async with asyncio.timeout(DEADLINE_S):
            try:
                while piece := await self.reader.read(1 << 16):
                    data += piece
            except ConnectionResetError:
                pass
        return data


@asynccontextmanager
async def connection(url: str) -> AsyncIterator[Connection]:
    """Connect to the relay at `url`; abort the connection at the end of the block."""
    parts = urlsplit(url)
    async with connected(parts.hostname, parts.port, limit=1 << 20) as (reader, writer):
        yield Connection(reader, writer)


async def exchange(url: str, *lines: str | bytes, body: bytes = b"") -> RawAnswer:
    """Send a request unchanged, with the headers `Host` and `Connection: close` added; read the answer to its end."""
    encoded = [line if isinstance(line, bytes) else line.encode() for line in lines]
    async with connection(url) as link:
        await link.send(b"\r\n".join([*encoded, b"Host: x", b"Connection: close", b"", b""]) + body)
        return parse(await link.rest())


def parse(data: bytes) -> RawAnswer:
    """Parse one answer."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *fields = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return RawAnswer(int(first.split()[1]), headers, body)


def unchunked(body: bytes) -> tuple[bytes, bool]:
    """Decode ``Transfer-Encoding: chunked`` (RFC 9112 section 7.1); return the content and whether it is complete."""
    content, rest = b"", body
    while True:
        size_line, end_of_line, rest = rest.partition(b"\r\n")
        if not end_of_line:
            return content, False
        size = int(size_line, 16)
        piece, after = rest[:size], rest[size : size + 2]
        assert after in (b"\r\n", b""), f"chunk of {size} bytes ends with {after!r}"
        if size == 0:
            return content, after == b"\r\n"
        content, rest = content + piece, rest[size + 2 :]
