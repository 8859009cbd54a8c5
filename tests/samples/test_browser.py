"""The page of ``samples/browser/`` in a real browser, from another origin and from the relay itself."""

import functools
import http.server
import re
import threading
from collections.abc import Iterator

import pytest

from tests.clients.live_relay import LiveRelay
from tests.clients.tools import ROOT
from tests.samples.browser import Browser, headless_browser

pytestmark = pytest.mark.service

LINE = r"\[{game}\] Round \d+ {{.*}}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with headless_browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The sample's page on a plain file server, and so on another origin than the relay."""
    handler = functools.partial(_Quiet, directory=str(ROOT / "samples" / "browser"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="page")
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class has
        """Keep the tests' output to the tests."""


@pytest.mark.parametrize("via", ["WebSocket", "EventSource", "fetch"])
def test_page_shows_each_round_of_its_game(browser: Browser, page: str, relay: LiveRelay, via: str) -> None:
    """A page from another origin connects with any protocol and shows rounds of the game that it names."""
    browser.open(f"{page}?base={relay.url}&game=double&via={via}")

    shown = browser.rounds(3)

    assert all(re.fullmatch(LINE.format(game="double"), line) for line in shown), shown
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("via", ["WebSocket", "EventSource", "fetch"])
def test_page_goes_on_after_the_relay_was_restarted(
    browser: Browser, page: str, own_relay: LiveRelay, via: str
) -> None:
    """A relay that goes away and comes back interrupts the page and does not end it."""
    browser.open(f"{page}?base={own_relay.url}&via={via}")
    browser.rounds(1)

    own_relay.stop()
    browser.status("coming back")
    browser.clear()
    own_relay.restart()

    assert browser.rounds(1)


@pytest.mark.parametrize("via", ["WebSocket", "EventSource", "fetch"])
def test_page_with_a_wrong_key_says_so_and_stops(browser: Browser, page: str, relay: LiveRelay, via: str) -> None:
    """A key that is nobody's is told to the person who gave it."""
    browser.open(f"{page}?base={relay.url}&key=sk_live_nobody&via={via}")

    assert browser.status("key")


def test_page_with_an_unknown_game_says_so_and_stops(browser: Browser, page: str, relay: LiveRelay) -> None:
    """A browser hides why a handshake failed; the page finds out and does not come back for ever."""
    browser.open(f"{page}?base={relay.url}&game=nope&via=WebSocket")

    assert "unknown game 'nope'" in browser.status("refused")


def test_relay_serves_the_page_itself(browser: Browser, relay: LiveRelay) -> None:
    """The address that `make run` prints shows live rounds without a single click."""
    browser.open(f"{relay.url}/")

    shown = browser.rounds(1)

    assert re.fullmatch(LINE.format(game="crash"), shown[0]), shown
