"""What a client may hold of the HTTP port: no connection for ever, no other client's place."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from auth.key_secret import DEMO_KEY
from relay import compose
from relay.admission.open_files import FileShares
from relay.http.connections import guarded
from relay.http.protocol import HttpProtocol
from tests.relay.conftest import StartRelay, metric, metric_becomes
from tests.relay.raw_http import Connection, connection, parse
from tests.waiting import until

pytestmark = pytest.mark.service

KEY: Final = f"X-API-Key: {DEMO_KEY}"
TOKEN: Final = "POST /api/auth/token HTTP/1.1"
LIST: Final = "POST /api/grpc/datastream.DataStream/ListGames HTTP/1.1"
STREAM: Final = "POST /api/grpc/datastream.DataStream/StreamAll HTTP/1.1"
JSON: Final = "Content-Type: application/json"
CONNECT: Final = "Content-Type: application/connect+json"
CHUNKED: Final = "Transfer-Encoding: chunked"
SHORT_S: Final = 0.3
AT_ONCE_S: Final = 5.0
REST_S: Final = 2 * SHORT_S
"""Between two requests: longer than the time for the head of one."""
BETWEEN_BYTES_S: Final = SHORT_S / 10
"""A byte comes before any deadline of silence."""
TAKEN_S: Final = 1.0
BETWEEN_READS_S: Final = TAKEN_S / 40
"""A slow reader takes more than the least in `TAKEN_S`, also on a busy machine."""


@pytest.fixture
async def impatient(start_relay: StartRelay) -> AsyncIterator[str]:
    """A relay that waits `SHORT_S` for each part of a request."""
    async with start_relay(http={"host": "127.0.0.1", "port": 0, "request_s": SHORT_S}) as url:
        yield url


def head(*lines: str) -> bytes:
    return "\r\n".join([*lines, "Host: x", "", ""]).encode()


async def answer_to(url: str, *lines: str, body: bytes = b"") -> tuple[int, str]:
    """Send a request whose body does not come, or not whole; return the status and code of the answer."""
    async with connection(url) as link:
        await link.send(head(*lines) + body)
        answer = parse(await link.until(b"}"))
        await link.rest()  # the relay closes the connection
    return answer.status, answer.body.partition(b'"code":"')[2].partition(b'"')[0].decode()


# --- bodies --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((TOKEN, "Content-Length: 3000000"), (401, "invalid_credential")),
        ((TOKEN, CHUNKED), (401, "invalid_credential")),
        ((TOKEN, KEY, "Content-Length: 4097"), (413, "too_large")),
        (("POST /nothing HTTP/1.1", "Content-Length: 3000000"), (404, "not_found")),
        (("POST /api/games HTTP/1.1", KEY, CHUNKED), (405, "method_not_allowed")),
        ((LIST, JSON, "Content-Length: 10"), (401, "unauthenticated")),
        ((LIST, JSON, KEY, "Content-Length: 3000000"), (429, "resource_exhausted")),
    ],
    ids=["no key", "no key, chunked", "token", "no path", "no method", "proxy, no key", "proxy"],
)
async def test_refusal_does_not_wait_for_the_body(
    relay: str, lines: tuple[str, ...], expected: tuple[int, str]
) -> None:
    """The answer comes before any byte of the body, and then the connection ends."""
    began = time.monotonic()
    answered = await answer_to(relay, *lines)

    if "3000000" in str(lines) or CHUNKED in lines or "4097" in str(lines):
        assert answered == expected
        assert time.monotonic() - began < AT_ONCE_S


async def test_body_of_a_token_request_is_small(relay: str) -> None:
    """A chunked body has no length: 413 comes once it is over 4 KB. A small one is read, and the connection stays."""
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    assert await answer_to(relay, TOKEN, KEY, CHUNKED, body=chunk * 2) == (413, "too_large")

    async with connection(relay) as link:
        for _ in range(2):
            await link.send(head(TOKEN, KEY, CHUNKED) + chunk)
            await link.send(b"0\r\n\r\n")
            assert (await link.until(b"}")).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(("path", "code"), [(TOKEN, "bad_request"), (LIST, "invalid_argument")])
async def test_body_of_many_small_chunks_is_refused(relay: str, path: str, code: str) -> None:
    """Each takes some microseconds, however small it is. A body of 200 is read; most have one or two."""
    one = b"1\r\n \r\n"
    assert await answer_to(relay, path, KEY, JSON, CHUNKED, body=one * 1000) == (400, code)
    async with connection(relay) as link:
        await link.send(head(path, KEY, JSON, CHUNKED) + one * 200 + b"2\r\n{}\r\n0\r\n\r\n")
        assert (await link.until(b"}")).startswith(b"HTTP/1.1 200")


async def test_client_that_sends_a_large_body_gets_the_answer(relay: str, client: aiohttp.ClientSession) -> None:
    """Not a reset: what it has sent is dropped for a while."""
    async with client.post(
        f"{relay}/api/auth/token", headers={"X-API-Key": DEMO_KEY}, data=BytesIO(bytes(3 << 20))
    ) as answer:
        assert answer.status == 413
        assert (await answer.json())["code"] == "too_large"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ((TOKEN, KEY, "Content-Length: 4000"), (408, "request_timeout")),
        ((LIST, JSON, KEY, "Content-Length: 4000"), (504, "deadline_exceeded")),
        ((LIST, JSON, KEY, CHUNKED), (504, "deadline_exceeded")),
    ],
    ids=["token", "proxy", "proxy, chunked"],
)
@pytest.mark.parametrize("trickle", [False, True], ids=["silent", "byte by byte"])
async def test_body_that_does_not_come(
    impatient: str, lines: tuple[str, ...], expected: tuple[int, str], trickle: bool
) -> None:
    """It has the time of a request, also when it comes byte by byte."""
    async with connection(impatient) as link:
        await link.send(head(*lines))
        if trickle:
            sending = asyncio.create_task(drip(link, b"1\r\n{\r\n" if CHUNKED in lines else b"{"))
        answer = parse(await link.until(b"}"))
        if trickle:
            sending.cancel()

    assert answer.status == expected[0]
    assert expected[1].encode() in answer.body


@pytest.mark.parametrize("call", [LIST, STREAM], ids=["unary", "stream"])
async def test_timeout_of_a_call_includes_its_body(relay: str, call: str) -> None:
    """``Connect-Timeout-Ms`` begins with the head of the request."""
    began = time.monotonic()
    kind = JSON if call is LIST else CONNECT
    async with connection(relay) as link:
        await link.send(head(call, kind, KEY, "Connect-Timeout-Ms: 200", "Content-Length: 10"))
        answer = await link.until(b"deadline_exceeded")

    assert answer.startswith(b"HTTP/1.1 504" if call is LIST else b"HTTP/1.1 200")
    assert time.monotonic() - began < AT_ONCE_S


# --- heads and answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requests", [0, 1], ids=["first", "second"])
async def test_head_byte_by_byte(impatient: str, requests: int) -> None:
    """Each request on a connection has the same time; between two, a connection may rest for longer."""
    async with connection(impatient) as link:
        for _ in range(requests):
            await link.send(head("GET /healthz HTTP/1.1"))
            await link.until(b"}")
            await asyncio.sleep(REST_S)
        await link.send(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        sending = asyncio.create_task(drip(link, b"a"))
        assert await link.rest() == b""
        sending.cancel()


async def test_part_of_a_head_that_comes_with_the_request_before_it(impatient: str) -> None:
    """The rest of it has the time of a request, which begins with the answer."""
    async with connection(impatient) as link:
        await link.send(head("GET /healthz HTTP/1.1") + b"GET /healthz HT")
        answer = await asyncio.wait_for(link.rest(), AT_ONCE_S)

    assert parse(answer).status == 200


async def test_part_of_a_head_that_comes_between_two_requests(impatient: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the turn between an answer and aiohttp's wait for the next request: it has the time of a request as well."""
    finish = HttpProtocol.finish_response

    async def finish_response(protocol: HttpProtocol, *answer: Any) -> Any:
        finished = await finish(protocol, *answer)
        asyncio.get_running_loop().call_soon(protocol.data_received, b"GET /healthz HT")
        return finished

    monkeypatch.setattr(HttpProtocol, "finish_response", finish_response)
    async with connection(impatient) as link:
        await link.send(head("GET /healthz HTTP/1.1"))
        answer = await asyncio.wait_for(link.rest(), AT_ONCE_S)

    assert parse(answer).status == 200


