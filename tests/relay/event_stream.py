"""Read an event stream block by block, as a relay writes it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec

from tests.relay.conftest import KEY_HEADER

DEADLINE_S = 20.0


@dataclass(frozen=True, slots=True)
class Block:
    """One block: its fields in order. A comment is a field without a name."""

    fields: list[tuple[str, str]]

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.fields]

    @property
    def id(self) -> str:
        return dict(self.fields)["id"]

    @property
    def round(self) -> dict[str, Any]:
        """The round in its data; members are in the order on the wire."""
        round_: dict[str, Any] = msgspec.json.decode(dict(self.fields)["data"])
        return round_


class EventStream:
    """An open event stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def block(self) -> Block:
        block = await self.block_or_end()
        assert block is not None, "the stream has ended"
        return block

    async def block_or_end(self) -> Block | None:
        """Read the next block; the last one may lack its blank line. None when the stream ended correctly."""
        fields: list[tuple[str, str]] = []
        async with asyncio.timeout(DEADLINE_S):
            while line := (await self._response.content.readline()).decode():
                if line == "\n":
                    return Block(fields)
                fields.append(_field(line))
        return Block(fields) if fields else None

    async def opening(self) -> list[tuple[str, str]]:
        """Read the first lines, up to the comment that the stream is open."""
        fields: list[tuple[str, str]] = []
        async with asyncio.timeout(DEADLINE_S):
            while not fields or fields[-1][0]:
                if (line := (await self._response.content.readline()).decode()) != "\n":
                    fields.append(_field(line))
        return fields

    async def round_block(self) -> Block:
        """Skip comments and `retry`; return the next block with data."""
        while "data" not in (block := await self.block()).names:
            pass
        return block

    async def round(self) -> dict[str, Any]:
        return (await self.round_block()).round


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.rstrip("\n").partition(":")
    return name, value.removeprefix(" ")


@asynccontextmanager
async def stream(client: aiohttp.ClientSession, url: str, **request: Any) -> AsyncIterator[EventStream]:
    """Open a stream, with the demo key unless `request` has headers; read it up to the comment that it is live."""
    request.setdefault("headers", KEY_HEADER)
    async with client.get(url, **request) as response:
        assert response.status == 200, await response.text()
        opened = EventStream(response)
        await opened.opening()
        yield opened
