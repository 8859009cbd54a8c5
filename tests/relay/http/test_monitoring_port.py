"""The port for probes and scrapes, of a relay and of ``ingest``: its errors are those of the HTTP port."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from relay.http.monitoring.exposition import scrape_of, serving_probes
from relay.http.protocol import HttpProtocol
from tests.relay.raw_http import connection, exchange, parse

pytestmark = pytest.mark.service


class NoMetrics:
    def collect(self) -> Iterator[Any]:
        return iter(())


class FailingMetrics:
    def collect(self) -> Iterator[Any]:
        raise RuntimeError("simulated")


@pytest.fixture
async def port() -> AsyncIterator[str]:
    """The URL of a port for probes."""
    scrape = scrape_of(NoMetrics())
    async with serving_probes(scrape, lambda: "starting", host="127.0.0.1", port=0, setting="X") as port:
        yield f"http://127.0.0.1:{port}"


def raw(line: str, *headers: str) -> bytes:
    return "\r\n".join([line, "Host: x", *headers, "", ""]).encode()


ERRORS = {
    "path": (raw("GET /nowhere HTTP/1.1"), 404, "not_found"),
    "path_of_the_other_port": (raw("GET /api/games HTTP/1.1"), 404, "not_found"),
    "method": (raw("POST /healthz HTTP/1.1", "Content-Length: 0"), 405, "method_not_allowed"),
    "preflight": (raw("OPTIONS /metrics HTTP/1.1", "Origin: http://x"), 405, "method_not_allowed"),
    "connect": (raw("CONNECT x:1 HTTP/1.1"), 405, "method_not_allowed"),
    "nonsense": (b"nonsense\r\n\r\n", 400, "bad_request"),
    "tls": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400, "bad_request"),
    "no_host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "bad_request"),
    "url": (raw("GET /" + "x" * 20_000 + " HTTP/1.1"), 414, "url_too_long"),
    "header": (raw("GET /healthz HTTP/1.1", "X: " + "x" * 20_000), 431, "head_too_large"),
    "headers": (raw("GET /healthz HTTP/1.1", *["X: 1"] * 200), 431, "head_too_large"),
    "head": (raw("GET /healthz HTTP/1.1", *["X: " + "x" * 8000] * 100), 431, "head_too_large"),
    "expectation": (raw("GET /healthz HTTP/1.1", "Expect: something"), 417, "expectation_failed"),
    "unknown_method": (raw("BREW /healthz HTTP/1.1"), 501, "unsupported"),
    "version": (raw("GET /healthz HTTP/2.0"), 505, "http_version_not_supported"),
}


@pytest.mark.parametrize("what", ERRORS)
async def test_error_has_the_error_body(port: str, what: str) -> None:
    """As on the HTTP port, and without the names of libraries. Pages of other origins cannot read it."""
    data, status, code = ERRORS[what]
    async with connection(port) as link:
        await link.send(data)
        link.writer.write_eof()
        answer = parse(await link.rest())

    assert answer.status == status
    assert list(answer.json) == ["error", "success", "code"]
    assert (answer.json["success"], answer.json["code"]) == (False, code)
    assert answer.headers["server"] == "stream-relay"
    assert "access-control-allow-origin" not in answer.headers


async def test_end_between_two_requests_closes_the_connection(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client closes its sending side in the turn between an answer and aiohttp's wait for the next request."""
    finish = HttpProtocol.finish_response

    async def finish_response(protocol: HttpProtocol, *answer: Any) -> Any:
        finished = await finish(protocol, *answer)
        if protocol.transport is not None:
            intake: Any = protocol.transport.get_protocol()
            asyncio.get_running_loop().call_soon(intake.eof_received)
        return finished

    monkeypatch.setattr(HttpProtocol, "finish_response", finish_response)
    async with connection(port) as link:
        await link.send(raw("GET /healthz HTTP/1.1"))
        assert parse(await link.rest()).status == 200


async def test_unknown_path_names_the_known_ones(port: str) -> None:
    """This port has no /docs."""
    answer = await exchange(port, "GET /docs HTTP/1.1")

    assert answer.json["error"] == "there is no path '/docs'; this port has /healthz, /readyz and /metrics"


async def test_answers_of_the_port(port: str) -> None:
    """Several in one connection, also when they are sent together."""
    requests = [raw("GET /healthz HTTP/1.1"), raw("GET /readyz HTTP/1.1"), raw("GET /metrics HTTP/1.1")]
    async with connection(port) as link:
        await link.send(b"".join(requests) + raw("HEAD /healthz HTTP/1.1", "Connection: close"))
        answered = await link.rest()

    assert re.findall(rb"HTTP/1.1 (\d+) ", answered) == [b"200", b"503", b"200", b"200"]


async def test_scrape_that_fails_gets_the_error_body() -> None:
    """And no traceback."""
    scrape = scrape_of(FailingMetrics())
    async with serving_probes(scrape, lambda: None, host="127.0.0.1", port=0, setting="X") as port:
        answer = await exchange(f"http://127.0.0.1:{port}", "GET /metrics HTTP/1.1")

    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert b"simulated" not in answer.body


async def test_many_idle_connections_do_not_keep_a_probe_away(port: str) -> None:
    """Those that have been idle longest are closed."""
    async with AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(connection(port)) for _ in range(100)]
        assert (await exchange(port, "GET /healthz HTTP/1.1")).status == 200
        assert await idle[0].rest() == b""
