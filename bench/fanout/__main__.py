"""``python -m bench.fanout [LINKS ...]``: how much of what the machine can do does a relay do?

The relay has one core to itself; clients, publisher and nats-server share the other. CPU is what the kernel has booked
on the relay's process, so that time waiting for clients counts for nothing.
"""

import itertools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from bench._nats import NatsServer
from bench._process import allow_files, cpu_s, on_core, rss_bytes
from bench._relay import RelayProcess, relay
from bench._report import heading, percentile, table
from bench._rounds import endless
from bench.fanout.ceiling import ceiling
from bench.fanout.fleet import Fleet
from bench.fanout.publisher import Publisher
from bench.fanout.wire import WIRES, Wire

if TYPE_CHECKING:
    from rounds import Round

_LINKS: Final = (500, 5000)
_DELIVERIES: Final = 400_000
"""Of each kind: enough CPU for its 10 ms steps to be below 1 %."""
_BURST: Final = 100
_BURST_FACTOR: Final = 10
_IDLE_S: Final = 45.0
_IDLE_FROM: Final = 5000
_WARM: Final = 20
_RELAY_CORE: Final = 0
_CLIENT_CORE: Final = 1


@dataclass(frozen=True, slots=True)
class Speed:
    """Deliveries per CPU-second of the writing process, and seconds from publishing to the last client having it."""

    per_cpu_s: float
    waits_s: list[float]


@dataclass(frozen=True, slots=True)
class Result:
    """What one relay did for one kind and number of links."""

    wire: str
    links: int
    single: Speed
    piled: Speed
    single_ceiling: Speed
    piled_ceiling: Speed
    rss_per_link: float
    handshakes_per_cpu_s: float
    idle_share: float | None
    verified_bytes: int


def main(counts: list[int]) -> None:
    allow_files(max(counts) + 200)
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
    rounds = endless(first_id=time.time_ns() // 1000)  # ids of no earlier run
    published: list[Round] = []
    fleet = Fleet(wire)
    with _relay(nats) as process, Publisher(nats.port) as publisher:

        def send(some: int) -> None:
            batch = list(itertools.islice(rounds, some))
            published.extend(batch)
            publisher.publish(batch)

        fleet.connect(process.port, 1, lambda: wire.request(process.token()))
        send(1)
        fleet.receive(1)  # everything is loaded that a link needs
        rss_before, cpu_before = rss_bytes(process.pid), cpu_s(process.pid)
        fleet.close()
        fleet, published = Fleet(wire), []
        fleet.connect(process.port, count, lambda: wire.request(process.token()))
        handshakes = count / (cpu_s(process.pid) - cpu_before)
        rss_per_link = (rss_bytes(process.pid) - rss_before) / count
        idle_share = _idle(fleet, process) if count >= _IDLE_FROM else None
        send(1)
        fleet.receive(1)
        times = max(_WARM, _DELIVERIES // count)
        single = _speed(process.pid, fleet, send, times=times, at_once=1)
        bursts = max(_WARM, _BURST_FACTOR * times // _BURST)
        piled = _speed(process.pid, fleet, send, times=bursts, at_once=_BURST)
        verified = fleet.check(published)
    messages = fleet.messages()
    fleet.close()
    single_ceiling, piled_ceiling = _ceilings(wire, count, messages[1 : times + 1], messages[times + 1 :])
    return Result(
        wire.name, count, single, piled, single_ceiling, piled_ceiling, rss_per_link, handshakes, idle_share, verified
    )


@contextmanager
def _relay(nats: NatsServer) -> Iterator[RelayProcess]:
    """Run a relay on its core; the block runs on the clients'."""
    with on_core(_RELAY_CORE), relay(nats.url) as process, on_core(_CLIENT_CORE):
        yield process


def _speed(pid: int, fleet: Fleet, send: Callable[[int], None], *, times: int, at_once: int) -> Speed:
    """Send so many rounds, wait until the last client has the last of them, and again."""
    before_s, waits = cpu_s(pid), []
    for _ in range(times):
        goal = len(fleet.ends) + at_once
        sent = time.monotonic()
        send(at_once)
        waits.append(fleet.receive(goal) - sent)
    return Speed(times * at_once * len(fleet) / (cpu_s(pid) - before_s), waits)


def _idle(fleet: Fleet, process: RelayProcess) -> float:
    before_s, started = cpu_s(process.pid), time.monotonic()
    fleet.idle(_IDLE_S)
    share = (cpu_s(process.pid) - before_s) / (time.monotonic() - started)
    assert fleet.heartbeats >= len(fleet), f"{fleet.heartbeats} heartbeats for {len(fleet)} links"
    return share


def _ceilings(wire: Wire, count: int, singles: list[bytes], piled: list[bytes]) -> tuple[Speed, Speed]:
    """Write the very same bytes with a bare loop: message by message, then each burst in one write."""
    writes = iter([*singles, *(b"".join(piled[at : at + _BURST]) for at in range(0, len(piled), _BURST))])
    fleet = Fleet(wire)
    with on_core(_RELAY_CORE), ceiling(count) as writer, on_core(_CLIENT_CORE):

        def send(_: int) -> None:
            writer.write(next(writes))

        fleet.connect(writer.port, count, lambda: b"")
        single = _speed(writer.pid, fleet, send, times=len(singles), at_once=1)
        joined = _speed(writer.pid, fleet, send, times=len(piled) // _BURST, at_once=_BURST)
    fleet.close()
    return single, joined


if __name__ == "__main__":
    main([int(text) for text in sys.argv[1:]] or list(_LINKS))
