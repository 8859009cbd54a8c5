"""``Expect: 100-continue``: a body is asked for only when it will be read; else the answer comes at once."""

import asyncio
from typing import Final

import pytest

from tests.relay.conftest import KEY_HEADER
from tests.relay.raw_http import connection, parse

pytestmark = pytest.mark.service

KEY: Final = "X-API-Key: " + KEY_HEADER["X-API-Key"]
EXPECT: Final = "Expect: 100-continue"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
TOKEN: Final = "POST /api/auth/token"
CALL: Final = "POST /api/grpc/datastream.DataStream/ListGames"
STREAM: Final = "POST /api/grpc/datastream.DataStream/StreamAll"
JSON: Final = "Content-Type: application/json"
SENT_ALONE_S: Final = 5.0
"""Less than a request may take: the answer does not wait for the body."""


def raw(line: str, *headers: str, body: bytes = b"", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{line} HTTP/{version}", "Host: x", *headers, "", ""]).encode() + body


BODIES: Final = {
    "token": (TOKEN, "X: 1", b"{}"),
    "call": (CALL, JSON, b"{}"),
    "large_call": (CALL, JSON, b"{}" + b" " * 10_000),
    "grpc_web": (CALL, "Content-Type: application/grpc-web", bytes(5)),
}
FORMS: Final = {
    "usual": [EXPECT],
    "case": ["EXPECT: 100-Continue"],
    "lines": [EXPECT, "expect: 100-CONTINUE"],
    "list": ["Expect: 100-continue , 100-continue"],
    "empty_elements": ["Expect: , 100-continue,"],
    "empty_line": ["Expect:", EXPECT],
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("body", BODIES)
async def test_body_that_will_be_read_is_asked_for(relay: str, body: str, form: str) -> None:
    """RFC 9110 section 10.1.1: the value is a list without case, in any lines. The connection stays open."""
    line, content_type, data = BODIES[body]
    async with connection(relay) as link:
        for _ in range(2):
            await link.send(raw(line, KEY, content_type, *FORMS[form], f"Content-Length: {len(data)}"))
            assert await link.until(b"\r\n\r\n") == CONTINUE
            await link.send(data)
            head = await link.until(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            [length] = [line.split()[1] for line in head.split(b"\r\n") if line.startswith(b"Content-Length")]
            await link.reader.readexactly(int(length))


async def test_chunked_body_is_asked_for(relay: str) -> None:
    """Its length is not known before."""
    async with connection(relay) as link:
        await link.send(raw(TOKEN, KEY, EXPECT, "Transfer-Encoding: chunked"))
        assert await link.until(b"\r\n\r\n") == CONTINUE
        await link.send(b"2\r\n{}\r\n0\r\n\r\n")
        assert (await link.until(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"


REFUSED: Final = {
    "no_key": ([TOKEN, "Content-Length: 2"], 401),
    "unknown_key": ([TOKEN, "X-API-Key: sk_live_" + "f" * 64, "Content-Length: 2"], 401),
    "no_key_chunked": ([TOKEN, "Transfer-Encoding: chunked"], 401),
    "two_keys": ([TOKEN, KEY, "Authorization: Bearer x", "Content-Length: 2"], 400),
    "parameter": ([f"{TOKEN}?x=1", KEY, "Content-Length: 2"], 400),
    "too_large": ([TOKEN, KEY, "Content-Length: 5000"], 413),
    "no_path": (["POST /nowhere", KEY, "Content-Length: 2"], 404),
    "no_path_without_key": (["POST /nowhere", "Content-Length: 2"], 404),
    "method": (["DELETE /api/auth/token", KEY, "Content-Length: 2"], 405),
    "method_of_a_stream": (["POST /sse/crash", KEY, "Content-Length: 2"], 405),
    "call_without_key": ([CALL, JSON, "Content-Length: 2"], 401),
    "call_too_large": ([CALL, KEY, JSON, "Content-Length: 9000000"], 429),
    "media_type": ([CALL, KEY, "Content-Type: text/html", "Content-Length: 2"], 415),
    "media_type_of_streams": ([STREAM, KEY, JSON, "Content-Length: 2"], 415),
    "unknown_method": ([f"{CALL}s", KEY, JSON, "Content-Length: 2"], 501),
    "encoding": ([CALL, KEY, JSON, "Content-Encoding: br", "Content-Length: 2"], 501),
    "timeout": ([CALL, KEY, JSON, "Connect-Timeout-Ms: x", "Content-Length: 2"], 400),
    "body_that_nobody_reads": (["GET /healthz", "Content-Length: 2"], 200),
    "preflight": (["OPTIONS /api/auth/token", "Content-Length: 2"], 204),
    "no_body": ([TOKEN, KEY, "Content-Length: 0"], 200),
    "unknown": ([TOKEN, KEY, "Expect: something", "Content-Length: 2"], 417),
    "unknown_without_key": ([TOKEN, "Expect: 100-continue=1", "Content-Length: 2"], 417),
}


@pytest.mark.parametrize("form", ["usual", "lines"])
@pytest.mark.parametrize("what", REFUSED)
async def test_answer_that_needs_no_body_does_not_ask_for_it(relay: str, what: str, form: str) -> None:
    """The client sends only the head. What it sends next cannot be told from the body, so the connection is closed."""
    [line, *headers], status = REFUSED[what]
    async with connection(relay) as link:
        await link.send(raw(line, *headers, *FORMS[form]))
        if what == "no_body":
            head = await asyncio.wait_for(link.until(b"\r\n\r\n"), SENT_ALONE_S)
            assert parse(head).headers.get("connection") != "close"
        else:
            answer = parse(await asyncio.wait_for(link.rest(), SENT_ALONE_S))
            assert answer.headers["connection"] == "close"
            head = b"HTTP/1.1 %d " % answer.status

    assert head.startswith(b"HTTP/1.1 %d " % status)


async def test_body_that_is_sent_at_once_is_read_without_asking(relay: str) -> None:
    """RFC 9110: the 100 may then be omitted. Requests that follow are served."""
    request = raw(TOKEN, KEY, EXPECT, "Content-Length: 2", body=b"{}")
    async with connection(relay) as link:
        await link.send(request + request + raw("GET /healthz", "Connection: close"))
        answered = await link.rest()

    assert answered.count(b"HTTP/1.1 200 OK") == 3
    assert CONTINUE not in answered


async def test_expectations_of_http_1_0_are_ignored(relay: str) -> None:
    """RFC 9110 section 10.1.1: no 100 for them."""
    async with connection(relay) as link:
        await link.send(raw(TOKEN, KEY, EXPECT, "Content-Length: 2", version="1.0"))
        await link.send(b"{}")
        assert (await link.rest()).startswith(b"HTTP/1.0 200 OK")


async def test_pipelined_request_that_expects_is_asked_in_its_turn(relay: str) -> None:
    """After the answers to the requests before it."""
    async with connection(relay) as link:
        await link.send(raw("GET /healthz") + raw(TOKEN, KEY, EXPECT, "Content-Length: 2"))
        answered = await link.until(CONTINUE)
        assert answered.startswith(b"HTTP/1.1 200 OK")
        await link.send(b"{}")
        assert (await link.until(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
