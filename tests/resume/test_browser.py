"""EventSource in a real browser resumes by itself: over a restart of the relay, no round is lost or repeated."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from auth.key_secret import DEMO_KEY
from tests.clients.balancer import Balancer
from tests.network.ports import HeldPort
from tests.relay.conftest import metric_becomes
from tests.resume.conftest import StartRelay
from tests.resume.log_writer import LogWriter, make_round
from tests.samples.browser import Browser, headless_browser, sample_page

pytestmark = pytest.mark.service


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with headless_browser(tmp_path / "chromium") as running:
        yield running


@pytest.fixture
def page() -> Iterator[str]:
    with sample_page() as address:
        yield address


async def test_eventsource_of_a_browser_resumes_through_a_restart(
    browser: Browser, page: str, log: LogWriter, start_relay: StartRelay
) -> None:
    """Rounds stored while the relay was down are sent when it is up, each once, and then live rounds."""
    held = HeldPort()
    port = held.number

    async def shown(count: int) -> list[int]:
        lines = await asyncio.to_thread(browser.rounds, count)
        return [int(found[1]) for line in reversed(lines) if (found := re.search(r"Round (\d+)", line))]

    async with start_relay(port=port) as url:
        await asyncio.to_thread(browser.open, f"{page}?base={url}&game=crash&via=EventSource")
        await asyncio.to_thread(browser.status, "^connected")
        await log.store(make_round("crash", 1), make_round("crash", 2))
        assert await shown(2) == [1, 2]
    await asyncio.to_thread(browser.status, "reconnecting")
    await log.store(make_round("crash", 3), make_round("crash", 4))
    async with start_relay(port=port):
        assert await shown(4) == [1, 2, 3, 4]
        await log.store(make_round("crash", 5))
        assert await shown(5) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("via", ["EventSource", "WebSocket", "fetch"])
async def test_quiet_page_returns_with_its_place(
    browser: Browser, page: str, log: LogWriter, start_relay: StartRelay, via: str
) -> None:
    """It has seen no round when its relay drains: what was stored meanwhile is sent."""
    async with Balancer().listening() as front, aiohttp.ClientSession() as session:
        async with start_relay() as url:
            with front.forwarding_to(url):
                await asyncio.to_thread(browser.open, f"{page}?base={front.url}&game=crash&via={via}")
                await asyncio.to_thread(browser.status, "^connected")
                await metric_becomes(session, url, "relay_links", 1)
        await log.store(make_round("crash", 1), make_round("crash", 2))
        async with start_relay() as url:
            with front.forwarding_to(url):
                lines = await asyncio.to_thread(browser.rounds, 2)

    found = [match[1] for line in reversed(lines) if (match := re.search(r"Round (\d+)", line))]
    assert found == ["1", "2"]


async def test_eventsource_with_credentials(
    browser: Browser, page: str, log: LogWriter, start_relay: StartRelay
) -> None:
    """A page of another origin may open a stream with `withCredentials`."""
    async with start_relay() as url:
        await asyncio.to_thread(browser.open, page)
        source = f"new EventSource('{url}/sse/crash?api_key={DEMO_KEY}&last=1', {{withCredentials: true}})"
        await log.store(make_round("crash", 1))
        data = await asyncio.to_thread(
            browser.ask, f"return new Promise((done) => {{ {source}.onmessage = ({{ data }}) => done(data) }})"
        )

    assert '"round_id":1,' in data
