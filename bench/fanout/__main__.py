"""``python -m bench.fanout [LINKS ...]``: a relay beside the most that the machine can do.

The relay has one core to itself; clients, publisher and nats-server share the other. CPU is the CPU
time of the relay's process, so that waiting for clients does not count.
"""

import itertools
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from bench._nats import NatsServer
from bench._process import allow_files, cpu_s, on_core, rss_bytes
from bench._relay import RelayProcess, relay
from bench._report import heading, percentile, table
from bench._rounds import endless
from bench.fanout.ceiling import Ceiling, c_loop, compiler, python_loop
from bench.fanout.fleet import Fleet
from bench.fanout.publisher import Publisher
from bench.fanout.wire import GRPC, WIRES, Wire

if TYPE_CHECKING:
    from rounds import Round

_LINKS: Final = (500, 5000)
_ALLOWED: Final = range(100, 18_001)
"""With fewer, a turn takes too little CPU to measure in steps of 10 ms; more need over 20,000 open files."""
_GRPC_MOST: Final = 5000
"""More streams than one relay has in practice."""
_DELIVERIES: Final = 400_000
"""Of each kind: enough CPU for its 10 ms steps to be below 1 %."""
_BURST: Final = 100
_BURSTS: Final = 3
"""Per slice."""
_SLICES: Final = 8
"""The relay and the bare loops take turns this often."""
_LONGEST_SLICE: Final = 100
"""Rounds in a turn: during the turns of the bare loops, no client answers the relay's pings."""
_KEEPALIVE_S: Final = 3600
"""Of gRPC, for the same reason."""
_RATE: Final = 20
_PACED: Final = 200
_IDLE_S: Final = 45.0
_IDLE_FROM: Final = 5000
_SPARE_FILES: Final = 200
_RELAY_CORE: Final = 0
_CLIENT_CORE: Final = 1
_CEILINGS: Final = {"Python": python_loop} | ({"C": c_loop} if compiler() else {})


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
            goal = len(self.fleet.reference) + at_once
            sent = time.monotonic()
            send()
            self.waits_s.append(self.fleet.receive(goal) - sent)
        self.cpu_s += cpu_s(self.pid) - before_s
        self.deliveries += times * at_once * len(self.fleet)


@dataclass(slots=True)
class Contender:
    """What one process did: the relay, or a bare loop."""

    single: Speed
    piled: Speed
    paced_s: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Result:
    """What one relay did for one kind and number of links, and each bare loop for as many."""

    wire: str
    links: int
    relay: Contender
    bare: dict[str, Contender]
    rss_per_link: float
    handshakes_per_cpu_s: float
    idle_share: float | None
    verified_bytes: int


def main(counts: list[int]) -> None:
    allow_files(max(counts) + _SPARE_FILES)
    heading("Fan-out", f"python -m bench.fanout {' '.join(map(str, counts))}")
    if "C" not in _CEILINGS:
        print("There is no C compiler here (cc), so the bare loop in C is missing.\n")
    with on_core(_CLIENT_CORE), NatsServer() as nats:
        results = [
            measure(nats, wire, count)
            for count in counts
            for wire in (*WIRES, GRPC)
            if wire is not GRPC or count <= _GRPC_MOST
        ]
    loops = list(_CEILINGS)
    heads = [head for name in loops for head in (f"bare loop, {name}", "ratio")]
    table(
        ["one relay process on one core", "one at a time", *heads, "p50", "p99 to the last client"],
        [[_name(r), *_beside(r, lambda c: c.single), *_waits(r.relay.single.waits_s)] for r in results],
    )
    table(
        [f"bursts of {_BURST} rounds", "deliveries", *heads, "times one at a time", "p50", "p99"],
        [
            [
                _name(r),
                *_beside(r, lambda c: c.piled),
                f"{r.relay.piled.per_cpu_s / r.relay.single.per_cpu_s:.1f}",
                *_waits(r.relay.piled.waits_s),
            ]
            for r in results
        ],
    )
    table(
        [f"{_RATE} rounds/s, to the last client", "p50", "p99", *(f"p50 of the bare loop, {name}" for name in loops)],
        [[_name(r), *_waits(r.relay.paced_s), *(_waits(r.bare[name].paced_s)[0] for name in loops)] for r in results],
    )
    table(
        ["", "RSS per idle link", "idle CPU with heartbeats", "handshakes, credential included", "bytes verified"],
        [
            [
                _name(r),
                f"**{r.rss_per_link / 1024:.1f} KB**",
                "" if r.idle_share is None else f"**{r.idle_share:.2%}** of a core over {_IDLE_S:.0f} s",
                f"{r.handshakes_per_cpu_s:,.0f}/CPU-s",
                f"{r.verified_bytes:,}",
            ]
            for r in results
        ],
    )


def _name(result: Result) -> str:
    return f"{result.links:,} {result.wire} {'streams' if result.wire == GRPC.name else 'links'}"


def _beside(result: Result, speed: Callable[[Contender], Speed]) -> Iterator[str]:
    """Yield the relay's speed, then that of each bare loop and the relay's share of it."""
    ours = speed(result.relay).per_cpu_s
    yield f"{ours:,.0f}/CPU-s"
    for name in _CEILINGS:
        theirs = speed(result.bare[name]).per_cpu_s
        yield f"{theirs:,.0f}"
        yield f"**{ours / theirs:.2f}**"


