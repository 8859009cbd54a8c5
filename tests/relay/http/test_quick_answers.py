"""Plain requests for tokens, and those with unknown keys, are answered by the bytes of their head as by aiohttp."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from aiohttp.http import HttpRequestParser, RawRequestMessage
from hypothesis import given
from hypothesis import strategies as st

from auth.key import Key, Limits
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from relay.http.connections.plain_head import PlainHead
from tests.relay.conftest import StartRelay
from tests.relay.raw_http import connection

GOOD, _ = generate("private")
PAGE, _ = generate("public")
OTHER_PAGE, _ = generate("public")
SPENT, _ = generate("private")
UNKNOWN, _ = generate("private")
ORIGIN = "https://app.example.com"
KEYS = (
    Key("good", "private", secrets=(stored(GOOD),)),
    Key("page", "public", allowed_origins=frozenset({ORIGIN}), secrets=(stored(PAGE),)),
    Key("other", "public", allowed_origins=frozenset({"https://b.example.com"}), secrets=(stored(OTHER_PAGE),)),
    Key("spent", "private", secrets=(stored(SPENT),), limits=Limits(requests_per_min=1)),
)
TOKEN = "POST /api/auth/token"
USUAL = "TE: trailers"
"""A field that is harmless, and with which a head is not plain."""
CASES = (
    (TOKEN, f"X-API-Key: {PAGE}"),
    (TOKEN, f"x-api-key:{OTHER_PAGE}"),
    (TOKEN, f"authorization: bearer {UNKNOWN}"),
    (TOKEN, f"X-API-Key: {UNKNOWN}"),
    (TOKEN, "X-API-Key: malformed key"),
    ("GET /api/games", f"X-API-Key: {UNKNOWN}"),
    ("GET /api/games", "Authorization: Bearer x"),
    ("GET /api/latest/crash", f"X-API-Key: {UNKNOWN}"),
    ("GET /api/latest/nothing", f"X-API-Key: {UNKNOWN}"),
    ("GET /api/history", f"X-API-Key: {UNKNOWN}"),
    ("GET /api/history/crash", f"X-API-Key: {UNKNOWN}"),
    ("GET /api/history/type/dice", f"X-API-Key: {UNKNOWN}"),
    ("GET /sse", f"X-API-Key: {UNKNOWN}"),
    ("GET /sse/crash", f"X-API-Key: {UNKNOWN}"),
    ("GET /sse/type/dice", "X-API-Key: x"),
)
CHANGING = re.compile(
    rb'(?<=\r\nDate: )[^\r]+|(?<="token":")[^"]+|(?<="expires_at":")[^"]+|(?<=-Remaining: )\d+|(?<=-Reset: )\d+'
)


def head(request: str, *lines: str, version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"{request} {version}", "Host: relay", *lines, "", ""]).encode()


@pytest.fixture
async def relay(start_relay: StartRelay) -> AsyncIterator[str]:
    async with start_relay(keys=KeyRing(KEYS)) as url:
        yield url


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each head was answered by its bytes."""
    from relay.http.protocol import HttpProtocol

    seen: list[bool] = []
    answer_at_once = HttpProtocol._answer_at_once

    def noted(self: HttpProtocol, data: bytes) -> bool:
        seen.append(answer_at_once(self, data))
        return seen[-1]

    monkeypatch.setattr(HttpProtocol, "_answer_at_once", noted)
    return seen


async def both_ways(url: str, request: str, *lines: str) -> tuple[bytes, bytes]:
    """Return the answers to a plain request and to the same request handled as usual, on one connection."""
    answers = []
    async with connection(url) as client:
        for more in ((), (USUAL,)):
            await client.send(head(request, *lines, *more))
            received = await client.until(b"}")
            answers.append(CHANGING.sub(b"", received))
    return answers[0], answers[1]


@pytest.mark.service
async def test_both_ways_answer_the_same(relay: str, answered: list[bool]) -> None:
    """To the byte, besides what changes with each request; and the connection serves the next one."""
    for origin in ((), (f"Origin: {ORIGIN}",)):
        for line, key in CASES:
            quick, usual = await both_ways(relay, line, key, *origin)
            assert quick == usual
            assert answered[-2:] == [True, False], (line, key)


