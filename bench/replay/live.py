"""The effect of replays on live links: how long a round takes to the last of many links, without and during replays."""

import multiprocessing
import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final

from bench._process import on_core
from bench._relay import RelayProcess
from bench._report import percentile, table
from bench.fanout.fleet import Fleet
from bench.fanout.wire import WIRES, WebSocket
from bench.replay.client import ReplayClient
from bench.replay.filled_log import FilledLog
from bench.replay.scrape import scrape

_LINKS: Final = 1000
_REPLAYS: Final = 20
_ROUNDS: Final = 200
"""Sent one by one, each when every link has the one before."""
_TURNS: Final = 3
_NICE: Final = 10
_REPLAYED: Final = "relay_rounds_replayed_total"


def run(log: FilledLog, process: RelayProcess, *, client_core: int) -> None:
    """Print the waits of live rounds, with and without replays, taken in turns."""
    wire = WebSocket()
    fleet = Fleet(wire)
    fleet.connect(process.port, _LINKS, lambda: wire.request(process.token()))
    alone: list[float] = []
    among: list[float] = []
    replayed, replaying_s = 0, 0.0
    _waits(log, fleet)  # by now everything is loaded and warm
    for _ in range(_TURNS):
        alone += _waits(log, fleet)
        with on_core(client_core), _replays(log, process):
            before, begun = scrape(process)[_REPLAYED], time.monotonic()
            among += _waits(log, fleet)
            replayed += round(scrape(process)[_REPLAYED] - before)
            replaying_s += time.monotonic() - begun
    fleet.close()
    table(
        [f"live round to the last of {_LINKS} links", "p50", "p99", "replayed meanwhile"],
        [
            ["without replays", *_shown(alone), ""],
            [f"during {_REPLAYS} replays", *_shown(among), f"{replayed / replaying_s:,.0f} rounds/s"],
            ["ratio", *(f"**{percentile(among, at) / percentile(alone, at):.1f}**" for at in (0.5, 0.99)), ""],
        ],
    )


def _shown(waits_s: list[float]) -> list[str]:
    return [f"{1000 * percentile(waits_s, share):.1f} ms" for share in (0.5, 0.99)]


def _waits(log: FilledLog, fleet: Fleet) -> list[float]:
    waits = []
    for _ in range(_ROUNDS):
        goal, sent = len(fleet.reference) + 1, time.monotonic()
        log.publish(1)
        waits.append(fleet.receive(goal) - sent)
    return waits


@contextmanager
def _replays(log: FilledLog, process: RelayProcess) -> Iterator[None]:
    """Replay the whole log again and again while the block runs, to readers in a process of their own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    arguments = (process.port, process.token(), log.cursor(0), theirs)
    replaying = context.Process(target=_replay, args=arguments, daemon=True)
    replaying.start()
    theirs.close()
    try:
        ours.recv()  # all of them have begun
        yield
    finally:
        replaying.kill()
        replaying.join()


def _replay(port: int, token: str, after: str, pipe: Connection) -> None:
    os.nice(_NICE)  # so that readers take no CPU from the links that are measured
    poll = select.epoll()
    clients: dict[int, ReplayClient] = {}

    def begin(number: int) -> None:
        client = ReplayClient(WIRES[number % len(WIRES)], port, token, after)
        clients[client.fileno()] = client
        poll.register(client.fileno(), select.EPOLLIN)

    for number in range(_REPLAYS):
        begin(number)
    pipe.send("begun")
    while True:
        for number, _ in poll.poll():
            if not clients[number].discard():
                raise SystemExit("the relay ended a replay")
