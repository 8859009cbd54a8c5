"""``python -m bench.replicated``: rounds into a log of three replicas, one per game at a time and in batches.

Both ways publish the same rounds with our publisher to a cluster of their own, on this machine. The table prints rounds
a second by the number of games. Conclusions: docs/adr/0023-fast-ingest-batches.md.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from backends.contract import Captured, Rejected
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from bench._report import heading, table
from roundlog.client.api import ask_api
from roundlog.client.connection import connect
from roundlog.log_errors import LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.stream import StreamInfo, open_log
from rounds import Round
from tests.nats_cluster import nats_cluster

_COMMAND: Final = "python -m bench.replicated"
_WARM: Final = 200
_ROUNDS: Final = {False: 8_000, True: 80_000}
"""How many rounds each way publishes: about as many seconds."""
_GAMES: Final = (1, 2, 14)
_START_S: Final = 60.0


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    heading("Ingest into a log of three replicas", _COMMAND)
    rows = []
    for games in _GAMES:
        one_per_game, batches = [await measured(games, batches=batches) for batches in (False, True)]
        rows.append([str(games), f"{one_per_game:,.0f}", f"{batches:,.0f}", f"{batches / one_per_game:.1f}"])
    table(["games", "one per game, rounds/s", "batches, rounds/s", "ratio"], rows)


async def measured(games: int, *, batches: bool) -> float:
    """Publish to a fresh cluster; return rounds a second."""
    with tempfile.TemporaryDirectory(prefix="stream-relay-bench-") as folder:
        async with nats_cluster(Path(folder)) as servers:
            settings = LogSettings(url=",".join(server.url for server in servers.values()), replicas=3)
            return await published(settings, games, batches=batches)


async def published(settings: LogSettings, games: int, *, batches: bool) -> float:
    """Publish to this cluster; return rounds a second."""
    await create(settings, batches=batches)
    count, at, started = _ROUNDS[batches], 0, 0.0

    def confirm(offset: int) -> None:
        nonlocal at, started
        if not started and offset >= _WARM:
            at, started = offset, time.perf_counter()

    async def rejects(item: Rejected[Any]) -> None:
        raise AssertionError(item.reason)

    publisher: Publisher[int] = Publisher(settings, PublisherSettings(), confirm=confirm, rejects=rejects)
    await publisher.run(made(count, games))
    took = time.perf_counter() - started
    async with connect(settings, name="bench") as connection:
        assert (await open_log(connection, settings)).last == count
    return (count - at) / took


async def create(settings: LogSettings, *, batches: bool) -> None:
    """Create the stream once the cluster has a leader."""
    async with asyncio.timeout(_START_S):
        while True:
            try:
                async with connect(settings, name="bench") as connection:
                    await open_log(connection, settings)
                    config = (await ask_api(connection, "STREAM.INFO.ROUNDS", None, StreamInfo)).config
                    edited = await ask_api(
                        connection, "STREAM.UPDATE.ROUNDS", config | {"allow_batched": batches}, StreamInfo
                    )
                    if edited.error is None:
                        return
            except LogUnavailable:
                await asyncio.sleep(0.1)


async def made(count: int, games: int) -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
    """Yield rounds of `games` games in turn."""
    for first in range(1, count + 1, 1000):
        yield [
            Captured(
                Round(
                    number, f"game-{number % games}", "multiplier", "2026-01-18T10:00:30Z", '{"point":"2.50"}', number
                ),
                number,
            )
            for number in range(first, min(first + 1000, count + 1))
        ]


if __name__ == "__main__":
    uvloop.run(main())
