"""The page of ``samples/browser/`` in a real browser, from another origin and from the relay itself."""

import re
from collections.abc import Iterator

import pytest

from tests.clients.live_relay import LiveRelay
from tests.samples.browser import Browser, headless_browser, sample_page

pytestmark = pytest.mark.service

_DOCS_OPERATIONS = """
// The page adds all operations in one turn, which an observer sees the end of.
const main = document.querySelector('main')
if (!main.children.length)
  await new Promise((filled) => new MutationObserver(filled).observe(main, {childList: true}))
return [...main.children].map((details) => ({
  name: details.querySelector('summary').innerText.split(/\\s+/).slice(0, 2).join(' '),
  empty: [...details.querySelectorAll('p, table')].filter((part) => !part.textContent.trim()).length,
  text: details.textContent,
  required: [...details.querySelectorAll('input:required')].map((input) => input.name),
  tried: Boolean(details.querySelector('form')),
}))
"""
_TRY_TOKEN = """
document.querySelector('input[name=key]').value = 'sk_live_' + '0'.repeat(64)
const details = [...document.querySelectorAll('details')].find((part) => /auth.token/.test(part.textContent))
details.open = true
const out = details.querySelector('pre')
const told = new Promise((done) => new MutationObserver(done).observe(out, {childList: true}))
details.querySelector('button').click()
await told
return out.textContent
"""

LINE = r"\[{game}\] Round \d+ {{.*}}"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with headless_browser(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    with sample_page() as address:
        yield address


@pytest.mark.parametrize("via", ["WebSocket", "EventSource", "fetch"])
def test_page_shows_each_round_of_its_game(browser: Browser, page: str, relay: LiveRelay, via: str) -> None:
    """A page from another origin connects over each protocol and shows rounds of its game."""
    browser.open(f"{page}?base={relay.url}&game=double&via={via}")

    shown = browser.rounds(3)

    assert all(re.fullmatch(LINE.format(game="double"), line) for line in shown), shown
    assert len(set(shown)) == len(shown)


@pytest.mark.parametrize("via", ["WebSocket", "EventSource", "fetch"])
def test_page_continues_after_a_restart_of_the_relay(
    browser: Browser, page: str, own_relay: LiveRelay, via: str
) -> None:
    """The page reconnects when the relay is back."""
    browser.open(f"{page}?base={own_relay.url}&via={via}")
    browser.rounds(1)

    own_relay.stop()
    browser.status("reconnecting")
    browser.clear()
    own_relay.restart()

    assert browser.rounds(1)


@pytest.mark.parametrize("via", ["WebSocket", "EventSource", "fetch"])
def test_page_with_a_wrong_key_says_so_and_stops(browser: Browser, page: str, relay: LiveRelay, via: str) -> None:
    """The page shows that the key is unknown."""
    browser.open(f"{page}?base={relay.url}&key=sk_live_nobody&via={via}")

    assert browser.status("key")


def test_page_with_an_unknown_game_says_so_and_stops(browser: Browser, page: str, relay: LiveRelay) -> None:
    """A browser hides why a handshake failed; the page finds the reason and does not reconnect."""
    browser.open(f"{page}?base={relay.url}&game=nope&via=WebSocket")

    assert "unknown game 'nope'" in browser.status("refused")


def test_relay_serves_the_page_itself(browser: Browser, relay: LiveRelay) -> None:
    """The address that `make run` prints shows live rounds without a click."""
    browser.open(f"{relay.url}/")

    shown = browser.rounds(1)

    assert re.fullmatch(LINE.format(game="crash"), shown[0]), shown


def test_docs_page_has_no_empty_parts_and_requires_path_parameters(browser: Browser, relay: LiveRelay) -> None:
    """Each operation has content, code is rendered as code, and no request is sent without its path parameters."""
    browser.open(f"{relay.url}/docs")

    operations = {operation["name"]: operation for operation in browser.ask(_DOCS_OPERATIONS)}

    assert not [name for name, operation in operations.items() if operation["empty"] or "`" in operation["text"]]
    assert operations["GET /api/latest/{game}"]["required"] == ["game"]
    assert operations["GET /api/history"]["required"] == []
    assert not operations["GET /sse/{game}"]["tried"]


def test_docs_page_tries_a_post(browser: Browser, relay: LiveRelay) -> None:
    """The page fetches a token with POST and shows it."""
    browser.open(f"{relay.url}/docs")
    browser.ask(_DOCS_OPERATIONS)

    assert browser.ask(_TRY_TOKEN).startswith("200 /api/auth/token")
