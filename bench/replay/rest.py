"""``/api/latest`` and ``/api/history`` under wrk, beside a bare aiohttp handler that returns the same bytes."""

import asyncio
import multiprocessing
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final

import uvloop
from aiohttp import web

from bench._process import on_core
from bench._relay import RelayProcess
from bench._report import table
from bench.replay.filled_log import FilledLog

_MEMORY, _LOG = "memory", "log"
_CONNECTIONS: Final = 32
_SECONDS: Final = 2
_REPEATS: Final = 3
_RATE: Final = re.compile(r"^Requests/sec:\s+([0-9.]+)$", re.MULTILINE)
_FAULT: Final = re.compile(r"^.*(?:Non-2xx|Socket errors).*$", re.MULTILINE)


def run(log: FilledLog, process: RelayProcess, *, relay_core: int, client_core: int) -> None:
    """Print requests a second of each; the relay and the bare handler take turns."""
    if shutil.which("wrk") is None:
        raise SystemExit("this part needs wrk; install it with: apt-get install wrk")
    rows = []
    deep = f"before={log.cursor(log.count // 2)}"
    paths = {
        "/api/latest/crash": _MEMORY,
        "/api/history/crash?limit=100": _MEMORY,
        f"/api/history/crash?limit=100&{deep}": _LOG,
        f"/api/history/crash?limit=1000&{deep}": _LOG,
    }
    for path, source in paths.items():
        url = f"http://127.0.0.1:{process.port}{path}"
        with urllib.request.urlopen(urllib.request.Request(url, headers={"X-API-Key": process.key})) as answer:
            body = answer.read()
        with on_core(relay_core), _bare(body) as port, on_core(client_core):
            bare_url = f"http://127.0.0.1:{port}/"
            rates = [(_rate(url, process.key), _rate(bare_url, process.key)) for _ in range(_REPEATS)]
        ours, bare = (max(column) for column in zip(*rates, strict=True))
        rows.append(
            [f"`{path}`", source, f"{len(body):,}", f"**{ours:,.0f}/s**", f"{bare:,.0f}/s", f"**{ours / bare:.2f}**"]
        )
    table([f"wrk, {_CONNECTIONS} connections", "answered from", "bytes", "relay", "bare handler", "ratio"], rows)


def _rate(url: str, key: str) -> float:
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{_SECONDS}", "--timeout", "30s", "-H", f"X-API-Key: {key}", url]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if fault := _FAULT.search(printed):
        raise SystemExit(f"{url}: {fault[0].strip()}")
    rate = _RATE.search(printed)
    assert rate is not None, printed
    return float(rate[1])


@contextmanager
def _bare(body: bytes) -> Iterator[int]:
    """Run the bare handler in a process of its own, on the cores this one is on; yield its port."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(body, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _main(body: bytes, pipe: Connection) -> None:
    uvloop.run(_serve(body, pipe))


async def _serve(body: bytes, pipe: Connection) -> None:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json", charset="utf-8")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    pipe.send(runner.addresses[0][1])
    await asyncio.Event().wait()
