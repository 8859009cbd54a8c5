"""Full-speed replay of a whole log to one client, beside bare readers of the same log."""

import threading
import time
from typing import Final, NamedTuple

from bench._nats import NatsServer
from bench._process import cpu_s, on_core, rss_bytes
from bench._relay import RelayProcess
from bench._report import table
from bench.fanout.wire import WIRES, Wire
from bench.replay import readers
from bench.replay.client import ReplayClient
from bench.replay.filled_log import FilledLog

_REPEATS: Final = 3
_LOOK_S: Final = 0.05


class Run(NamedTuple):
    """One replay of the whole log."""

    seconds: float
    cpu_s: float
    rss_growth: int


def run(nats: NatsServer, log: FilledLog, process: RelayProcess, *, relay_core: int) -> None:
    """Print what one client gets, and what bare readers read."""
    rows = []
    for wire in WIRES:
        expected = log.stream(wire, after=0, count=log.count)
        runs = [_replay(wire, log, process, expected) for _ in range(_REPEATS)]
        best = min(runs, key=lambda run: run.seconds)
        rows.append(
            [
                f"one {wire.name} client",
                f"**{log.count / best.seconds:,.0f}/s**",
                f"{log.count / min(run.cpu_s for run in runs):,.0f}/CPU-s",
                f"{runs[0].rss_growth / 2**20:.1f} MB",
                f"{max(run.rss_growth for run in runs[1:]) / 2**20:.1f} MB",
            ]
        )
    header = [f"replay of {log.count:,} rounds", "rate", "relay's CPU", "relay's memory grew by", "and, repeated, by"]
    table(header, rows)
    rows = []
    with on_core(relay_core):
        for way, (_, share) in readers.WAYS.items():
            count = max(500, round(log.count * share))
            best_s, least_cpu_s = map(min, zip(*(readers.measure(way, nats.url, count) for _ in range(2)), strict=True))
            rows.append([way, f"{count / best_s:,.0f}/s", f"{count / least_cpu_s:,.0f}/CPU-s", f"{count:,}"])
    table(["bare readers of the same log", "rate", "reader's CPU", "rounds"], rows)


def _replay(wire: Wire, log: FilledLog, process: RelayProcess, expected: bytes) -> Run:
    token = process.token()
    before_cpu_s = cpu_s(process.pid)
    with _Peak(process.pid) as peak:
        begun = time.monotonic()
        client = ReplayClient(wire, process.port, token, log.cursor(0))
        seconds = client.receive(expected) - begun
    client.close()
    return Run(seconds, cpu_s(process.pid) - before_cpu_s, peak.growth)


class _Peak:
    """Measures by how much a process grows while the block runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._before = rss_bytes(pid)
        self.growth = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "_Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            over = self._over.wait(_LOOK_S)
            self.growth = max(self.growth, rss_bytes(self._pid) - self._before)
            if over:
                return