@pytest.mark.service
async def test_token_of_private_key(relay: str, answered: list[bool]) -> None:
    """With the length of no body, as most libraries send it, or without."""
    for lines in ((), ("Content-Length: 0",), ("Connection: keep-alive", "Accept: */*")):
        quick, usual = await both_ways(relay, TOKEN, f"X-API-Key: {GOOD}", *lines)
        assert quick == usual
        assert quick.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answered[0::2] == [True] * 3


@pytest.mark.service
async def test_over_the_limit(relay: str, answered: list[bool]) -> None:
    """The first token is the only one in its minute."""
    async with connection(relay) as client:
        for status in (b"200", b"429"):
            await client.send(head(TOKEN, f"X-API-Key: {SPENT}"))
            received = await client.until(b"}")
            assert received.split(b" ", 2)[1] == status
            assert b"\r\nX-Ratelimit-Remaining: 0\r\n" in received
    assert answered == [True, True]


@pytest.mark.service
async def test_the_rest_is_handled_as_usual(relay: str, answered: list[bool]) -> None:
    """What may need more than the key."""
    for lines in (
        (f"Origin: {ORIGIN}", f"X-API-Key: {GOOD}"),  # whose owner is warned
        ("Sec-Fetch-Site: cross-site", f"X-API-Key: {GOOD}"),
        (f"X-API-Key: {GOOD}", f"X-API-Key: {GOOD}"),
        (f"X-API-Key: {GOOD}", f"Authorization: Bearer {UNKNOWN}"),
        (f"X-API-Key: {GOOD}", "Connection: close"),
        ("X-API-Key: a.b.c",),
        (),
    ):
        async with connection(relay) as client:
            await client.send(head(TOKEN, *lines))
            await client.until(b"}")
    assert not any(answered)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        head(TOKEN)[:-2],
        head(TOKEN) + b"{}",
        head(TOKEN) + head(TOKEN),
        head(TOKEN, "Content-Length: 2") + b"{}",
        head(TOKEN, "Content-Length: +0"),
        head(TOKEN, "Transfer-Encoding: chunked"),
        head(TOKEN, "Expect: 100-continue"),
        head(TOKEN, "Upgrade: websocket", "Connection: Upgrade"),
        head(TOKEN, "Host: other"),
        head(TOKEN, "X: a\r\n b"),
        head(TOKEN, "X : a"),
        head(TOKEN, "X: \u00e9"),
        head(TOKEN, "X: \0"),
        head(TOKEN, version="HTTP/1.0"),
        head("POST /api/auth/token?a=b"),
        head("POST /api/auth//token"),
        head("POST /api/auth/%74oken"),
        head("POST http://relay/api/auth/token"),
        head("PUT /api/auth/token"),
        head(TOKEN).replace(b"\r\n", b"\n"),
        b"\r\n" + head(TOKEN),
        b"POST /api/auth/token HTTP/1.1\r\nX: y\r\n\r\n",
        head(TOKEN, f"X: {'y' * 5000}"),
        head(TOKEN, *(f"X{number}: y" for number in range(128))),
    ],
)
def test_heads_that_are_not_plain(data: bytes) -> None:
    """They are left to aiohttp's parser."""
    assert PlainHead.read(data) is None


class _Connection:
    _reading_paused = False


_NAMES = st.sampled_from(["Host", "X-API-Key", "Content-Length", "connection", "a", "Upgrade", "TE", "x y", "", "A_b"])
_VALUES = st.one_of(st.sampled_from(["", "0", "keep-alive", "close", " x ", "\ty"]), st.text(max_size=6))


@given(
    path=st.sampled_from(["/", "/ws", "/api/auth/token", "//", "/a/../b", "/a?b", "/%41"]),
    lines=st.lists(st.tuples(_NAMES, _VALUES), max_size=4),
)
def test_both_parsers_read_the_same(path: str, lines: list[tuple[str, str]]) -> None:
    """A plain head is to aiohttp one whole request with the same fields, after which the connection stays."""
    fields = "".join(f"{name}:{value}\r\n" for name, value in lines)
    data = f"GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode()
    plain = PlainHead.read(data)
    if plain is None:
        return

    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(_Connection(), loop, 2**16)  # type: ignore[arg-type]
        [(message, body)], upgraded, tail = parser.feed_data(data)
    finally:
        loop.close()

    assert isinstance(message, RawRequestMessage)
    assert (message.method, message.path) == (plain.method, plain.path)
    assert [(name.lower(), value) for name, value in message.headers.items()] == list(plain.fields.items())
    assert body.at_eof()
    assert (upgraded, tail, message.should_close) == (False, b"", False)
