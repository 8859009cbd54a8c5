"""``python -m bench.fanout [LINKS ...]``: a relay beside the most that the machine can do.

The relay has one core to itself; clients, publisher and nats-server share the other. CPU is the CPU
time of the relay's process, so that waiting for clients does not count.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from bench._nats import NatsServer
from bench._process import allow_files, cpu_s, on_core, rss_bytes
from bench._relay import RelayProcess, relay
from bench._report import heading, percentile, table
from bench._rounds import endless
from bench.fanout.ceiling import Ceiling, ceiling
from bench.fanout.fleet import Fleet
from bench.fanout.publisher import Publisher
from bench.fanout.wire import WIRES, Wire

if TYPE_CHECKING:
    from rounds import Round

_LINKS: Final = (500, 5000)
_ALLOWED: Final = range(100, 9001)
"""With fewer, a turn takes too little CPU to measure in steps of 10 ms; with more, both fleets need over 20,000 open
files."""
_DELIVERIES: Final = 400_000
"""Of each kind: enough CPU for its 10 ms steps to be below 1 %."""
_BURST: Final = 100
_BURSTS: Final = 3
"""Per slice."""
_SLICES: Final = 8
"""The relay and the bare loop take turns this often."""
_LONGEST_SLICE: Final = 200
"""Rounds in a turn: during the turn of the bare loop, no client answers the relay's pings."""
_IDLE_S: Final = 45.0
_IDLE_FROM: Final = 5000
_RELAY_CORE: Final = 0
_CLIENT_CORE: Final = 1


@dataclass(slots=True)
class Speed:
    """How fast one process writes to a fleet: CPU by delivery, and seconds until the last client has what was sent."""

    pid: int
    fleet: Fleet
    deliveries: int = 0
    cpu_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)

    @property
    def per_cpu_s(self) -> float:
        return self.deliveries / self.cpu_s

    def run(self, send: Callable[[], object], *, times: int, at_once: int) -> None:
        """`send` so many messages, wait until the last client has the last of them, and again."""
        before_s = cpu_s(self.pid)
        for _ in range(times):
            goal = len(self.fleet.ends) + at_once
            sent = time.monotonic()
            send()
            self.waits_s.append(self.fleet.receive(goal) - sent)
        self.cpu_s += cpu_s(self.pid) - before_s
        self.deliveries += times * at_once * len(self.fleet)


@dataclass(frozen=True, slots=True)
class Result:
    """What one relay did for one kind and number of links."""

    wire: str
    links: int
    single: Speed
    single_ceiling: Speed
    piled: Speed
    piled_ceiling: Speed
    rss_per_link: float
    handshakes_per_cpu_s: float
    idle_share: float | None
    verified_bytes: int


def main(counts: list[int]) -> None:
    allow_files(2 * max(counts) + 200)
    heading("Fan-out", f"python -m bench.fanout {' '.join(map(str, counts))}")
    results = []
    with on_core(_CLIENT_CORE), NatsServer() as nats:
        results = [measure(nats, wire, count) for count in counts for wire in WIRES]
    table(
        ["one relay process on one core", "one at a time", "bare loop", "ratio", "p50", "p99 to the last client"],
        [
            [
                f"{r.links} {r.wire} links",
                f"{r.single.per_cpu_s:,.0f}/CPU-s",
                f"{r.single_ceiling.per_cpu_s:,.0f}",
                f"**{r.single.per_cpu_s / r.single_ceiling.per_cpu_s:.2f}**",
                *(f"{1000 * percentile(r.single.waits_s, share):.1f} ms" for share in (0.5, 0.99)),
            ]
            for r in results
        ],
    )
    table(
        [f"bursts of {_BURST} rounds", "deliveries", "times one at a time", "bare loop, joined", "p50", "p99"],
        [
            [
                f"{r.links} {r.wire} links",
                f"{r.piled.per_cpu_s:,.0f}/CPU-s",
                f"**{r.piled.per_cpu_s / r.single.per_cpu_s:.1f}**",
                f"{r.piled_ceiling.per_cpu_s:,.0f}",
                *(f"{1000 * percentile(r.piled.waits_s, share):.0f} ms" for share in (0.5, 0.99)),
            ]
            for r in results
        ],
    )
    table(
        ["", "RSS per idle link", "idle CPU with heartbeats", "handshakes, token included", "bytes verified"],
        [
            [
                f"{r.links} {r.wire} links",
                f"**{r.rss_per_link / 1024:.1f} KB**",
                "" if r.idle_share is None else f"**{r.idle_share:.2%}** of a core over {_IDLE_S:.0f} s",
                f"{r.handshakes_per_cpu_s:,.0f}/CPU-s",
                f"{r.verified_bytes:,}",
            ]
            for r in results
        ],
    )


