"""Requests that are answered from their head get the bytes that aiohttp's handlers would send, and count the same."""

import asyncio
import re
from collections import Counter
from collections.abc import AsyncIterator
from itertools import pairwise

import aiohttp
import pytest
from aiohttp.http import HttpRequestParser, RawRequestMessage
from hypothesis import given
from hypothesis import strategies as st

from auth.key import Key, Limits
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.tokens import TokenSigner
from relay.http.connections.plain_head import PlainHead
from relay.http.protocol import HttpProtocol
from tests.relay.conftest import Publish, StartRelay
from tests.relay.raw_http import Connection, connection
from tests.waiting import until

GOOD, _ = generate("private")
PAGE, _ = generate("public")
SOME, _ = generate("private")
UNKNOWN, _ = generate("private")
FEW, _ = generate("private")
ORIGIN = "https://app.example.com"
KEYS = (
    Key("good", "private", secrets=(stored(GOOD),)),
    Key("page", "public", allowed_origins=frozenset({ORIGIN}), secrets=(stored(PAGE),)),
    Key("some", "private", games=frozenset({"dice"}), secrets=(stored(SOME),)),
    Key("few", "private", secrets=(stored(FEW),), limits=Limits(requests_per_min=10)),
)
SIGNER = TokenSigner.ephemeral()
USUAL = "TE: trailers"
"""A field that is harmless, and with which a head is not plain."""
HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: YSBiZW5jaCwgbm8gbmFtZQ==",
)
BOTH = (
    ("GET /api/games", ()),
    ("GET /api/latest/crash", ()),
    ("GET /api/latest/nothing", ()),
    ("GET /api/latest/crash?corrections=2", ()),
    ("GET /api/latest/crash?what=1", ()),
    ("GET /api/latest/crash", ("If-None-Match: *",)),
    ("GET /api/latest/crash", ('If-None-Match: W/"a", b',)),
    ("GET /api/history?limit=3", ()),
    ("GET /api/history?limit=20", ("Accept-Encoding: gzip, br;q=0.5",)),
    ("GET /api/history?limit=20&colors=red", ()),
    ("GET /api/history/crash?limit=2", ("Accept-Encoding: br",)),
    ("GET /api/history/type/multiplier?limit=1", ()),
    ("GET /api/history/type/nothing", ()),
    ("GET /api/history/crash?limit=0", ()),
    ("GET /api/history/crash?limit=1001", ()),
    ("GET /api/history/crash?limit=2&limit=2", ()),
    ("GET /api/history/crash?games=dice", ()),
    ("GET /api/history/crash?before=nothing", ()),
    ("GET /api/history?games=crash,dice&limit=2", ()),
    ("GET /api/history?games=crash,&limit=2", ()),
    ("GET /api/history?_x=a:b.c&limit=2&games=crash,dice", ()),
    ("GET /api/history/crash?{before}&limit=2", ()),
    ("GET /api/history/crash?limit=2&{before}", ()),
    ("GET /ws/crash", HANDSHAKE),
    ("GET /ws/type/color", HANDSHAKE),
    ("GET /ws", (*HANDSHAKE, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")),
    ("GET /ws?games=crash,dice&hello=1", HANDSHAKE),
    ("GET /ws/nothing", HANDSHAKE),
    ("GET /ws/type/nothing", HANDSHAKE),
    ("GET /ws/crash?games=dice", HANDSHAKE),
    ("GET /ws/crash?speed=0", HANDSHAKE),
    ("GET /ws/crash?after=nothing", HANDSHAKE),
    ("GET /ws/crash?min_point=x", HANDSHAKE),
    ("GET /ws/crash?unknown=1", HANDSHAKE),
    ("GET /ws/crash", (*HANDSHAKE[:2], HANDSHAKE[3])),
    ("GET /ws/crash", (*HANDSHAKE[:2], "Sec-WebSocket-Version: 12", HANDSHAKE[3])),
    ("GET /ws/crash", (*HANDSHAKE[:3], "Sec-WebSocket-Key: short")),
    ("GET /ws/crash", ("Upgrade: websocket", "Connection: keep-alive, Upgrade", *HANDSHAKE[2:])),
    ("GET /sse/crash", ()),
    ("GET /sse/type/color", ("Accept: text/event-stream", "Cache-Control: no-cache", "User-Agent: Mozilla/5.0")),
    ("GET /sse", ("User-Agent: Go-http-client/1.1",)),
    ("GET /sse?games=crash,dice&hello=1&heartbeat=5&end=clean", ()),
    ("GET /sse/nothing", ()),
    ("GET /sse/crash?heartbeat=0", ()),
    ("GET /sse/crash?end=never", ()),
    ("GET /sse/crash", ("Last-Event-ID: nothing",)),
    ("GET /sse/crash?lastEventId=nothing", ()),
    ("POST /api/auth/token", ()),
)
"""Requests and their fields, each of which is sent with each credential."""
CREDENTIALS: tuple[tuple[str, ...], ...] = (
    (f"X-API-Key: {GOOD}",),
    (f"Authorization: Bearer {GOOD}", "Accept-Language: en"),
    (f"X-API-Key: {PAGE}", f"Origin: {ORIGIN}"),
    (f"X-API-Key: {PAGE}",),
    (f"X-API-Key: {GOOD}", f"Origin: {ORIGIN}"),
    (f"X-API-Key: {SOME}",),
    (f"X-API-Key: {UNKNOWN}",),
    ("X-API-Key: x", f"Origin: {ORIGIN}"),
    (),
)
CHANGING = re.compile(
    rb'(?<=\r\nDate: )[^\r]+|(?<="token":")[^"]+|(?<="expires_at":")[^"]+|(?<=-Remaining: )\d+|(?<=-Reset: )\d+'
)
GAMES = (("crash", '{"point":"2.50"}'), ("dice", '{"point":"1.20"}'), ("double", '{"color":"red","number":"7"}'))


def head(request: str, *lines: str) -> bytes:
    return "\r\n".join([f"{request} HTTP/1.1", "Host: relay", *lines, "", ""]).encode()


@pytest.fixture
def early(monkeypatch: pytest.MonkeyPatch) -> dict[bytes, bool]:
    """Whether each request was answered from its head."""
    seen: dict[bytes, bool] = {}
    answer_at_once = HttpProtocol._answer_at_once

    def noted(self: HttpProtocol, data: bytes) -> bool:
        seen[data] = answer_at_once(self, data)
        return seen[data]

    monkeypatch.setattr(HttpProtocol, "_answer_at_once", noted)
    return seen


LIMITS = {
    "private_requests_per_min": 100_000,
    "public_requests_per_min": 100_000,
    "public_key_requests_per_min": 100_000,
    "private_links_per_s": 10_000,
    "public_links_per_s": 10_000,
    "address_links_per_s": 10_000,
    "wrong_credentials_per_min": 100_000,
}
COUNTED = re.compile(r"^(relay_refused_total\{[^}]*\}) ([0-9.e+]+)$", re.MULTILINE)


@pytest.fixture
async def relay(start_relay: StartRelay, publish: Publish, client: aiohttp.ClientSession) -> AsyncIterator[str]:
    """A relay that follows the log, with rounds of a few games in memory."""
    async with (
        start_relay(keys=KeyRing(KEYS), signer=SIGNER, limits=LIMITS) as url,
        client.ws_connect(f"{url}/ws", headers={"X-API-Key": GOOD}) as watcher,
    ):
        for number in range(1, 26):
            for game, extras in GAMES:
                await publish(game, number, extras=extras)
        for _ in range(25 * len(GAMES)):
            await watcher.receive(timeout=20)
        yield url


async def answer_of(url: str, data: bytes) -> bytes:
    """Return the answer to a request; of an event stream its head and its first bytes."""
    async with connection(url) as client:
        await client.send(data)
        return await read_answer(client, data)


async def read_answer(client: Connection, data: bytes) -> bytes:
    received = await client.until(b"\r\n\r\n")
    if b"\r\nTransfer-Encoding: chunked\r\n" in received:
        received += await client.until(b":\n")
    elif not data.startswith(b"HEAD") and (length := re.search(rb"\r\nContent-Length: (\d+)\r\n", received)):
        received += await client.reader.readexactly(int(length[1]))
    return CHANGING.sub(b"", received)


async def counted(client: aiohttp.ClientSession, url: str) -> Counter[str]:
    """Return what metrics count of clients."""
    async with client.get(f"{url}/metrics") as response:
        return Counter({name: int(float(value)) for name, value in COUNTED.findall(await response.text())})


@pytest.mark.service
async def test_answers_are_the_same(relay: str, client: aiohttp.ClientSession, early: dict[bytes, bool]) -> None:
    """To the byte, with every credential; and as many are counted as refused, and as links."""
    token, _ = SIGNER.issue(KEYS[0])
    credentials = (
        *CREDENTIALS,
        (f"Sec-WebSocket-Protocol: datastream.v1, {token}",),
        ("Sec-WebSocket-Protocol: a.b.c",),
    )
    answer = await answer_of(relay, head("GET /api/history/crash?limit=3", f"X-API-Key: {GOOD}"))
    before_ = answer.partition(b"limit=3&")[2].partition(b">")[0].decode()
    cases = [(request.format(before=before_), (*lines, *more)) for request, lines in BOTH for more in credentials]
    cases += [(f"GET /sse/crash?token={value}", ()) for value in (token, "a.b.c", f"{token}x")]
    before = await counted(client, relay)
    seen = [await answer_of(relay, head(request, *lines)) for request, lines in cases]
    between = await counted(client, relay)
    usual = [await answer_of(relay, head(request, *lines, USUAL)) for request, lines in cases]
    after = await counted(client, relay)

    for case, quick, slow in zip(cases, seen, usual, strict=True):
        assert quick == slow, case
    assert between - before == after - between
    assert sum((after - between).values()) > 100
    late = {request for request, lines in cases if not early[head(request, *lines)]}
    assert late <= {"POST /api/auth/token", "GET /api/history?limit=20&colors=red"}, late


@pytest.mark.service
async def test_pieces_of_heads_and_what_follows_them(relay: str, early: dict[bytes, bool]) -> None:
    """A head in two pieces, or with bytes after it, is answered alike; bytes behind a handshake are for the link."""
    token, _ = SIGNER.issue(KEYS[0])
    shake = head("GET /ws/crash", *HANDSHAKE, f"Sec-WebSocket-Protocol: {token}")
    stream = head("GET /sse/crash", f"X-API-Key: {GOOD}")
    latest = head("GET /api/latest/crash", f"X-API-Key: {GOOD}")
    for data in (shake, stream, latest):
        whole = await answer_of(relay, data)
        for at in (1, 3, data.index(b"HTTP"), data.index(b"\r\n") + 1, len(data) - 3, len(data) - 1):
            async with connection(relay) as client:
                await client.send(data[:at])
                await until_read(early, data[:at])
                await client.send(data[at:])
                assert CHANGING.sub(b"", await client.until(b"\r\n\r\n")) == whole[: whole.index(b"\r\n\r\n") + 4]
    ping = b"\x89\x81\0\0\0\0a"
    for more in (b"", USUAL.encode() + b"\r\n"):
        async with connection(relay) as client:
            await client.send(shake[:-2] + more + b"\r\n" + ping)
            await client.until(b"\r\n\r\n")
            assert await client.reader.readexactly(3) == b"\x8a\x01a"
    async with connection(relay) as client:
        await client.send(latest + latest)
        for _ in range(2):
            assert await read_answer(client, latest) == await answer_of(relay, latest)


async def until_read(early: dict[bytes, bool], piece: bytes) -> None:
    await until(lambda: piece in early)


@pytest.mark.service
async def test_other_requests_get_the_usual_answer(relay: str, early: dict[bytes, bool]) -> None:
    """HTTP/1.0, bodies, expectations, repeated and odd fields, and paths that are written in other ways."""
    key = f"X-API-Key: {GOOD}"
    plain = head("GET /api/latest/crash", key)
    for data, status in (
        (plain.replace(b"HTTP/1.1", b"HTTP/1.0"), b"200"),
        (head("GET /sse/crash", key).replace(b"HTTP/1.1", b"HTTP/1.0"), b"200"),
        (head("GET /ws/crash", key, *HANDSHAKE).replace(b"HTTP/1.1", b"HTTP/1.0"), b"426"),
        (head("GET /ws/crash", key), b"426"),
        (head("GET /api/latest/crash", key, "Content-Length: 2") + b"{}", b"200"),
        (head("GET /api/latest/crash", key, "Expect: 100-continue"), b"200"),
        (head("GET /api/latest/crash", key, "Expect: 200-ok"), b"417"),
        (head("GET /api/latest/crash", key, key), b"200"),
        (head("GET /api/latest/crash", key, f"X-API-Key: {SOME}"), b"400"),
        (head("GET /api/latest/crash", key, "Host: other"), b"400"),
        (head("GET /api/latest/cr%61sh", key), b"200"),
        (head("GET /api/latest/crash?corrections=%30", key), b"200"),
        (head("GET /api/latest/crash/", key), b"404"),
        (head("GET /api/latest", key), b"404"),
        (head("HEAD /api/latest/crash", key), b"200"),
        (head("OPTIONS /api/latest/crash", key), b"204"),
        (head("DELETE /api/latest/crash", key), b"405"),
        (head("GET /api/history/crash?to=2026-01-18T10:00:00Z&limit=1", key), b"200"),
        (head("GET /api/latest/crash", key, "Upgrade: websocket", "Connection: Upgrade"), b"200"),
        (head("GET /api/latest/crash", key, "Connection: close"), b"200"),
        (head("POST /api/auth/token", key, "Content-Length: 2") + b"{}", b"200"),
    ):
        assert (await answer_of(relay, data)).split(b" ", 2)[1] == status, data
        assert not early[data], data


@pytest.mark.service
async def test_request_that_has_to_wait_is_counted_once(relay: str) -> None:
    """It is begun from its head, and continued by aiohttp's handler."""
    left = []
    async with connection(relay) as client:
        for _ in range(3):
            await client.send(head("GET /api/history?limit=20&colors=red", f"X-API-Key: {FEW}"))
            received = await client.until(b"]")
            left.append(int(received.partition(b"Remaining: ")[2].split(b"\r\n")[0]))
    assert [first - second for first, second in pairwise(left)] == [1, 1]


@pytest.mark.service
async def test_clients_of_one_proxy_are_told_apart(start_relay: StartRelay, early: dict[bytes, bool]) -> None:
    """Each request over a proxy's connection is of the client that the proxy names."""
    http = {"host": "127.0.0.1", "port": 0, "trusted_proxies": "127.0.0.1"}
    limits = LIMITS | {"public_requests_per_min": 1}
    async with start_relay(keys=KeyRing(KEYS), http=http, limits=limits) as url, connection(url) as client:
        found = []
        for address in ("10.0.0.1", "10.0.0.2", "10.0.0.1"):
            lines = (f"X-API-Key: {PAGE}", f"Origin: {ORIGIN}", f"X-Forwarded-For: {address}")
            await client.send(head("POST /api/auth/token", *lines))
            found.append((await client.until(b"}")).split(b" ", 2)[1])
        assert found == [b"200", b"200", b"429"]
        assert all(is_early for data, is_early in early.items() if data.startswith(b"POST"))


class _Connection:
    _reading_paused = False


@given(
    path=st.sampled_from(["/ws", "/ws/crash", "/sse", "/api/history"]),
    query=st.lists(st.tuples(st.sampled_from(["a", "games", "_x", "a-b", ""]), st.text("aZ9._,:-+%&=;", max_size=6))),
    separator=st.sampled_from(["&", "&&", ";"]),
    upgrade=st.sampled_from(["websocket", "WebSocket", "h2c", "websocket, h2c", ""]),
    connection_=st.sampled_from(["Upgrade", "keep-alive, Upgrade", "close, upgrade", "upgrade,", "keep-alive", "x"]),
)
def test_both_parsers_read_the_same_streams(
    path: str, query: list[tuple[str, str]], separator: str, upgrade: str, connection_: str
) -> None:
    """Query and upgrade of a plain head mean the same to aiohttp."""
    target = f"{path}?{separator.join(f'{name}={value}' for name, value in query)}" if query else path
    more = f"Upgrade: {upgrade}\r\nConnection: {connection_}\r\n" if upgrade else ""
    data = f"GET {target} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()
    plain = PlainHead.read(data)
    if plain is None:
        return

    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(_Connection(), loop, 2**16)  # type: ignore[arg-type]
        [(message, _)], upgraded, tail = parser.feed_data(data)
    finally:
        loop.close()

    assert isinstance(message, RawRequestMessage)
    assert (message.path, upgraded, tail) == (plain.target, plain.upgrades, b"")
    assert not message.should_close
    assert list(message.url.query.items()) == plain.parameters()
    assert str(message.url) == plain.target
    assert message.url.path == plain.path


@pytest.mark.service
async def test_page_that_was_asked_for_before_has_the_next_round(
    relay: str, publish: Publish, early: dict[bytes, bool]
) -> None:
    """A page is rendered once, until the next round comes; each page is kept by its games, its limit and its begin."""
    ask = {
        limit: head(f"GET /api/history/crash?limit={limit}", f"X-API-Key: {GOOD}", "Connection: keep-alive")
        for limit in (2, 3)
    }
    first = {limit: await answer_of(relay, data) for limit, data in ask.items()}
    assert {limit: await answer_of(relay, data) for limit, data in ask.items()} == first
    assert [answer.count(b'"round_id":') for answer in first.values()] == [2, 3]
    await publish("crash", 99)

    async def has_new() -> bool:
        return b'"round_id":99,' in await answer_of(relay, head("GET /api/latest/crash", f"X-API-Key: {GOOD}"))

    await until(has_new)
    for limit, data in ask.items():
        answer = await answer_of(relay, data)
        ids = re.findall(rb'"round_id":(\d+),', answer)
        assert ids == [b"99", b"25", b"24"][:limit]
        assert answer == (await answer_of(relay, data[:-2] + f"{USUAL}\r\n\r\n".encode()))
        assert early[data]
