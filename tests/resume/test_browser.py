"""EventSource in a real browser resumes by itself: over a restart of the relay, no round is lost or repeated."""

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

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
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]

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
