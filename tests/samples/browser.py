"""Headless Chromium, driven by chromedriver over plain HTTP (W3C WebDriver), so that tests need no browser library."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import requests

from tests.clients.program import Program
from tests.clients.tools import ROOT, tool

_WAIT_S: Final = 45
_DRIVERS: Final = 5
"""How often chromedriver is started when it meets a port in use."""
_ARGUMENTS: Final = (
    "--headless",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_ROUNDS: Final = """
const [count, done] = arguments, lines = () => [...document.querySelectorAll('li')].map((item) => item.innerText)
const look = () => lines().length >= count && (observer.disconnect(), done(lines()))
const observer = new MutationObserver(look)
observer.observe(document.body, {childList: true, subtree: true})
look()
"""
_STATUS: Final = """
const [pattern, done] = arguments, output = document.querySelector('output')
const look = () => RegExp(pattern).test(output.innerText) && (observer.disconnect(), done(output.innerText))
const observer = new MutationObserver(look)
observer.observe(document.body, {childList: true, subtree: true})
look()
"""


class Browser:
    """A browser session. Waits for changes of the page, with a deadline."""

    def __init__(self, driver: str, profile: Path) -> None:
        self._http = requests.Session()
        options = {"binary": chromium(), "args": [*_ARGUMENTS, f"--user-data-dir={profile}"]}
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"script": _WAIT_S * 1000}}}
        self._session = f"{driver}/session"
        self._session += "/" + self._post("", {"capabilities": capabilities})["sessionId"]

    def open(self, url: str) -> None:
        self._post("/url", {"url": url})

    def rounds(self, count: int) -> list[str]:
        """Wait until the page shows at least `count` rounds; return all, newest first."""
        return list(self._post("/execute/async", {"script": _ROUNDS, "args": [count]}))

    def status(self, pattern: str) -> str:
        """Wait until the page's status matches; return it."""
        return str(self._post("/execute/async", {"script": _STATUS, "args": [pattern]}))

    def ask(self, script: str) -> Any:
        """Run the body of an asynchronous function in the page; return what it returns."""
        wrapped = (
            f"const done = arguments[0]; (async () => {{ {script} }})().then(done, (error) => done(String(error)))"
        )
        return self._post("/execute/async", {"script": wrapped, "args": []})

    def clear(self) -> None:
        """Remove the rounds shown so far."""
        self._post("/execute/sync", {"script": "document.querySelector('ol').replaceChildren()", "args": []})

    def close(self) -> None:
        self._http.delete(self._session, timeout=_WAIT_S)
        self._http.close()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = self._http.post(self._session + path, json=body, timeout=2 * _WAIT_S)
        value = response.json()["value"]
        assert response.ok, f"{path}: {value}"
        return value


def chromium() -> str:
    """Return the path of Chromium, which has several names; skip the test when it is not installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None) or tool("chromium")


@contextmanager
def headless_browser(profile: Path) -> Iterator[Browser]:
    """Run Chromium with a temporary profile while the block runs."""
    chromium()
    with _driver() as port:
        browser = Browser(f"http://127.0.0.1:{port}", profile)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def _driver() -> Iterator[str]:
    """Run chromedriver while the block runs; yield its port.

    It listens for IPv6 on the port that the system gave it for IPv4; when another program has that one, it ends.
    """
    started = r"started successfully on port (\d+)|bind\(\) failed: Address already in use"
    for _ in range(_DRIVERS):
        with Program([tool("chromedriver"), "--port=0"]) as driver:
            [line] = driver.wait_for(started)
            if line[1]:
                yield line[1]
                return
    raise AssertionError(f"chromedriver met a port in use {_DRIVERS} times")


@contextmanager
def sample_page() -> Iterator[str]:
    """Serve the sample's page on a plain file server, which is another origin than the relay; yield its address."""
    handler = functools.partial(_Quiet, directory=str(ROOT / "samples" / "browser"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="page")
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/index.html"
        server.shutdown()
        thread.join()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the base class has
        """Log nothing."""
