"""Foreign event stream clients through the ends of their streams: which place they return with, and that they return.

What is known of each is in docs/sse.md and docs/adr/0019-place-and-end-of-event-streams.md.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.clients.balancer import Balancer
from tests.clients.event_stream_clients import LIBRARIES, NODE, delivered, round_ids, start, wait_for_round
from tests.clients.program import Program
from tests.relay.conftest import KEY_HEADER, metric_becomes
from tests.relay.event_stream import stream
from tests.resume.conftest import StartRelay, log, start_relay
from tests.resume.log_writer import LogWriter, make_round

__all__ = ["log", "start_relay"]

pytestmark = pytest.mark.service

LEARN_AT_ONCE = (*NODE, "r3labs")
"""Clients that know their place before the first round, without asking. Others learn it with ``hello=1``."""


@asynccontextmanager
async def clients(urls: dict[str, str]) -> AsyncIterator[dict[str, Program]]:
    """Run a client of each library; the block gets them by library."""
    running: dict[str, Program] = {}
    try:
        for library, url in urls.items():
            running[library] = await asyncio.to_thread(start, library, url)
        yield running
    finally:
        await asyncio.gather(*(asyncio.to_thread(client.stop) for client in running.values()))


async def linked(session: aiohttp.ClientSession, url: str, count: int) -> None:
    """Wait until a relay has `count` links that have subscribed."""
    await metric_becomes(session, url, "relay_links", count)
    async with stream(session, f"{url}/sse/crash"):
        pass  # links start in order, and they are counted before that
    await metric_becomes(session, url, "relay_links", count)


@pytest.mark.parametrize("query", ["", "?hello=1"])
async def test_quiet_client_returns_after_a_drain(log: LogWriter, start_relay: StartRelay, query: str) -> None:
    """Clients with a place get what was stored meanwhile; the others return too, and no client sees an empty event."""
    await log.store(make_round("dice", 1))
    async with (
        Balancer().listening() as front,
        aiohttp.ClientSession() as session,
        clients(dict.fromkeys(LIBRARIES, f"{front.url}/sse/crash{query}")) as running,
    ):
        async with start_relay() as url:
            with front.forwarding_to(url):
                await linked(session, url, len(LIBRARIES))
        await log.store(make_round("crash", 1), make_round("crash", 2))
        async with start_relay() as url:
            with front.forwarding_to(url):
                await linked(session, url, len(LIBRARIES))
                await log.store(make_round("crash", 3))
                await asyncio.gather(*(wait_for_round(client, 3) for client in running.values()))

    have_place = LIBRARIES if query else LEARN_AT_ONCE
    expected = {library: [1, 2, 3] if library in have_place else [3] for library in LIBRARIES}
    assert {library: round_ids(client) for library, client in running.items()} == expected
    if not query:
        seen = {library: {event["event"] for event in delivered(client)} for library, client in running.items()}
        assert seen == {library: {"message"} for library in LIBRARIES}


async def ended_by_age(session: aiohttp.ClientSession, url: str) -> int:
    """Return how many links of a relay have ended at their maximum age."""
    async with session.get(f"{url}/metrics") as response:
        found = re.search(r'^relay_links_closed_total{reason="max_age"} (\d+)', await response.text(), re.MULTILINE)
    return 0 if found is None else int(found[1])  # a reason without links is not listed


async def test_clients_live_on_at_max_age(log: LogWriter, start_relay: StartRelay) -> None:
    """Each stream ends after a second; every client returns each time, and no round is lost or repeated."""
    async with (
        start_relay(links={"max_age_s": 1, "heartbeat_s": 0.1, "retry_ms": 50}) as url,
        aiohttp.ClientSession() as session,
        clients(dict.fromkeys(LIBRARIES, f"{url}/sse/crash?hello=1")) as running,
    ):
        await linked(session, url, len(LIBRARIES))
        number = 0
        while await ended_by_age(session, url) < 3 * len(LIBRARIES):
            number += 1
            await log.store(make_round("crash", number))
            await asyncio.gather(*(wait_for_round(client, number) for client in running.values()))

    expected = list(range(1, number + 1))
    assert {library: round_ids(client) for library, client in running.items()} == dict.fromkeys(LIBRARIES, expected)


@pytest.mark.parametrize("library", ["r3labs", "eventsource"])
async def test_client_waits_for_room_at_a_full_relay(log: LogWriter, start_relay: StartRelay, library: str) -> None:
    """A client that is refused for capacity tries again until it gets in."""
    async with (
        start_relay(links={"max_links": 1, "retry_ms": 50}) as url,
        aiohttp.ClientSession() as session,
        session.get(f"{url}/sse/crash", headers=KEY_HEADER) as holder,
        clients({library: f"{url}/sse/crash"}) as running,
    ):
        await asyncio.to_thread(running[library].wait_for, "comes_back", count=2)
        holder.close()
        await metric_becomes(session, url, 'relay_links_closed_total{reason="client"}', 1)
        await metric_becomes(session, url, "relay_links", 1)
        await log.store(make_round("crash", 1))
        await wait_for_round(running[library], 1)


async def test_end_that_the_client_chose(log: LogWriter, start_relay: StartRelay) -> None:
    """With `end=clean` the body is complete, and r3labs/sse takes that for the end of its work."""
    async with (
        start_relay(links={"max_age_s": 1, "heartbeat_s": 0.1}) as url,
        clients({"r3labs": f"{url}/sse/crash?end=clean"}) as running,
    ):
        code = await asyncio.to_thread(running["r3labs"].wait)

    assert (code, delivered(running["r3labs"])[-1]["event"]) == (0, "ended")


async def test_end_that_the_operator_chose(log: LogWriter, start_relay: StartRelay) -> None:
    """With `sse_end` = unclean every body is incomplete: aiohttp-sse-client takes that for an error."""
    async with (
        start_relay(links={"max_age_s": 1, "heartbeat_s": 0.1, "sse_end": "unclean"}) as url,
        clients({"aiohttp-sse-client": f"{url}/sse/crash"}) as running,
    ):
        code = await asyncio.to_thread(running["aiohttp-sse-client"].wait)

    assert code == 1
