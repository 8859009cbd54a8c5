"""``python -m bench.capture``: rows committed in a real PostgreSQL until they are acked by a real JetStream.

Every run has servers of its own. The rows are committed before it starts (speed, memory) or at a steady rate (latency),
and it ends with the last ack. Results and conclusions: docs/postgres-replication.md.
"""

import asyncio
import logging
import os
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

import structlog
import uvloop

from backends.contract import BackendContext, Captured
from backends.ingest.run_ingest import run_ingest
from backends.postgres.replication.capture import WalItem, WalOffset
from backends.postgres.replication.postgres_replication import PostgresReplication
from bench._capture_peers import compare
from bench._nats import NatsServer
from bench._postgres import commit_at, commit_times_us, fill, running
from bench._process import rss_bytes
from bench._report import heading, percentile, table
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import open_log
from rounds import Catalogue
from tests.postgres_server import PostgresServer

_COMMAND: Final = "python -m bench.capture"
_COUNT: Final = 100_000
_LARGE: Final = 300_000
_REPEATS: Final = 3
_RATE: Final = 500
_SPAN_S: Final = 10
_WAYS: Final = ("insert", "update", "feed")
"""What finishes a round, see `bench._postgres.running`."""


class Probe:
    """A backend that records when each round is confirmed, and sets `done` after the last one."""

    def __init__(self, server: PostgresServer, count: int, finished_by: str = "insert") -> None:
        options = {"dsn": server.dsn(), "slot": "bench", "publication": "bench"}
        if finished_by == "feed":
            options["feed"] = "true"
        self._backend = PostgresReplication(options, BackendContext(Catalogue.load()))
        self._count = count
        self._read = 0
        self.ids: dict[WalOffset, int] = {}
        self.confirmed_us: dict[WalOffset, int] = {}
        self.memory: dict[int, int] = {}
        self.last: WalOffset | None = None
        self.done = asyncio.Event()

    def open(self) -> AbstractAsyncContextManager[None]:
        return self._backend.open()

    async def read(self) -> AsyncIterator[Sequence[WalItem]]:
        async for batch in self._backend.read():
            if self._read // 50_000 != (self._read + len(batch)) // 50_000:
                self.memory[(self._read + len(batch)) // 50_000 * 50_000] = rss_bytes(os.getpid())
            self._read += len(batch)
            for item in batch:
                assert isinstance(item, Captured), item
                self.ids[item.offset] = item.round.round_id
            if self._read == self._count:
                self.last = batch[-1].offset
            yield batch

    def confirm(self, offset: WalOffset) -> None:
        self._backend.confirm(offset)
        self.confirmed_us[offset] = time.time_ns() // 1000
        if offset == self.last:
            self.done.set()


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    heading(f"Capture: {_COUNT:,} rows into JetStream, best of {_REPEATS}", _COMMAND)
    await speed()
    heading(f"Capture: one transaction of {_LARGE:,} rows", _COMMAND)
    await memory()
    heading(f"Capture: commit to ack at {_RATE} rows/s, one row per transaction, {_SPAN_S} s", _COMMAND)
    await latency()
    heading(f"Capture: peers on the same rows and at {_RATE} rows/s", _COMMAND)
    await compare(_COUNT, _RATE, _SPAN_S)


async def speed() -> None:
    """Rounds a second from the start of ingest to the last ack, and what it costs, by what finishes a round."""
    rows = []
    for per_transaction in (1000, 1):
        # In turns, so that the machine is the same for all; each by the inserts of its turn.
        turns = [[await _drained(per_transaction, way) for way in _WAYS] for _ in range(_REPEATS)]
        for index, way in enumerate(_WAYS):
            rate, cpu_us = max(turn[index] for turn in turns)
            ratios = [turn[index][0] / turn[0][0] for turn in turns]
            shown = f"**{statistics.median(ratios):.2f}** ({min(ratios):.2f}-{max(ratios):.2f})"
            rows.append([f"{way}, {per_transaction} per transaction", f"{rate:,.0f}", shown, f"{cpu_us:.1f}"])
    table(["finished by", "rounds/s", "ratio to insert", "CPU µs/round"], rows)


async def memory() -> None:
    """Resident memory while one large transaction passes through."""
    async with running() as postgres:
        await postgres.run(fill(postgres.server, _LARGE, _LARGE))
        probe = Probe(postgres.server, _LARGE)
        rate, _ = await _ingested(probe, _LARGE)
    table(["rounds read", "RSS"], [[f"{count:,}", f"{size / 2**20:.1f} MiB"] for count, size in probe.memory.items()])
    sizes = list(probe.memory.values())
    print(f"{rate:,.0f} rounds/s; RSS moves by {(max(sizes) - min(sizes)) / 2**20:.1f} MiB\n")


async def latency() -> None:
    """From the commit, by the server's clock, to the ack after which its offset is confirmed."""
    turns = [[await _paced(way) for way in _WAYS] for _ in range(_REPEATS)]
    rows = []
    for index, way in enumerate(_WAYS):
        took_ms = min((turn[index] for turn in turns), key=lambda took: percentile(took, 0.5))
        ratios = [percentile(turn[index], 0.5) / percentile(turn[0], 0.5) for turn in turns]
        shown = [f"{percentile(took_ms, share):.2f}" for share in (0.5, 0.99, 1)]
        rows.append([way, f"{len(took_ms):,}", *shown, f"**{statistics.median(ratios):.2f}**"])
    table(["finished by", "rounds", "p50 ms", "p99 ms", "max ms", "p50 by that of insert"], rows)


async def _paced(way: str) -> list[float]:
    count = _RATE * _SPAN_S
    finishes = way != "insert"
    async with running(way, unfinished=count * finishes) as postgres:
        probe = Probe(postgres.server, count, way)
        with NatsServer() as nats:
            ingest = asyncio.create_task(run_ingest(probe, LogSettings(url=nats.url), name="bench"))
            await postgres.run(commit_at(postgres.server, _RATE, _SPAN_S, first=1, finishes=finishes))
            await probe.done.wait()
            ingest.cancel()
            await asyncio.wait([ingest])
        committed = await postgres.run(commit_times_us(postgres.server))
    return _latencies_ms(probe, committed)


def _latencies_ms(probe: Probe, committed: dict[int, int]) -> list[float]:
    """A confirmation covers every round up to its offset, so each round belongs to the first at or above its own."""
    confirmations = sorted(probe.confirmed_us.items())
    found, at = [], 0
    for offset, round_id in sorted(probe.ids.items()):
        while confirmations[at][0] < offset:
            at += 1
        found.append((confirmations[at][1] - committed[round_id]) / 1000)
    return found


async def _drained(per_transaction: int, way: str) -> tuple[float, float]:
    finishes = way != "insert"
    async with running(way, unfinished=_COUNT * finishes) as postgres:
        await postgres.run(fill(postgres.server, _COUNT, per_transaction, finishes=finishes))
        return await _ingested(Probe(postgres.server, _COUNT, way), _COUNT)


async def _ingested(probe: Probe, count: int) -> tuple[float, float]:
    """Run ingest until all is confirmed: rounds a second, and CPU in µs per round."""
    with NatsServer() as nats:
        began, cpu = time.perf_counter(), time.process_time()
        ingest = asyncio.create_task(run_ingest(probe, LogSettings(url=nats.url), name="bench"))
        done = asyncio.create_task(probe.done.wait())
        await asyncio.wait([ingest, done], return_when=asyncio.FIRST_COMPLETED)
        took, used = time.perf_counter() - began, time.process_time() - cpu
        done.cancel()
        ingest.cancel()
        await asyncio.wait([ingest])
        if not ingest.cancelled():
            await ingest
        async with connect(LogSettings(url=nats.url), name="bench") as nc:
            assert (await open_log(nc, LogSettings())).last == count
    return count / took, used / count * 1e6


if __name__ == "__main__":
    uvloop.run(main())
