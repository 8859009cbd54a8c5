"""Connections that links take over from aiohttp, and the check of its internals at start."""

import asyncio
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.errors import StartError
from relay.http.application import build_app
from relay.http.takeover import TakenOver, check_aiohttp, take_over
from tests.relay.conftest import StartRelay
from tests.relay.raw_http import connection

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"

PARTS = {
    "connection_made",
    "connection_lost",
    "data_received",
    "finish_response",
    "pause_writing",
    "resume_writing",
    "transport",
    "_waiter",
}


def handler_without(*names: str, parameters: bool = True, handle_error: Callable[..., None] | None = None) -> type:
    """A simulated request handler that lacks some parts."""
    parts: dict[str, Any] = dict.fromkeys(PARTS - set(names))
    parts["handle_error"] = handle_error or handle

    def init(
        self: object,
        *,
        loop: Any,
        access_log: Any,
        keepalive_timeout: float,
        auto_decompress: bool,
        lingering_time: float,
    ) -> None: ...
    def old_init(self: object, *, loop: Any, access_log: Any) -> None: ...

    return type("RequestHandler", (), {**parts, "__init__": init if parameters else old_init})


def handle(self: object, request: Any, status: int = 500, exc: Any = None, message: Any = None) -> None:
    """An error handler with the parameters of the installed aiohttp."""


def handle_less(self: object, request: Any, status: int = 500) -> None:
    """An error handler of a simulated aiohttp that has other parameters."""


def simulated(**kinds: type | None) -> SimpleNamespace:
    """An aiohttp with other classes than the installed one; None: without that class."""
    found: dict[str, Any] = {"RequestHandler": handler_without(), "BaseRequest": web.BaseRequest}
    found |= {"AppRunner": web.AppRunner, **kinds}
    return SimpleNamespace(**{name: kind for name, kind in found.items() if kind is not None})


def test_installed_aiohttp_has_all_parts() -> None:
    """As does a simulated one with the same parts."""
    check_aiohttp()
    check_aiohttp(simulated())


@pytest.mark.parametrize(
    ("library", "missing"),
    [
        (simulated(RequestHandler=handler_without("connection_lost")), "RequestHandler.connection_lost"),
        (simulated(RequestHandler=handler_without("transport")), "RequestHandler.transport"),
        (
            simulated(RequestHandler=handler_without(parameters=False)),
            "RequestHandler(keepalive_timeout), RequestHandler(auto_decompress), RequestHandler(lingering_time)",
        ),
        (simulated(AppRunner=None), "AppRunner.server"),
        (
            simulated(RequestHandler=handler_without(handle_error=handle_less)),
            "RequestHandler.handle_error(request, status, exc, message)",
        ),
    ],
    ids=["method", "attribute", "parameters", "class", "override"],
)
def test_aiohttp_that_lacks_a_part_is_named_with_the_tested_range(library: Any, missing: str) -> None:
    """The error names the installed version, what it lacks, and which versions to install."""
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


def test_aiohttp_whose_parser_cannot_stop_after_a_request_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests before malformed bytes would be lost."""
    monkeypatch.setattr("relay.http.takeover.HttpRequestParser", object)

    with pytest.raises(StartError, match=r"lacks HttpRequestParser\.message_consumed, which"):
        check_aiohttp()


async def test_relay_does_not_start_on_an_aiohttp_that_lacks_a_part(
    start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check it would start, and fail at the first stream."""
    monkeypatch.delattr(web, "RequestHandler")

    with pytest.raises(StartError, match="lacks RequestHandler"):
        async with start_relay():
            pass


async def test_application_requires_its_own_protocol() -> None:
    """Another protocol would close every connection after `request_s`: each request fails instead."""
    async with (
        TestServer(build_app([], home="<p>")) as server,
        aiohttp.ClientSession() as client,
        client.get(server.make_url("/")) as response,
    ):
        assert response.status == 500


async def test_aiohttp_neither_closes_nor_answers_a_taken_connection() -> None:
    """After its handler and its server have ended, only what the link writes arrives."""
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


@pytest.mark.parametrize("name", ["_message_tail", "_waiter", "finish_response"])
def test_private_parts_that_the_protocol_uses_are_checked(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Without the check, requests would fail one by one."""
    monkeypatch.delattr(web.RequestHandler, name)

    with pytest.raises(StartError, match=rf"lacks RequestHandler\.{name}, which"):
        check_aiohttp()
