"""Requests sent together: each gets its answer, in order, also those before bytes that are not HTTP."""

import asyncio
import re
from typing import Final

import pytest

from tests.relay.conftest import KEY_HEADER
from tests.relay.raw_http import connection

pytestmark = pytest.mark.service

READ_S: Final = 0.05
"""A client cannot know when its head was read; either order has the same answers."""
KEY: Final = "X-API-Key: " + KEY_HEADER["X-API-Key"]


def raw(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode() + body


def chunked(body: bytes) -> bytes:
    return raw("POST /api/auth/token", KEY, "Transfer-Encoding: chunked", body=body)


PROBE: Final = raw("GET /healthz")
HISTORY: Final = raw("GET /api/history/crash?limit=1", KEY)
TOKEN: Final = raw("POST /api/auth/token", KEY, "Content-Length: 4", body=b"{\n} ")
CALL_LINE: Final = "POST /api/grpc/datastream.DataStream/ListGames"
CALL: Final = raw(CALL_LINE, KEY, "Content-Type: application/json", "Content-Length: 2", body=b"{}")
DECLINED: Final = raw("GET /healthz", "Connection: Upgrade", "Upgrade: websocket")
VALID: Final = {
    "probe": (PROBE, 1),
    "history": (HISTORY, 1),
    "token": (TOKEN, 1),
    "chunked": (chunked(b"2\r\n{}\r\n0\r\n\r\n"), 1),
    "call": (CALL, 1),
    "several": (PROBE + TOKEN + CALL + HISTORY, 4),
    "more_than_are_parsed_ahead": (PROBE * 100, 100),
    "declined_upgrade": (DECLINED + TOKEN + PROBE, 3),
}
BAD: Final = {
    "nonsense": (b"nonsense\r\n\r\n", 400, "not well-formed"),
    "binary": (b"\0\1\2", 400, "not well-formed"),
    "tls": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400, "not well-formed"),
    "http2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "begins as HTTP/2 does, which needs RELAY_HTTP_H2C=true"),
    "method": (raw("BREW /healthz"), 501, "method BREW"),
    "no_host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "one Host header"),
    "two_lengths": (raw("GET /", "Content-Length: 1", "Content-Length: 2", body=b"xx"), 400, "not well-formed"),
    "length_and_chunks": (raw("GET /", "Content-Length: 1", "Transfer-Encoding: chunked"), 400, "not well-formed"),
    "chunk": (chunked(b"zz\r\n"), 400, "not well-formed"),
    "later_chunk": (chunked(b"1\r\nx\r\nzz\r\n"), 400, "not well-formed"),
    "headers": (raw("GET /", *["X: 1"] * 200), 431, "128 headers"),
    "header": (raw("GET /", "X: " + "/" * 20_000), 431, "a header has"),
    "url": (raw("GET /" + "x" * 20_000), 414, "the URL has"),
    "head": (raw("GET /", *["X: " + "x" * 8000] * 100), 431, "the head of the request"),
}


def answers_in(data: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", data)]


@pytest.mark.parametrize("bad", BAD)
async def test_requests_before_a_malformed_one_are_answered(relay: str, bad: str) -> None:
    """In one segment: as if each had been sent alone, in order."""
    data, status, sentence = BAD[bad]
    for before, count in VALID.values():
        async with connection(relay) as link:
            await link.send(before + data)
            answered = await link.rest()

        assert answers_in(answered) == [200] * count + [status]
        assert sentence.encode() in answered


async def test_nothing_after_a_malformed_request_is_answered(relay: str) -> None:
    """Nobody can know where the next one begins."""
    async with connection(relay) as link:
        await link.send(PROBE + b"nonsense\r\n\r\n" + PROBE)
        await link.send(PROBE)

        assert answers_in(await link.rest()) == [200, 400]


@pytest.mark.parametrize(
    "head", [chunked(b""), raw(CALL_LINE, KEY, "Content-Type: application/json", "Transfer-Encoding: chunked")]
)
@pytest.mark.parametrize("before", [b"", PROBE, TOKEN])
async def test_malformed_chunk_that_comes_later_is_refused_at_once(relay: str, head: bytes, before: bytes) -> None:
    """Its request is being handled by then: it gets one answer, and does not wait for the rest of the body."""
    async with connection(relay) as link:
        await link.send(before + head)
        await asyncio.sleep(READ_S)
        await link.send(b"1\r\n{\r\n")
        await link.send(b"zz\r\n")
        answered = await asyncio.wait_for(link.rest(), 5)

    assert answers_in(answered) == ([200] if before else []) + [400]
    assert b"does not match its headers" in answered or b"not well-formed" in answered


@pytest.mark.parametrize("before", VALID)
async def test_all_pieces_of_requests_have_the_same_answers(relay: str, before: str) -> None:
    """Wherever the network cuts them."""
    data, count = VALID[before]
    data += BAD["nonsense"][0]
    for size in (1, 7, 2000):
        async with connection(relay) as link:
            for at in range(0, len(data), size):
                link.writer.write(data[at : at + size])
                await asyncio.sleep(0)
            answered = await link.rest()

        assert answers_in(answered) == [200] * count + [400]


async def test_half_closed_requests_before_a_malformed_one_are_answered(relay: str) -> None:
    """As by `printf ... | nc`."""
    async with connection(relay) as link:
        link.writer.write(TOKEN + PROBE + b"nonsense\r\n\r\n")
        link.writer.write_eof()

        assert answers_in(await link.rest()) == [200, 200, 400]


async def test_handshake_after_other_requests_opens_its_link(relay: str) -> None:
    """And what follows it belongs to the link."""
    message = b'{"action":"ping"}'
    frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    handshake = raw("GET /ws/crash", KEY, *upgrade, "Sec-WebSocket-Key: " + "A" * 22 + "==")
    async with connection(relay) as link:
        await link.send(TOKEN + DECLINED + PROBE + handshake + frame)
        answered = await link.until(b'{"event":"pong"}')

    assert answers_in(answered) == [200, 200, 200, 101]


async def test_event_stream_before_malformed_bytes_is_opened(relay: str) -> None:
    """It is the last answer of its connection; what follows its request is ignored."""
    async with connection(relay) as link:
        await link.send(PROBE + raw("GET /sse/crash", KEY) + b"nonsense\r\n\r\n")
        answered = await link.until(b"retry: ")

    assert answers_in(answered) == [200, 200]