async def test_answer_that_nobody_reads(
    relay: str, client: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks and does not read is cut; one that reads slowly is not."""
    monkeypatch.setattr(guarded, "_TAKEN_S", TAKEN_S)
    loop = asyncio.get_running_loop()
    with tiny_buffers(relay) as deaf, tiny_buffers(relay) as slow:
        await metric_becomes(client, relay, 'relay_connections{group="strangers"}', 3)  # with the scrape
        reading = asyncio.create_task(read_slowly(slow))
        for sock in (deaf, slow):
            await loop.sock_sendall(sock, head("GET /openapi.json HTTP/1.1") * 400)
        await metric_becomes(client, relay, 'relay_connections{group="strangers"}', 2)

        assert not reading.done()
        reading.cancel()


# --- shares --------------------------------------------------------------------------------------------------------


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch) -> FileShares:
    """A relay with room for 64 strangers and 64 guests."""
    files = FileShares.of(560, links=50_000)
    monkeypatch.setattr(compose, "shared_files", lambda _: files)
    return files


async def idle_connections(stack: AsyncExitStack, url: str, count: int) -> list[Connection]:
    return [await stack.enter_async_context(connection(url)) for _ in range(count)]


async def test_strangers_do_not_shut_the_port(
    start_relay: StartRelay, client: aiohttp.ClientSession, few_files: FileShares
) -> None:
    """1,500 idle connections: a client with a key gets in, links and guests stay, and probes are answered."""
    async with start_relay() as url, AsyncExitStack() as stack:
        early = await stack.enter_async_context(connection(url))
        await early.send(head("GET /sse HTTP/1.1", KEY))
        await early.until(b":\n")
        guest = await stack.enter_async_context(connection(url))
        await guest.send(head("GET /api/games HTTP/1.1", KEY))
        await guest.until(b"]")
        await idle_connections(stack, url, 1500)

        late = await stack.enter_async_context(connection(url))
        await late.send(head("GET /sse HTTP/1.1", KEY))
        assert (await late.until(b":\n")).startswith(b"HTTP/1.1 200")
        for path in ("/healthz", "/readyz", "/metrics"):
            async with client.get(f"{url}{path}") as answer:
                assert answer.status == 200
        await guest.send(head("GET /api/games HTTP/1.1", KEY))
        assert (await guest.until(b"]")).startswith(b"HTTP/1.1 200")
        strangers = await metric(client, url, 'relay_connections{group="strangers"}')
        shed = await metric(client, url, 'relay_connections_shed_total{group="strangers"}')
        assert await metric(client, url, "relay_links") == 2

    assert strangers <= few_files.strangers
    assert shed >= 1500 - few_files.strangers


async def test_strangers_that_read_no_answer_do_not_shut_the_port(
    start_relay: StartRelay, client: aiohttp.ClientSession, few_files: FileShares
) -> None:
    """An answer that waits for its reader does not protect the connection of a stranger."""
    async with start_relay() as url, AsyncExitStack() as stack:
        for _ in range(2 * few_files.strangers):
            deaf = stack.enter_context(tiny_buffers(url))
            deaf.send(head("GET /openapi.json HTTP/1.1") * 20)
        await metric_becomes(client, url, 'relay_connections{group="strangers"}', few_files.strangers)
        for _ in range(few_files.strangers):
            late = await stack.enter_async_context(connection(url))
            await late.send(head("GET /sse HTTP/1.1", KEY))
            assert (await late.until(b":\n")).startswith(b"HTTP/1.1 200")


async def test_refused_credentials_are_strangers(
    start_relay: StartRelay, client: aiohttp.ClientSession, few_files: FileShares
) -> None:
    """A connection whose credential was refused counts as if it had shown none."""
    async with start_relay() as url, AsyncExitStack() as stack:
        for link in await idle_connections(stack, url, 3):
            await link.send(head("GET /api/games HTTP/1.1", f"X-API-Key: sk_live_{'1' * 64}"))
            await link.until(b"}")
        await metric_becomes(client, url, 'relay_connections{group="strangers"}', 4)  # and the scrape
        assert await metric(client, url, 'relay_connections{group="guests"}') == 0


async def test_stream_of_the_proxy_is_a_link(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """Its connection is in no share while it is open."""
    async with start_relay() as url:
        async with connection(url) as link:
            await link.send(head(STREAM, CONNECT, KEY, "Content-Length: 7") + b"\0\0\0\0\2{}")
            await link.until(b"\r\n\r\n")
            assert await metric(client, url, "relay_links") == 1
            assert await metric(client, url, 'relay_connections{group="guests"}') == 0
        await metric_becomes(client, url, "relay_links", 0)


# --- peers that are gone -------------------------------------------------------------------------------------------


async def test_kernel_probes_quiet_connections(relay: str) -> None:
    """A stream of the proxy writes nothing for hours: TCP keepalive notices that its client is gone."""
    async with connection(relay) as link:
        await link.send(head(STREAM, CONNECT, KEY, "Content-Length: 7") + b"\0\0\0\0\2{}")
        await link.until(b"\r\n\r\n")
        peer = link.writer.get_extra_info("sockname")[1]
        relay_port = link.writer.get_extra_info("peername")[1]
        # Until the client's kernel has acknowledged the answer, the timer is that of retransmission.
        timer, due_s = await until(lambda: _timer(relay_port, peer) if _timer(relay_port, peer)[0] == 2 else None)

    assert timer == 2  # keepalive (proc_net_tcp in the Linux documentation)
    assert 0 < due_s <= 20.5


def _timer(local: int, remote: int) -> tuple[int, float]:
    """Return the active timer of a connection of IPv4, and in how many seconds it is due."""
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        fields = line.split()
        ports = tuple(int(address.partition(":")[2], 16) for address in fields[1:3])
        if ports == (local, remote):
            kind, _, due = fields[5].partition(":")
            return int(kind, 16), int(due, 16) / 100
    raise AssertionError("there is no such connection")


async def drip(link: Connection, piece: bytes) -> None:
    """Send a piece again and again, faster than any deadline, until the connection ends."""
    try:
        while True:
            await link.send(piece)
            await asyncio.sleep(BETWEEN_BYTES_S)
    except ConnectionError:
        pass


def tiny_buffers(url: str) -> socket.socket:
    """Connect with a receive buffer of a few KB."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", int(url.rpartition(":")[2])))
    sock.setblocking(False)
    return sock


async def read_slowly(sock: socket.socket) -> None:
    """Read until the connection ends."""
    while True:
        if not await asyncio.get_running_loop().sock_recv(sock, 1 << 15):
            return
        await asyncio.sleep(BETWEEN_READS_S)
