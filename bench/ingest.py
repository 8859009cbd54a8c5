"""``python -m bench.ingest``: rounds into a real JetStream, with ids and acks: our publisher beside nats-py's.

Every way publishes the same rounds with the same ids to a server of its own, with file storage, until the last ack.
Results and conclusions: docs/adr/0003-own-publish-pipeline.md.
"""

import asyncio
import logging
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

import nats
import structlog
import uvloop
from nats.aio.msg import Msg

from backends.contract import BackendContext, Captured, Rejected
from backends.ingest.run_ingest import run_ingest
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from backends.registry import make_backend
from bench._nats import NatsServer
from bench._process import cpu_s, rss_bytes
from bench._report import heading, table
from bench._rounds import endless
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import open_log
from rounds import Catalogue, dedup_id, log_subject

_COMMAND: Final = "python -m bench.ingest"
_COUNT: Final = 200_000
_MANY: Final = 1_000_000
_BATCH: Final = 1000
_REPEATS: Final = 3

Batches = AsyncIterator[Sequence[Captured[int] | Rejected[int]]]


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    heading(f"Ingest: {_COUNT:,} rounds into JetStream, best of {_REPEATS}", _COMMAND)
    await speed()
    heading(f"Ingest: memory over {_MANY:,} rounds", _COMMAND)
    await memory()


# --- speed -------------------------------------------------------------------------------------------------------


async def speed() -> None:
    """Rounds a second and CPU per round, of each way to publish."""
    with tempfile.TemporaryDirectory(prefix="stream-relay-bench-") as folder:
        path = Path(folder) / "rounds.jsonl"
        with path.open("wb") as file:
            file.writelines(round_.to_json() + b"\n" for round_ in islice(endless(), _COUNT))
        ways: dict[str, Callable[[str], Awaitable[None]]] = {
            "nats-py `publish_async`": publish_async,
            "nats-py `publish`, one reply inbox": publish_with_one_inbox,
            "our publisher": from_memory,
            "our publisher, backend `file`, JSONL": lambda url: from_file(url, path),
        }
        rows = []
        base = 0.0
        for name, way in ways.items():
            rate, ours, servers = max([await measured(way) for _ in range(_REPEATS)])
            base = base or rate
            rows.append([name, f"{rate:,.0f}", f"{rate / base:.1f}", f"{ours:.1f}", f"{servers:.1f}"])
    table(["way", "rounds/s", "ratio", "CPU µs/round", "nats-server CPU µs/round"], rows)


async def measured(way: Callable[[str], Awaitable[None]]) -> tuple[float, float, float]:
    """Run one way against a fresh server: rounds a second, our CPU and the server's, both in µs per round."""
    with NatsServer() as server:
        async with connect(LogSettings(url=server.url), name="bench") as nc:
            await open_log(nc, LogSettings())
        started, before, servers_before = time.perf_counter(), time.process_time(), cpu_s(server.pid)
        await way(server.url)
        took = time.perf_counter() - started
        ours, servers = time.process_time() - before, cpu_s(server.pid) - servers_before
        async with connect(LogSettings(url=server.url), name="bench") as nc:
            assert (await open_log(nc, LogSettings())).last == _COUNT
        return _COUNT / took, ours / _COUNT * 1e6, servers / _COUNT * 1e6


async def publish_async(url: str) -> None:
    """nats-py's own pipeline: a future per publish, 4000 of them at a time."""
    nc = await nats.connect(url)
    js = nc.jetstream(publish_async_max_pending=4000)
    for round_ in islice(endless(), _COUNT):
        await js.publish_async(
            log_subject(round_.game_slug),
            round_.to_json(),
            headers={"Nats-Msg-Id": dedup_id(round_.game_slug, round_.round_id)},
            wait_stall=30,
        )
    await js.publish_async_completed()
    await nc.close()


async def publish_with_one_inbox(url: str) -> None:
    """The best that the public API allows: `publish` with a reply subject each, acks counted by one subscription."""
    nc = await nats.connect(url)
    acked = 0
    room = asyncio.Event()

    async def on_ack(_: Msg) -> None:
        nonlocal acked
        acked += 1
        room.set()

    inbox = nc.new_inbox()
    await nc.subscribe(f"{inbox}.*", cb=on_ack)
    for number, round_ in enumerate(islice(endless(), _COUNT)):
        while number - acked >= 4000:
            room.clear()
            await room.wait()
        headers = {"Nats-Msg-Id": dedup_id(round_.game_slug, round_.round_id)}
        await nc.publish(log_subject(round_.game_slug), round_.to_json(), f"{inbox}.{number}", headers)
    while acked < _COUNT:
        room.clear()
        await room.wait()
    await nc.close()


async def from_memory(url: str) -> None:
    await publish(url, made(_COUNT))


async def publish(url: str, batches: Batches, settings: PublisherSettings | None = None) -> None:
    """Our publisher, exactly as ingest runs it."""

    async def rejects(item: Rejected[Any]) -> None:
        raise AssertionError(item.reason)

    publisher: Publisher[int] = Publisher(
        LogSettings(url=url), settings or PublisherSettings(), confirm=lambda _: None, rejects=rejects
    )
    await publisher.run(batches)


async def made(count: int, *, on_batch: Callable[[int], None] = lambda _: None) -> Batches:
    """Yield rounds as a source does that costs almost nothing."""
    rounds = endless()
    for start in range(0, count, _BATCH):
        on_batch(start)
        yield [Captured(round_, start) for round_ in islice(rounds, _BATCH)]


async def from_file(url: str, path: Path) -> None:
    """All of ingest: the backend ``file`` reads, parses and checks a recording at full speed."""
    context = BackendContext(Catalogue.load())
    backend = make_backend("file", {"path": str(path), "speed": "max"}, context)
    await run_ingest(backend, LogSettings(url=url), name="file")


# --- memory ------------------------------------------------------------------------------------------------------


async def memory() -> None:
    """Resident memory of this process while many rounds pass through it."""
    seen: dict[int, int] = {}

    def look(start: int) -> None:
        if start % 100_000 == 0:
            seen[start] = rss_bytes(os.getpid())

    with NatsServer() as server:
        started = time.perf_counter()
        await publish(server.url, made(_MANY, on_batch=look))
        rate = _MANY / (time.perf_counter() - started)
    seen[_MANY] = rss_bytes(os.getpid())
    table(["rounds", "RSS"], [[f"{count:,}", f"{size / 2**20:.1f} MiB"] for count, size in seen.items()])
    warm = [size for count, size in seen.items() if count >= 100_000]
    print(f"{rate:,.0f} rounds/s; from 100,000 rounds on RSS moves by {(max(warm) - min(warm)) / 2**20:.1f} MiB\n")


if __name__ == "__main__":
    uvloop.run(main())
