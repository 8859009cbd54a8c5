"""The limit of open files: a relay raises it as far as allowed, and starts with any limit."""

import asyncio
import resource
from contextlib import AsyncExitStack

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from relay.admission import open_files
from relay.admission.open_files import FileShares
from tests.nats import NatsServer
from tests.relay.conftest import metric
from tests.relay.raw_http import connection, exchange
from tests.relay.serving import serving

INFINITY = resource.RLIM_INFINITY


class System:
    """The limits of a process on a system that takes no soft limit above `bound`."""

    def __init__(self, soft: int, hard: int, *, bound: int) -> None:
        self.limits, self._bound = (soft, hard), bound

    def getrlimit(self, which: int) -> tuple[int, int]:
        assert which == resource.RLIMIT_NOFILE
        return self.limits

    def setrlimit(self, which: int, limits: tuple[int, int]) -> None:
        assert which == resource.RLIMIT_NOFILE
        if limits[0] > self._bound:
            raise ValueError("current limit exceeds maximum limit")
        self.limits = limits


def limits_after(monkeypatch: pytest.MonkeyPatch, system: System, *, links: int) -> tuple[int, int]:
    monkeypatch.setattr(resource, "getrlimit", system.getrlimit)
    monkeypatch.setattr(resource, "setrlimit", system.setrlimit)
    open_files.allow_links(links)
    return system.limits


@pytest.mark.parametrize(
    ("soft", "hard", "bound", "expected"),
    [
        (1024, 4096, 1 << 20, 1500),  # as far as the links need, not to the hard limit
        (1024, INFINITY, 1 << 20, 1500),
        (1024, INFINITY, 1200, 1200),  # macOS: refused above an unknown bound
        (1024, 1200, 1 << 20, 1200),
        (1024, 1024, 1024, 1024),
        (1024, 4096, 0, 1024),  # a sandbox that refuses every change
        (2000, 4096, 1 << 20, 2000),
        (INFINITY, INFINITY, 0, INFINITY),
    ],
)
def test_soft_limit_rises_as_far_as_links_need(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, bound: int, expected: int
) -> None:
    """It is never lowered, the hard limit does not change, and a refusal of the system is no error."""
    assert limits_after(monkeypatch, System(soft, hard, bound=bound), links=1000) == (expected, hard)


@pytest.mark.parametrize(("hard", "told"), [(1499, ["open_files_limit"]), (1500, [])])
def test_limit_that_is_too_low_is_logged_once(monkeypatch: pytest.MonkeyPatch, hard: int, told: list[str]) -> None:
    """At level info, with the limit and the number needed: only the operator can raise it."""
    with capture_logs() as logs:
        limits_after(monkeypatch, System(64, hard, bound=1 << 20), links=1000)

    assert [entry["event"] for entry in logs] == told
    for entry in logs:
        assert (entry["log_level"], entry["limit"], entry["needed"]) == ("info", 1499, 1500)
        assert "1500" in entry["advice"]


@pytest.mark.service
async def test_relay_takes_more_links_than_its_soft_limit(nats: NatsServer, client: aiohttp.ClientSession) -> None:
    """100 links under a soft limit of 64 files."""
    async with serving(nats.url, ulimit="-S -n 64", RELAY_LINKS_MAX_LINKS="200") as relay, AsyncExitStack() as stack:
        for _ in range(100):
            link = await stack.enter_async_context(connection(relay.url))
            await link.send(f"GET /sse HTTP/1.1\r\nHost: x\r\nX-API-Key: {relay.key}\r\n\r\n".encode())
            await link.until(b":\n\r\n")
        assert await metric(client, relay.url, "relay_links") == 100
    assert not any("open_files_limit" in line for line in relay.printed)


@pytest.mark.service
async def test_relay_starts_under_a_hard_limit_that_is_too_low(nats: NatsServer) -> None:
    """It serves as many as it can, and logs what to set."""
    async with serving(nats.url, ulimit="-n 64", RELAY_LINKS_MAX_LINKS="200") as relay:
        pass
    [line] = [line for line in relay.printed if "open_files_limit" in line]
    assert '"limit": 64' in line
    assert '"needed": 700' in line


@given(st.integers(64, 1 << 21), st.integers(1, 100_000))
def test_shares_are_within_the_limit(limit: int, links: int) -> None:
    """The process itself, strangers, guests, connections to gRPC, and links of any mix that fits."""
    files = FileShares.of(limit, links=links)
    over_http = files.links // files.costs["sse"]

    assert min(files.strangers, files.guests, files.grpc_connections, over_http) >= 1
    assert 40 + files.strangers + files.guests + files.grpc_connections + min(over_http, links) <= limit
    assert files.links // files.costs["grpc"] <= files.grpc_connections or files.costs["grpc"] == 1


def test_many_files_bound_nothing() -> None:
    """With the limit that containers usually have, each link of any protocol costs one, and all fit."""
    files = FileShares.of(1 << 20, links=50_000)

    assert set(files.costs.values()) == {1}
    assert files.links >= 50_000
    assert files.grpc_connections > 50_000


@pytest.mark.service
async def test_links_above_the_open_files_are_refused_and_probes_are_answered(
    nats: NatsServer, client: aiohttp.ClientSession
) -> None:
    """With a hard limit of 200 files, all clients at once: each gets a link or the refusal, and none a reset."""
    async with serving(nats.url, ulimit="-n 200") as relay, AsyncExitStack() as stack:
        files = FileShares.of(200, links=50_000)

        async def first_bytes() -> bytes:
            link = await stack.enter_async_context(connection(relay.url))
            await link.send(f"GET /sse HTTP/1.1\r\nHost: x\r\nX-API-Key: {relay.key}\r\n\r\n".encode())
            return await link.until(b"\r\n\r\n") + await link.until(b"\n\r\n")  # the head, the first chunk

        answers = await asyncio.gather(*(first_bytes() for _ in range(2 * files.links)))
        readiness = await exchange(relay.url, "GET /readyz HTTP/1.1")
        limit = await metric(client, relay.url, 'relay_links_limit{resource="files"}')
        links = await metric(client, relay.url, "relay_links")

    assert all(b"HTTP/1.1 200 OK" in answer and b"retry: " in answer for answer in answers)
    assert files.links - 2 <= links <= files.links
    assert sum(b"\n:\n" in answer for answer in answers) == links
    assert limit == files.links // 2  # of gRPC links
    assert (readiness.status, readiness.json["reason"], readiness.json["bound"]) == (503, "capacity", "files")
    assert readiness.json["links"] == links