def measure(nats: NatsServer, wire: Wire, count: int) -> Result:
    """Run one relay with `count` links of one kind through everything."""
    with _relay(nats) as process, Publisher(nats.port) as publisher:
        rounds = _Rounds(publisher)
        warm = Fleet(wire)
        warm.connect(process.port, 1, lambda: wire.request(process.token()))
        rounds.send(1)
        warm.receive(1)  # by now everything that a link needs is loaded
        warm.close()
        rss_before, cpu_before = rss_bytes(process.pid), cpu_s(process.pid)
        rounds.published.clear()
        fleet = Fleet(wire)
        fleet.connect(process.port, count, lambda: wire.request(process.token()))
        handshakes = count / (cpu_s(process.pid) - cpu_before)
        rss_per_link = (rss_bytes(process.pid) - rss_before) / count
        idle_share = _idle(fleet, process) if count >= _IDLE_FROM else None
        with _ceiling(wire, count) as (writer, bare):
            times = max(1, min(_DELIVERIES // count // _SLICES, _LONGEST_SLICE))
            single = _compete(process, fleet, writer, bare, rounds, times=times, at_once=1)
            piled = _compete(process, fleet, writer, bare, rounds, times=_BURSTS, at_once=_BURST)
            bare.close()
        verified = fleet.check(rounds.published)
        fleet.close()
    return Result(wire.name, count, *single, *piled, rss_per_link, handshakes, idle_share, verified)


class _Rounds:
    """Publishes rounds and remembers them."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._rounds = endless(first_id=time.time_ns() // 1000)  # ids of no earlier relay
        self.published: list[Round] = []

    def send(self, count: int) -> None:
        batch = list(itertools.islice(self._rounds, count))
        self.published.extend(batch)
        self._publisher.publish(batch)


def _compete(
    process: RelayProcess,
    fleet: Fleet,
    writer: Ceiling,
    bare: Fleet,
    rounds: _Rounds,
    *,
    times: int,
    at_once: int,
) -> tuple[Speed, Speed]:
    """Have the relay and the bare loop write the same bytes in turns, so that what disturbs one disturbs both."""
    relayed, looped = Speed(process.pid, fleet), Speed(writer.pid, bare)
    for _ in range(_SLICES):
        first = len(fleet.ends)
        relayed.run(lambda: rounds.send(at_once), times=times, at_once=at_once)
        writes = iter(fleet.pieces(first, at_once))
        looped.run(partial(_write_next, writer, writes), times=times, at_once=at_once)
    return relayed, looped


def _write_next(writer: Ceiling, writes: Iterator[bytes]) -> None:
    writer.write(next(writes))


@contextmanager
def _relay(nats: NatsServer) -> Iterator[RelayProcess]:
    """Run a relay on its core; the block runs on the clients'."""
    with on_core(_RELAY_CORE), relay(nats.url) as process, on_core(_CLIENT_CORE):
        yield process


@contextmanager
def _ceiling(wire: Wire, count: int) -> Iterator[tuple[Ceiling, Fleet]]:
    """Run the bare loop on the relay's core, with a fleet of its own."""
    with on_core(_RELAY_CORE), ceiling(count) as writer, on_core(_CLIENT_CORE):
        fleet = Fleet(wire)
        fleet.connect(writer.port, count, lambda: b"")
        yield writer, fleet


def _idle(fleet: Fleet, process: RelayProcess) -> float:
    before_s, started = cpu_s(process.pid), time.monotonic()
    fleet.idle(_IDLE_S)
    share = (cpu_s(process.pid) - before_s) / (time.monotonic() - started)
    assert fleet.heartbeats >= len(fleet), f"{fleet.heartbeats} heartbeats for {len(fleet)} links"
    return share


def _counts(arguments: list[str]) -> list[int]:
    for text in arguments:
        if not text.isdecimal() or int(text) not in _ALLOWED:
            raise SystemExit(f"{text!r} is not a number of links; use {_ALLOWED.start} to {_ALLOWED.stop - 1}")
    return [int(text) for text in arguments] or list(_LINKS)


if __name__ == "__main__":
    main(_counts(sys.argv[1:]))