def _waits(waits_s: Sequence[float]) -> list[str]:
    return [f"{1000 * percentile(waits_s, share):.1f} ms" for share in (0.5, 0.99)]


def measure(nats: NatsServer, wire: Wire, count: int) -> Result:
    """Run one relay with `count` links of one kind through everything."""
    with _relay(nats) as process, Publisher(nats.port) as publisher:
        rounds = _Rounds(publisher)
        port = process.grpc_port if wire is GRPC else process.port

        def request() -> bytes:
            return wire.request(process.key if wire.needs_key else process.token())

        warm = Fleet(wire)
        warm.connect(port, 1, request)
        rounds.send(1)
        warm.receive(1)  # by now everything that a link needs is loaded
        warm.close()
        rss_before, cpu_before = rss_bytes(process.pid), cpu_s(process.pid)
        rounds.published.clear()
        fleet = Fleet(wire)
        fleet.connect(port, count, request)
        handshakes = count / (cpu_s(process.pid) - cpu_before)
        rss_per_link = (rss_bytes(process.pid) - rss_before) / count
        idle_share = _idle(fleet, process) if wire.heartbeat and count >= _IDLE_FROM else None
        relayed, bare, verified = _compete(process, fleet, rounds, count)
    return Result(wire.name, count, relayed, bare, rss_per_link, handshakes, idle_share, verified)


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
    process: RelayProcess, fleet: Fleet, rounds: _Rounds, count: int
) -> tuple[Contender, dict[str, Contender], int]:
    """Have the relay and the bare loops write the same messages; return also how many bytes were verified.

    They take turns, so that what disturbs one disturbs all. When this process cannot hold so many connections, the
    bare loops write after the relay, one after another. Closes the fleet.
    """
    relayed = Contender(Speed(process.pid, fleet), Speed(process.pid, fleet))
    bare: dict[str, Contender] = {}
    if fits := (files := (1 + len(_CEILINGS)) * count + _SPARE_FILES) <= resource.getrlimit(resource.RLIMIT_NOFILE)[1]:
        allow_files(files)
    with ExitStack() as together:
        writers = []
        if fits:
            for name in _CEILINGS:
                bare[name], writer = together.enter_context(_bare(name, fleet.wire, count))
                writers.append((bare[name], writer))
        slices = []
        for at_once, times in _turns(count):
            writes = _relayed(relayed, rounds, times=times, at_once=at_once)
            slices.append((at_once, writes))
            for one, writer in writers:
                _looped(one, writer, writes, at_once=at_once)
        relayed.paced_s = fleet.pace(lambda: rounds.send(1), rate=_RATE, count=_PACED)
        paced = fleet.pieces(len(fleet.reference) - _PACED, 1)
        verified = fleet.check(rounds.published)
        fleet.close()
        for one, writer in writers:
            one.paced_s = _paced(one, writer, paced)
    for name in () if fits else _CEILINGS:
        with _bare(name, fleet.wire, count) as (bare[name], writer):
            for at_once, writes in slices:
                _looped(bare[name], writer, writes, at_once=at_once)
            bare[name].paced_s = _paced(bare[name], writer, paced)
    return relayed, bare, verified


def _turns(count: int) -> Iterator[tuple[int, int]]:
    """Yield how many rounds are published at once, and how often, in each turn."""
    for _ in range(_SLICES):
        yield 1, max(1, min(_DELIVERIES // count // _SLICES, _LONGEST_SLICE))
    for _ in range(_SLICES):
        yield _BURST, _BURSTS


def _relayed(one: Contender, rounds: _Rounds, *, times: int, at_once: int) -> list[bytes]:
    """Take the relay's turn; return the writes that would deliver the same."""
    speed = one.single if at_once == 1 else one.piled
    first = len(speed.fleet.reference)
    speed.run(lambda: rounds.send(at_once), times=times, at_once=at_once)
    return speed.fleet.pieces(first, at_once)


def _looped(one: Contender, writer: Ceiling, writes: Sequence[bytes], *, at_once: int) -> None:
    """Take a bare loop's turn."""
    pieces = iter(writes)
    speed = one.single if at_once == 1 else one.piled
    speed.run(lambda: writer.write(next(pieces)), times=len(writes), at_once=at_once)


def _paced(one: Contender, writer: Ceiling, writes: Sequence[bytes]) -> list[float]:
    pieces = iter(writes)
    return one.single.fleet.pace(lambda: writer.write(next(pieces)), rate=_RATE, count=len(writes))


@contextmanager
def _relay(nats: NatsServer) -> Iterator[RelayProcess]:
    """Run a relay on its core; the block runs on the clients'."""
    with (
        on_core(_RELAY_CORE),
        relay(nats.url, RELAY_GRPC_KEEPALIVE_S=str(_KEEPALIVE_S)) as process,
        on_core(_CLIENT_CORE),
    ):
        yield process


@contextmanager
def _bare(name: str, wire: Wire, count: int) -> Iterator[tuple[Contender, Ceiling]]:
    """Run a bare loop on the relay's core, with a fleet of its own."""
    with on_core(_RELAY_CORE), _CEILINGS[name](count) as writer, on_core(_CLIENT_CORE):
        fleet = Fleet(wire)
        fleet.connect(writer.port, count, lambda: b"")
        yield Contender(Speed(writer.pid, fleet), Speed(writer.pid, fleet)), writer
        fleet.close()


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
