"""HTTP/2 pings, from a client that handles frames: what the relay sends, and what it allows."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest

from roundlog.tasks import cancel_and_wait
from tests.network.streams import connected
from tests.rpc.conftest import GrpcRelay, StartRelay
from tests.rpc.envelopes import envelope
from tests.rpc.raw_calls import raw_calls

pytestmark = pytest.mark.service

_HEADERS, _PING, _GOAWAY, _ACK = 1, 6, 7, 1  # RFC 9113 section 6
_OFTEN_S: Final = 1.0
_ALLOWED_S: Final = 5.1
_PINGS: Final = 4
"""More than the strikes that the library gives a client that pings too often."""


class Frames:
    """A connection with one stream of all games on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def begin(self) -> None:
        self._writer.write(raw_calls("/datastream.DataStream/StreamAll", envelope(b"")))

    def ping(self) -> None:
        self._send(_PING, 0, b"are you?")

    async def until(self, wanted: int) -> bytes:
        """Read up to a frame of a type and return its payload; pings are answered, as every HTTP/2 library does."""
        async with asyncio.timeout(40):
            while True:
                head = await self._reader.readexactly(9)
                kind, flags = head[3], head[4]
                payload = await self._reader.readexactly(int.from_bytes(head[:3]))
                if kind == _PING and flags == 0:
                    self._send(_PING, _ACK, payload)
                if kind == wanted and not (kind == _PING and flags & _ACK):
                    return payload

    def _send(self, kind: int, flags: int, payload: bytes) -> None:
        self._writer.write(len(payload).to_bytes(3) + bytes((kind, flags)) + bytes(4) + payload)


@asynccontextmanager
async def streaming(relay: GrpcRelay) -> AsyncIterator[Frames]:
    async with connected("127.0.0.1", relay.grpc_port) as connection:
        frames = Frames(*connection)
        frames.begin()
        await frames.until(_HEADERS)
        yield frames


async def relay_pings(relay: GrpcRelay) -> float:
    """Return after how many seconds the relay has sent a ping; the last data of the client comes after the first."""
    began = time.monotonic()  # not when the answer begins: that may be long after the request
    async with streaming(relay) as frames:
        await frames.until(_PING)
        return time.monotonic() - began


async def pinging(relay: GrpcRelay, every_s: float) -> bytes:
    """Send pings at an interval; return the reason why the relay ended the connection, or None."""
    async with streaming(relay) as frames:
        ended = asyncio.create_task(frames.until(_GOAWAY))
        for _ in range(_PINGS):
            await asyncio.wait((ended,), timeout=every_s)  # the interval is under test
            if ended.done():
                break
            frames.ping()
        await asyncio.wait((ended,), timeout=_ALLOWED_S)
        why = ended.result()[8:] if ended.done() else b""
        await cancel_and_wait(ended)
        return why


async def test_pings_both_ways(start_relay: StartRelay) -> None:
    """The relay pings an idle connection; clients may ping every 5 s, and get GOAWAY for more frequent pings."""
    async with start_relay(grpc={"keepalive_s": 10}) as relay:
        pinged_s, allowed, too_often = await asyncio.gather(
            relay_pings(relay), pinging(relay, _ALLOWED_S), pinging(relay, _OFTEN_S)
        )

    assert 9 < pinged_s < 30
    assert allowed == b""
    assert too_often == b"too_many_pings"


async def test_dead_client_is_noticed(start_relay: StartRelay) -> None:
    """A client that does not answer pings is ended, and its permit is free."""
    async with start_relay(grpc={"keepalive_s": 10, "keepalive_timeout_s": 1}) as relay, streaming(relay):
        await relay.metric_becomes("relay_links", 1)
        await relay.metric_becomes("relay_links", 0, within_s=40)  # without a reader there are no answers
