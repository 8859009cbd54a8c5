"""Requests at the edges of HTTP: too large, half-closed, unusual methods and targets. Each gets its answer."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from auth.key_ring import KeyRing
from auth.tokens import TokenSigner
from relay.config.sections import DrainSettings, GrpcSettings, HttpSettings
from relay.config.settings import Settings
from relay.http.monitoring.exposition import scrape_of, serving_probes
from relay.serve import running_relay
from roundlog.log_settings import LogSettings
from tests.nats import NatsServer
from tests.network.streams import connected
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, metric_becomes
from tests.relay.raw_http import DEADLINE_S, RawAnswer, connection, exchange, parse
from tests.waiting import until

pytestmark = pytest.mark.service

KEY = "X-API-Key: " + KEY_HEADER["X-API-Key"]
SLOWLY_S = 0.01
"""Between two pieces of a client that never stops sending."""
HANDSHAKE = (
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + "A" * 22 + "==",
    KEY,
)


def assert_is_error(answer: RawAnswer, status: int, code: str) -> None:
    assert answer.status == status, answer
    assert list(answer.json) == ["error", "success", "code"]
    assert answer.json["error"]
    assert (answer.json["success"], answer.json["code"]) == (False, code)
    assert answer.headers["server"] == "stream-relay"


def raw(line: str, *headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode() + body


# --- too large ---------------------------------------------------------------------------------------------------

TOO_LARGE = {
    "url": (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
    "query": (b"GET /sse?games=" + b"x" * 300_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
    "url_by_a_byte": (b"GET /" + b"x" * 8190 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "url_too_long"),
    "header": (raw("GET /healthz HTTP/1.1", "X: " + "/" * 20_000), 431, "head_too_large"),
    "name_of_a_header": (raw("GET /healthz HTTP/1.1", "x" * 20_000 + ": 1"), 431, "head_too_large"),
    "headers": (raw("GET /healthz HTTP/1.1", *["X: 1"] * 200), 431, "head_too_large"),
    "head": (raw("GET /healthz HTTP/1.1", *["X: " + "x" * 8000] * 100), 431, "head_too_large"),
}


@pytest.mark.parametrize("piece", [1 << 20, 1000], ids=["at_once", "in_pieces"])
@pytest.mark.parametrize("what", TOO_LARGE)
async def test_request_that_is_too_large_gets_an_answer(relay: str, what: str, piece: int) -> None:
    """Also a client that reads only after it has sent everything: the connection is not reset under it."""
    data, status, code = TOO_LARGE[what]
    async with connection(relay) as link:
        for at in range(0, len(data), piece):
            await link.send(data[at : at + piece])
            await asyncio.sleep(0)
        answer = parse(await link.rest())

    assert_is_error(answer, status, code)


async def test_largest_url_and_header_are_served(relay: str) -> None:
    """8190 bytes each, in a head of up to 64 KB."""
    answer = await exchange(relay, "GET /healthz?" + "x" * 8177 + " HTTP/1.1", *["X: " + "x" * 8000] * 5)

    assert answer.status == 200


async def test_connection_of_a_refused_request_is_cut_in_the_end(relay: str) -> None:
    """A client that neither closes nor stops sending does not keep it."""
    async with connection(relay) as link:
        await link.send(b"nonsense\r\n\r\n")
        await link.until(b"\r\n\r\n")

        async def send_on() -> None:
            while True:
                await link.send(b"x" * 1000)
                await asyncio.sleep(SLOWLY_S)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(send_on(), DEADLINE_S)


# --- half-closed -------------------------------------------------------------------------------------------------


async def half_closed(relay: str, data: bytes) -> bytes:
    """Send a request, close the sending side, and read all answers."""
    async with connection(relay) as link:
        link.writer.write(data)
        link.writer.write_eof()
        return await link.rest()


CALL = "POST /api/grpc/datastream.DataStream/ListGames HTTP/1.1"


@pytest.mark.parametrize(
    "data",
    [
        raw("GET /healthz HTTP/1.1"),
        raw("GET /healthz HTTP/1.0"),
        raw("GET /api/history/crash HTTP/1.1", KEY),
        raw("POST /api/auth/token HTTP/1.1", KEY, "Content-Length: 2", body=b"{}"),
        raw("POST /api/auth/token HTTP/1.1", KEY, "Transfer-Encoding: chunked", body=b"1\r\nx\r\n0\r\n\r\n"),
        raw(CALL, KEY, "Content-Type: application/json", "Content-Length: 2", body=b"{}"),
    ],
    ids=["probe", "http_1_0", "history", "token", "chunked", "call"],
)
async def test_half_closed_request_is_answered(relay: str, data: bytes) -> None:
    """As by `printf ... | nc`; then the connection is closed, at once."""
    assert parse(await asyncio.wait_for(half_closed(relay, data), 5)).status == 200


async def test_all_half_closed_pipelined_requests_are_answered(relay: str) -> None:
    """More than the server takes from the connection at a time."""
    answers = await half_closed(relay, raw("GET /healthz HTTP/1.1") * 100)

    assert answers.count(b"HTTP/1.1 200 OK") == 100


async def test_half_closed_request_that_is_not_whole_is_not_waited_for(relay: str) -> None:
    """Half a head, half a body: nothing more can come."""
    for data in (b"GET /healthz HT", raw("POST /api/auth/token HTTP/1.1", KEY, "Content-Length: 20", body=b"{}")):
        assert await asyncio.wait_for(half_closed(relay, data), 5) == b""


async def test_half_closed_event_stream_goes_on(
    start_relay: StartRelay, publish: Publish, client: aiohttp.ClientSession
) -> None:
    """Its client reads. When it leaves, the heartbeats find that."""
    async with start_relay(links={"heartbeat_s": 0.2}) as url:
        async with connection(url) as link:
            link.writer.write(raw("GET /sse/crash HTTP/1.1", KEY))
            link.writer.write_eof()
            assert b" 200 OK" in await link.until(b"\r\n\r\n")
            for _ in range(12):  # with those that look for clients that have left
                await link.until(b":\n")
            await publish("crash", 1)
            await link.until(b'"round_id":1,')
        await metric_becomes(client, url, "relay_links", 0)


async def test_event_stream_whose_client_leaves_is_closed_soon(relay: str, client: aiohttp.ClientSession) -> None:
    """A close looks like a half-close until something is written."""
    async with connection(relay) as link:
        await link.send(raw("GET /sse/crash HTTP/1.1", KEY))
        await link.until(b"retry: ")
        await metric_becomes(client, relay, "relay_links", 1)
        link.writer.close()
        await metric_becomes(client, relay, "relay_links", 0, within_s=5)


async def test_stream_of_a_call_whose_client_has_left_is_closed_soon(relay: str, client: aiohttp.ClientSession) -> None:
    """It left before the answer began, and there are no rounds: only the headers of the answer were written."""
    message = b'{"game_slug":"crash"}'
    body = b"\0" + len(message).to_bytes(4) + message
    headers = (KEY, "Content-Type: application/connect+json", f"Content-Length: {len(body)}")
    path = "/api/grpc/datastream.DataStream/StreamByGame"
    async with connection(relay) as link:
        link.writer.write(raw(f"POST {path} HTTP/1.1", *headers, body=body))
        link.writer.close()
        await link.writer.wait_closed()
    async with connection(relay) as link:
        link.writer.write(raw(f"POST {path} HTTP/1.1", *headers, body=body))
        link.writer.write_eof()
        assert b" 200 OK" in await link.until(b"\r\n\r\n")
        await metric_becomes(client, relay, "relay_links", 1, within_s=5)  # not the one that has left


# --- expectations, methods, targets ------------------------------------------------------------------------------


async def test_expectation_is_met_or_refused_with_the_error_body(relay: str) -> None:
    """RFC 9110 section 10.1.1."""
    async with connection(relay) as link:
        await link.send(raw("POST /api/auth/token HTTP/1.1", KEY, "Expect: 100-continue", "Content-Length: 2"))
        assert await link.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await link.send(b"{}")
        assert (await link.until(b"\r\n")) == b"HTTP/1.1 200 OK\r\n"
    for line in ("GET /healthz HTTP/1.1", "GET /nowhere HTTP/1.1", "POST /api/auth/token HTTP/1.1"):
        for value in ("something", "100-continue, something"):
            answer = await exchange(relay, line, KEY, f"Expect: {value}", "Content-Length: 0")
            assert_is_error(answer, 417, "expectation_failed")
    assert (await exchange(relay, "GET /healthz HTTP/1.0", "Expect: something")).status == 200  # HTTP/1.0 has none


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        ("TRACE /healthz HTTP/1.1", 405, "method_not_allowed"),
        ("PROPFIND /healthz HTTP/1.1", 405, "method_not_allowed"),
        ("CONNECT example.org:443 HTTP/1.1", 405, "method_not_allowed"),
        ("BREW /healthz HTTP/1.1", 501, "unsupported"),
        ("get /healthz HTTP/1.1", 400, "bad_request"),
        ("GET healthz HTTP/1.1", 400, "bad_request"),
        ("GET * HTTP/1.1", 400, "bad_request"),
        ("GET /healthz HTTP/2.0", 505, "http_version_not_supported"),
        ("PRI * HTTP/2.0", 400, "bad_request"),
        ("GET http://x/nowhere HTTP/1.1", 404, "not_found"),
    ],
)
async def test_unusual_request_lines_get_the_error_body(relay: str, line: str, status: int, code: str) -> None:
    """Never text, never silence."""
    assert_is_error(await exchange(relay, line, "Content-Length: 0"), status, code)


async def test_absolute_target_is_served(relay: str) -> None:
    """RFC 9112 section 3.2.2: a server must accept it, as it does from clients of a proxy."""
    assert (await exchange(relay, "GET http://example.org/healthz HTTP/1.1")).status == 200


async def test_request_has_one_host(relay: str) -> None:
    """RFC 9112 section 3.2: 400 for none and for two; HTTP/1.0 needs none."""
    async with connection(relay) as link:
        await link.send(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert_is_error(parse(await link.rest()), 400, "bad_request")
    assert_is_error(await exchange(relay, "GET /healthz HTTP/1.1", "Host: y"), 400, "bad_request")
    async with connection(relay) as link:
        await link.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert parse(await link.rest()).status == 200


async def test_lists_may_come_in_several_lines(relay: str, publish: Publish, client: aiohttp.ClientSession) -> None:
    """RFC 9110 section 5.3, for every header of a request that is a list."""
    await publish("crash", *range(1, 20))

    async def is_there() -> bool:
        return len((await exchange(relay, "GET /api/history/crash?limit=19 HTTP/1.1", KEY)).json) == 19

    await until(is_there)
    answer = await exchange(
        relay, "GET /api/history/crash HTTP/1.1", KEY, "Accept-Encoding: identity", "Accept-Encoding: gzip"
    )
    assert answer.headers["content-encoding"] == "gzip"
    etag = (await exchange(relay, "GET /api/latest/crash HTTP/1.1", KEY)).headers["etag"]
    known = ('If-None-Match: "other"', f"If-None-Match: {etag}")
    assert (await exchange(relay, "GET /api/latest/crash HTTP/1.1", KEY, *known)).status == 304
    openmetrics = ("Accept: text/html", "Accept: application/openmetrics-text; version=1.0.0")
    answer = await exchange(relay, "GET /metrics HTTP/1.1", *openmetrics)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    asked = ("Access-Control-Request-Headers: cache-control", "Access-Control-Request-Headers: traceparent")
    answer = await exchange(relay, "OPTIONS /sse/crash HTTP/1.1", *asked)
    assert answer.headers["access-control-allow-headers"].endswith(", cache-control, traceparent")


# --- handshakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        ["Connection: keep-alive", "Connection: Upgrade", "Upgrade: websocket"],
        ["Connection: Upgrade", "Connection: keep-alive", "Upgrade: websocket"],
        ["Connection: keep-alive, , UPGRADE,", "Upgrade: WebSocket"],
        ["Connection: Upgrade", "Upgrade: h2c, websocket"],
        ["Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"],
        ["Connection: Upgrade", "Upgrade: ,websocket ,"],
    ],
)
async def test_handshake_takes_lists_in_any_form(relay: str, headers: list[str], publish: Publish) -> None:
    """RFC 9110 sections 5.3 and 5.6.1: several lines, several values, empty elements."""
    async with connection(relay) as link:
        await link.send(raw("GET /ws/crash HTTP/1.1", *headers, *HANDSHAKE))
        assert (await link.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await publish("crash", 1)
        await link.until(b'"round_id":1,')


async def test_token_is_found_in_any_line_of_the_subprotocols(relay: str, client: aiohttp.ClientSession) -> None:
    """And `datastream.v1` in another one is selected."""
    async with client.post(f"{relay}/api/auth/token", headers=KEY_HEADER) as response:
        token = (await response.json())["token"]
    lines = ["Sec-WebSocket-Protocol: , datastream.v1", f"Sec-WebSocket-Protocol: {token}"]
    async with connection(relay) as link:
        head = raw("GET /ws/crash HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", *lines, *HANDSHAKE[:2])
        await link.send(head)
        answer = await link.until(b"\r\n\r\n")

    assert b"Sec-WebSocket-Protocol: datastream.v1\r\n" in answer


async def test_handshake_of_http_1_0_is_refused(relay: str) -> None:
    """RFC 6455 section 4.2.1 requires 1.1, and RFC 9110 section 7.8 ignores upgrades of 1.0."""
    answer = await exchange(relay, "GET /ws/crash HTTP/1.0", "Connection: Upgrade", "Upgrade: websocket", *HANDSHAKE)

    assert_is_error(answer, 426, "upgrade_required")


async def test_what_follows_a_handshake_in_its_segment_is_handled(relay: str) -> None:
    """A client that does not wait for the answer is answered in order."""
    message = b'{"action":"ping"}'
    frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    async with connection(relay) as link:
        head = raw("GET /ws/crash HTTP/1.1", "Connection: Upgrade", "Upgrade: websocket", *HANDSHAKE)
        await link.send(head + frame + frame[:7])
        assert (await link.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await link.until(b'{"event":"pong"}')
        await link.send(frame[7:])
        await link.until(b'{"event":"pong"}')


# --- settings ----------------------------------------------------------------------------------------------------


async def test_idle_connection_is_closed_after_the_configured_time(start_relay: StartRelay) -> None:
    """And not before: it serves a second request."""
    http = {"host": "127.0.0.1", "port": 0, "keepalive_s": 1}
    async with start_relay(http=http) as url, connection(url) as link:
        for _ in range(2):
            await link.send(raw("GET /healthz HTTP/1.1"))
            await link.until(b'{"status": "ok"}')
        assert await asyncio.wait_for(link.rest(), 10) == b""


@pytest.fixture
def ipv6() -> Iterator[None]:
    """Skip where the system has no IPv6."""
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            yield
    except OSError:
        pytest.skip("this system has no IPv6")


async def answers_of(port: int | None) -> list[int]:
    """Ask over IPv4 and over IPv6; 0 for an address that nobody listens on."""
    statuses = []
    for address in ("127.0.0.1", "[::1]"):
        try:
            statuses.append((await exchange(f"http://{address}:{port}", "GET /healthz HTTP/1.1")).status)
        except ConnectionRefusedError:
            statuses.append(0)
    return statuses


def taken_of_ipv4(stack: ExitStack) -> int:
    """Return a port of 127.0.0.1 that refuses connections: no other program listens there while the block runs."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    return int(sock.getsockname()[1])


