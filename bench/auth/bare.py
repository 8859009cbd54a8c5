"""The most that aiohttp can do: a process with a handler of a constant answer, and one that completes a handshake."""

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

import uvloop
from aiohttp import web

from bench.auth.cases import Credentials

_BACKLOG: Final = 1024


class BareServer(NamedTuple):
    """Such a process."""

    pid: int
    port: int


@contextmanager
def bare_server(credentials: Credentials) -> Iterator[BareServer]:
    """Run the process, on the cores this one is on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(credentials, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        port = ours.recv()
        assert process.pid is not None
        yield BareServer(process.pid, port)
    finally:
        process.kill()
        process.join()


def _main(credentials: Credentials, pipe: Connection) -> None:
    uvloop.run(_serve(credentials, pipe))


async def _serve(credentials: Credentials, pipe: Connection) -> None:
    answer = {"token": credentials.token, "expires_at": "2026-01-18T10:01:00Z"}

    async def token(_request: web.Request) -> web.Response:
        return web.json_response(answer)

    async def stream(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=[credentials.token], compress=False)
        await ws.prepare(request)
        await ws.receive()
        return ws

    app = web.Application()
    app.router.add_post("/api/auth/token", token)
    app.router.add_get("/ws/{game}", stream)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=_BACKLOG)
    await site.start()
    pipe.send(runner.addresses[0][1])
    await asyncio.Event().wait()
