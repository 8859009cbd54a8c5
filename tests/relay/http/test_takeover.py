"""The connections that links take over from aiohttp: with the parts it has, and a clear end at start without them."""

import asyncio
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.errors import StartError
from relay.http.takeover import TakenOver, check_aiohttp, take_over
from tests.relay.conftest import StartRelay
from tests.relay.raw_http import connection

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


def handler_without(*names: str, parameters: bool = True) -> type:
    """A simulated request handler that lacks some parts."""
    parts = {"connection_made", "connection_lost", "transport", "handle_error"} - set(names)

    def init(self: object, *, loop: Any, access_log: Any, keepalive_timeout: float, auto_decompress: bool) -> None: ...
    def old_init(self: object, *, loop: Any, access_log: Any) -> None: ...

    return type("RequestHandler", (), {**dict.fromkeys(parts), "__init__": init if parameters else old_init})


def simulated(**kinds: type | None) -> SimpleNamespace:
    """An aiohttp with other classes than the installed one; None: without that class."""
    found: dict[str, Any] = {"RequestHandler": handler_without(), "BaseRequest": web.BaseRequest}
    found |= {"AppRunner": web.AppRunner, **kinds}
    return SimpleNamespace(**{name: kind for name, kind in found.items() if kind is not None})


def test_installed_aiohttp_has_all_parts() -> None:
    """And so has a simulated one with the same parts."""
    check_aiohttp()
    check_aiohttp(simulated())


@pytest.mark.parametrize(
    ("library", "missing"),
    [
        (simulated(RequestHandler=handler_without("connection_lost")), "RequestHandler.connection_lost"),
        (simulated(RequestHandler=handler_without("transport")), "RequestHandler.transport"),
        (
            simulated(RequestHandler=handler_without(parameters=False)),
            "RequestHandler(keepalive_timeout), RequestHandler(auto_decompress)",
        ),
        (simulated(AppRunner=None), "AppRunner.server"),
    ],
    ids=["method", "attribute", "parameters", "class"],
)
def test_aiohttp_that_lacks_a_part_is_named_with_the_tested_range(library: Any, missing: str) -> None:
    """One sentence: what is installed, what it lacks and what to install."""
    [tested] = [
        each.removeprefix("aiohttp")
        for each in tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["dependencies"]
        if re.match(r"aiohttp\W", each)
    ]

    with pytest.raises(StartError) as refusal:
        check_aiohttp(library, "4.7.1")

    text = str(refusal.value)
    assert text.startswith(f"aiohttp 4.7.1 lacks {missing}, which")
    [named] = re.findall(r"install aiohttp ([^\s]+), which", text)
    assert set(named.split(",")) == set(tested.split(","))


async def test_relay_does_not_start_on_an_aiohttp_that_lacks_a_part(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would lose every connection at the first stream instead."""
    monkeypatch.delattr(web, "RequestHandler")

    with pytest.raises(StartError, match="lacks RequestHandler"):
        async with start_relay():
            pass


async def test_connection_that_was_taken_over_is_left_open_and_unanswered() -> None:
    """With the installed aiohttp: only what the taker writes arrives, after its handler and its server have ended."""
    taken: asyncio.Future[asyncio.Transport] = asyncio.get_running_loop().create_future()

    async def handle(request: web.Request) -> web.Response:
        taken.set_result(take_over(request))
        raise TakenOver

    app = web.Application()
    app.router.add_get("/", handle)
    async with TestServer(app) as server, connection(str(server.make_url("/"))) as raw:
        await raw.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(20):
            transport = await taken
            assert server.runner is not None
            assert server.runner.server is not None
            while server.runner.server.connections:  # noqa: ASYNC110 - aiohttp has no event for it
                await asyncio.sleep(0)
        await server.close()
        transport.write(b"ours")
        transport.close()
        assert await raw.rest() == b"ours"