@pytest.mark.usefixtures("ipv6")
@pytest.mark.parametrize(("host", "answers"), [("::", [200, 200]), ("::1", [0, 200]), ("127.0.0.1", [200, 0])])
async def test_all_addresses_of_ipv6_include_those_of_ipv4(
    start_relay: StartRelay, host: str, answers: list[int]
) -> None:
    """`::` serves both families; other addresses are what they are."""
    with ExitStack() as stack:
        port = 0 if host != "::1" else taken_of_ipv4(stack)
        async with start_relay(http={"host": host, "port": port}, grpc={"host": host, "port": 0}) as url:
            assert await answers_of(urlsplit(url).port) == answers


@pytest.mark.usefixtures("ipv6")
async def test_port_of_ingest_serves_both_families_too() -> None:
    """With the same address."""

    class NoMetrics:
        def collect(self) -> Iterator[Any]:
            return iter(())

    async with serving_probes(
        scrape_of(NoMetrics()), lambda: None, host="::", port=0, setting="RELAY_INGEST_PORT"
    ) as port:
        assert await answers_of(port) == [200, 200]


@pytest.mark.usefixtures("ipv6")
async def test_grpc_serves_both_families_too(nats: NatsServer) -> None:
    """As grpcio does by itself."""
    settings = Settings(
        nats=LogSettings(url=nats.url),
        http=HttpSettings(host="::", port=0),
        grpc=GrpcSettings(host="::", port=0),
        drain=DrainSettings(grace_s=0, margin_s=0),
    )
    async with running_relay(settings, KeyRing.demo(), TokenSigner.ephemeral()) as at:
        for address in ("127.0.0.1", "::1"):
            async with connected(address, at.grpc_port):
                pass
