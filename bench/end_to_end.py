"""``python -m bench.end_to_end``: from the COMMIT of an INSERT to a client of each protocol, through everything.

PostgreSQL, ``stream-relay ingest``, nats-server, ``stream-relay serve`` and the clients are processes of their own
on one machine, whose clock they share: the server records when it committed, the client when it has read. The clients
of all protocols share a process that does nothing but read, so each waits for the others' reads: some 20 us.
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
from typing import Any, Final

import uvloop

from bench._nats import NatsServer
from bench._postgres import Postgres, commit_at, commit_times_us, running
from bench._relay import RelayProcess, relay
from bench._report import heading, percentile, table
from bench.fanout.wire import GRPC, WIRES, Rest, Wire

_RATES: Final = (100, 500)
_SPAN_S: Final = 10
_WARM_UP_S: Final = 3
"""Not measured: ingest is still starting, and every process runs its code for the first time."""
_DEADLINE_S: Final = 60
_WIRES: Final = (*WIRES, GRPC)


async def main() -> None:
    heading("From COMMIT to a client", "python -m bench.end_to_end")
    rows = []
    for rate in _RATES:
        took_ms = await _latencies_ms(rate)
        first = percentile(took_ms[_WIRES[0].name], 0.5)
        for name, found in took_ms.items():
            shown = [f"{percentile(found, share):.2f}" for share in (0.5, 0.99, 1)]
            beside = f"{percentile(found, 0.5) - first:+.2f}"
            rows.append([f"{rate}/s, {name}", f"{len(found):,}", *shown, beside])
    table(["INSERTs", "rounds", "p50 ms", "p99 ms", "max ms", f"p50, beside {_WIRES[0].name}"], rows)


async def _latencies_ms(rate: int) -> dict[str, list[float]]:
    warm_up = rate * _WARM_UP_S
    count = warm_up + rate * _SPAN_S
    async with running() as postgres:
        with NatsServer() as nats, relay(nats.url) as process, _ingest(postgres, nats.url):
            clients = [await _connected(wire, process, count) for wire in _WIRES]
            await postgres.run(commit_at(postgres.server, rate, _WARM_UP_S + _SPAN_S, first=1))
            async with asyncio.timeout(_DEADLINE_S):
                for client in clients:
                    await client.complete
                    client.close()
        committed_us = await postgres.run(commit_times_us(postgres.server))
    numbers = range(warm_up + 1, count + 1)
    return {
        client.wire.name: [(client.received_us[number] - committed_us[number]) / 1000 for number in numbers]
        for client in clients
    }


async def _connected(wire: Wire, process: RelayProcess, count: int) -> "_Client":
    loop = asyncio.get_running_loop()
    port = process.grpc_port if wire is GRPC else process.port
    transport, client = await loop.create_connection(lambda: _Client(wire, count), "127.0.0.1", port)
    transport.write(wire.request(process.key if wire.needs_key else process.token()))
    await asyncio.wait_for(client.opened, _DEADLINE_S)
    return client


class _Client(asyncio.Protocol):
    """A link to all games; there are rounds of one. Notes when each came, in microseconds since 1970."""

    def __init__(self, wire: Wire, count: int) -> None:
        loop = asyncio.get_running_loop()
        self.wire = wire
        self.received_us: dict[int, int] = {}
        self.opened: asyncio.Future[None] = loop.create_future()
        self.complete: asyncio.Future[None] = loop.create_future()
        self._count = count
        self._early = b""
        self._rest = Rest()

    def close(self) -> None:
        """Leave, before the relay ends the link."""
        self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        now_us = time.time_ns() // 1000
        if not self.opened.done():
            self._early += data
            end = self.wire.opening(self._early)
            if end is None:
                return
            self.opened.set_result(None)
            data = self._early[end:]
        messages, _, answer, self._rest = self.wire.take(self._rest, data)
        if answer:
            self._transport.write(answer)
        for message in messages:
            self.received_us[self.wire.round_of(message)["round_id"]] = now_us
        if len(self.received_us) == self._count and not self.complete.done():
            self.complete.set_result(None)


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
