"""Compressed streams of a running relay: headers, the whole body up to its end, and the settings that turn it off."""

import asyncio
import gzip
import zlib
from contextlib import AsyncExitStack

import pytest

from auth.key_secret import DEMO_KEY
from relay.config.sections import HttpSettings
from tests.relay.conftest import Publish, StartRelay
from tests.relay.raw_http import connection, parse, unchunked

pytestmark = pytest.mark.service

SSE = "GET /sse/crash HTTP/{version}\r\nHost: x\r\nX-API-Key: {key}\r\nOrigin: https://page.example\r\n{more}\r\n\r\n"
WEBSOCKET = (
    "GET /ws/crash HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_whole_body_is_one_gzip_file(start_relay: StartRelay, publish: Publish, version: str) -> None:
    """After a drain it has its end, with the right checksum and length; each round could be read when it came."""
    async with AsyncExitStack() as stack:
        async with start_relay() as url:
            link = await stack.enter_async_context(connection(url))
            await link.send(SSE.format(version=version, key=DEMO_KEY, more="Accept-Encoding: br, gzip").encode())
            answer = parse(await link.until(b"\r\n\r\n"))
            body, text = b"", b""
            for number in range(1, 6):
                await publish("crash", number)
                while b'"round_id":%d,' % number not in text:
                    body += await link.until(b"\x00\x00\xff\xff\r\n" if version == "1.1" else b"\x00\x00\xff\xff")
                    text = zlib.decompressobj(wbits=31).decompress(content_of(body, version)[0])
            ending = asyncio.create_task(link.rest())
        whole, is_whole = content_of(body + await ending, version)

    assert answer.headers["content-encoding"] == "gzip"
    assert answer.headers["vary"] == "Origin, Accept-Encoding"
    assert "no-transform" in answer.headers["cache-control"]
    assert is_whole
    assert gzip.decompress(whole).startswith(text)
    assert gzip.decompress(whole).count(b"data: ") == 5


def content_of(body: bytes, version: str) -> tuple[bytes, bool]:
    """Return what is in a body, and whether it is complete."""
    return unchunked(body) if version == "1.1" else (body, True)


@pytest.mark.parametrize("more", ["Accept: text/event-stream", "Accept-Encoding: gzip;q=0.5, identity"])
async def test_stream_that_is_not_compressed(start_relay: StartRelay, more: str) -> None:
    """The client does not say that it accepts gzip, or prefers no coding."""
    async with start_relay() as url, connection(url) as link:
        await link.send(SSE.format(version="1.1", key=DEMO_KEY, more=more).encode())
        answer = parse(await link.until(b"\r\n\r\n"))
        await link.until(b"retry: ")

    assert "content-encoding" not in answer.headers


async def test_settings_turn_compression_off(start_relay: StartRelay) -> None:
    """For either protocol; clients are answered as those that do not accept it."""
    http = HttpSettings(host="127.0.0.1", port=0, compress_sse=False, compress_websocket=False)
    async with start_relay(http=http) as url, connection(url) as stream, connection(url) as websocket:
        await stream.send(SSE.format(version="1.1", key=DEMO_KEY, more="Accept-Encoding: gzip").encode())
        answer = parse(await stream.until(b"\r\n\r\n"))
        await stream.until(b"retry: ")
        await websocket.send(WEBSOCKET.format(key=DEMO_KEY).encode())
        handshake = parse(await websocket.until(b"\r\n\r\n"))

    assert (answer.status, "content-encoding" in answer.headers, answer.headers["vary"]) == (200, False, "Origin")
    assert (handshake.status, "sec-websocket-extensions" in handshake.headers) == (101, False)
