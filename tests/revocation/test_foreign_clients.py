"""What programs of other people do when their key is taken back: they stop, or are refused and then stop."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY
from auth.tokens import TokenSigner
from relay.config.sections import HttpSettings
from relay.config.settings import Settings
from relay.serve import running_relay
from roundlog.log_settings import LogSettings
from tests.cli.command import started
from tests.clients.event_stream_clients import GO, NODE, start
from tests.nats import NatsServer
from tests.network.ports import HeldPort
from tests.relay.conftest import metric_becomes, wait_ready
from tests.samples.browser import Browser, headless_browser, sample_page
from tests.samples.program_samples import PROGRAMS
from tests.samples.program_samples import start as start_sample

pytestmark = pytest.mark.service

STOP_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Demo:
    """A relay with the keys of the demo, which can be taken back."""

    url: str
    grpc_port: int
    keys: KeyRing

    async def linked(self, links: int) -> None:
        """Wait until there are so many links."""
        async with aiohttp.ClientSession() as http:
            await metric_becomes(http, self.url, "relay_links", links)

    async def refused(self, protocol: str) -> int:
        """Return how many clients without a valid key were refused."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/metrics") as response:
            name = f'relay_refused_total{{protocol="{protocol}",reason="invalid_credential"}}'
            lines = (await response.text()).splitlines()
        return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(name))


@asynccontextmanager
async def demo(nats: NatsServer) -> AsyncIterator[Demo]:
    held = HeldPort()  # a page of the sample is told the port before it is open
    settings = Settings.model_validate(
        {
            "nats": LogSettings(url=nats.url),
            "http": HttpSettings(host="127.0.0.1", port=held.number),
            "grpc": {"host": "127.0.0.1", "port": 0},
            "links": {"retry_ms": 100},
        }
    )
    keys = KeyRing.demo()
    async with running_relay(settings, keys, TokenSigner.ephemeral()) as at:
        await wait_ready(at.url)
        yield Demo(at.url, at.grpc_port, keys)


async def test_libraries_of_event_streams_stay_away(nats: NatsServer) -> None:
    """Each comes back at most once, is refused, and gives up: neither `retry` nor the place makes it try again."""
    libraries = (*NODE, *GO, "aiohttp-sse-client")
    async with demo(nats) as relay, AsyncExitStack() as stack:
        clients = {library: await asyncio.to_thread(start, library, f"{relay.url}/sse/crash") for library in libraries}
        for client in clients.values():
            stack.callback(client.stop)
        await relay.linked(len(libraries))
        relay.keys.change({"demo": None})
        for client in clients.values():  # a program ends when its library has nothing more to do
            await asyncio.to_thread(client.wait, within_s=STOP_S)

        assert await relay.refused("sse") == len(libraries) - 1  # r3labs/sse returns for good at once


async def test_samples_stop(nats: NatsServer) -> None:
    """With a sentence, and status 1."""
    names = [*PROGRAMS, "grpc/go", "grpc/javascript", "grpc/python"]
    async with demo(nats) as relay, AsyncExitStack() as stack:
        environment = {"BASE_URL": relay.url, "GRPC_URL": f"127.0.0.1:{relay.grpc_port}", "API_KEY": DEMO_KEY}
        samples = {name: stack.enter_context(start_sample(name, environment)) for name in names}
        await relay.linked(len(samples))
        relay.keys.change({"demo": None})
        codes = {name: await asyncio.to_thread(sample.wait, within_s=STOP_S) for name, sample in samples.items()}

        assert codes == dict.fromkeys(names, 1)
        assert (await relay.refused("sse"), await relay.refused("http"), await relay.refused("grpc")) == (3, 0, 0)
    for name, sample in samples.items():
        printed = "\n".join(sample.printed)
        assert ("revoked" if not name.startswith("sse/") else "401") in printed or "the API key is unknown" in printed


async def test_tail_stops(nats: NatsServer) -> None:
    """With one sentence, and status 1."""
    async with demo(nats) as relay, AsyncExitStack() as stack:
        urls = {"ws": relay.url, "sse": relay.url, "grpc": f"grpc://127.0.0.1:{relay.grpc_port}"}
        tails = {
            via: stack.enter_context(started("tail", "crash", "--via", via, "--url", url)) for via, url in urls.items()
        }
        await relay.linked(len(tails))
        relay.keys.change({"demo": None})
        for via, process in tails.items():
            assert await asyncio.to_thread(process.wait, within_s=STOP_S) == 1
            last = process.printed[-1]
            assert ("the API key is unknown" if via == "sse" else "revoked: the key was taken back") in last


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    with headless_browser(tmp_path / "chromium") as running:
        yield running


@pytest.fixture
def page() -> Iterator[str]:
    with sample_page() as address:
        yield address


async def test_page_in_a_browser_stops(nats: NatsServer, browser: Browser, page: str) -> None:
    """The browser's own EventSource is closed after the refusal; a WebSocket gets 4001 and its reason."""
    shown = {}
    async with demo(nats) as relay:
        known = {key.id: key for key in relay.keys}
        for via in ("EventSource", "WebSocket", "fetch"):
            relay.keys.change(known)
            await asyncio.to_thread(browser.open, f"{page}?base={relay.url}&game=crash&via={via}")
            await asyncio.to_thread(browser.status, "^connected")
            await relay.linked(1)
            relay.keys.change(dict.fromkeys(known))
            shown[via] = await asyncio.to_thread(browser.status, "^refused")
            await relay.linked(0)

    assert shown["EventSource"] == "refused: check the key and the game"
    assert shown["WebSocket"] == 'refused: {"reason":"revoked"}'
    assert shown["fetch"].startswith("refused: revoked: the key was taken back")
