"""``python -m bench.end_to_end``: from the COMMIT of an INSERT to a WebSocket client, through everything.

PostgreSQL, ``stream-relay ingest``, nats-server, ``stream-relay serve`` and the client are processes of their own
on one machine, whose clock they share: the server records when it committed, the client when it has read.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import uvloop

from bench._nats import NatsServer
from bench._postgres import Postgres, commit_at, commit_times_us, running
from bench._relay import relay
from bench._report import heading, percentile, table

_RATES: Final = (100, 500)
_SPAN_S: Final = 10
_WARM_UP_S: Final = 3
"""Not measured: ingest is still starting, and every process runs its code for the first time."""
_DEADLINE_S: Final = 60


class _Id(msgspec.Struct):
    round_id: int


async def main() -> None:
    heading("From COMMIT to a WebSocket client", "python -m bench.end_to_end")
    rows = []
    for rate in _RATES:
        took_ms = await _latencies_ms(rate)
        shares = [f"{percentile(took_ms, share):.2f}" for share in (0.5, 0.99, 1)]
        rows.append([f"{rate}/s", f"{len(took_ms):,}", *shares])
    table(["INSERTs", "rounds", "p50 ms", "p99 ms", "max ms"], rows)


async def _latencies_ms(rate: int) -> list[float]:
    warm_up = rate * _WARM_UP_S
    count = warm_up + rate * _SPAN_S
    async with running() as postgres:
        with NatsServer() as nats, relay(nats.url) as process, _ingest(postgres, nats.url):
            async with aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{process.port}/ws/crash"
                async with session.ws_connect(url, protocols=[process.token()]) as client:
                    reading = asyncio.create_task(_read(client, count))
                    await postgres.run(commit_at(postgres.server, rate, _WARM_UP_S + _SPAN_S, first=1))
                    async with asyncio.timeout(_DEADLINE_S):
                        received_us = await reading
        committed_us = await postgres.run(commit_times_us(postgres.server))
    return [(received_us[number] - committed_us[number]) / 1000 for number in range(warm_up + 1, count + 1)]


async def _read(client: aiohttp.ClientWebSocketResponse, count: int) -> dict[int, int]:
    received_us: dict[int, int] = {}
    while len(received_us) < count:
        message = await client.receive()
        now_us = time.time_ns() // 1000
        received_us[msgspec.json.decode(message.data, type=_Id).round_id] = now_us
    return received_us


@contextmanager
def _ingest(postgres: Postgres, nats_url: str) -> Iterator[None]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")} | {
        "RELAY_NATS_URL": nats_url,
        "RELAY_BACKEND_NAME": "postgres-replication",
        "RELAY_BACKEND_DSN": postgres.server.dsn(),
        "RELAY_BACKEND_SLOT": "bench",
        "RELAY_BACKEND_PUBLICATION": "bench",
        "RELAY_LOG_LEVEL": "error",
    }
    process = subprocess.Popen([str(Path(sys.executable).with_name("stream-relay")), "ingest"], env=environment)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_DEADLINE_S)


if __name__ == "__main__":
    uvloop.run(main())
