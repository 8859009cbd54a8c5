"""Rounds to many streams: deliveries by CPU-second of each server, and how long the last stream waits."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Final

from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._report import percentile, table
from bench.fanout.ceiling import compiler
from bench.peers.client import Protocol, Streams
from bench.peers.servers import BareLoop, Server, bare_loop, centrifugo, grpc_go, relayed

_DELIVERIES: Final = 240_000
"""Of each server and kind, over all turns."""
_BURST: Final = 100
_TURNS: Final = 6
"""The servers take turns this often, so that what disturbs one disturbs all."""
_RATE: Final = 20
_PACED_S: Final = 5
SERVER_CORE: Final = 0
CLIENT_CORE: Final = 1


@dataclass(slots=True)
class Contender:
    """One server with its streams, and what it did."""

    server: Server
    streams: Streams
    cpu_s: dict[int, float] = field(default_factory=dict)
    """By how many rounds are published at once."""
    deliveries: dict[int, int] = field(default_factory=dict)
    waits_s: list[float] = field(default_factory=list)
    received: int = 0

    def per_cpu_s(self, at_once: int) -> float:
        return self.deliveries[at_once] / self.cpu_s[at_once]

    def run(self, at_once: int, times: int) -> None:
        """Publish, wait until the last stream has it, and again."""
        before_s = cpu_s(self.server.pid)
        for _ in range(times):
            self.server.publish(at_once)
            self.received += at_once
            self.streams.wait(self.received)
        self.cpu_s[at_once] = self.cpu_s.get(at_once, 0) + cpu_s(self.server.pid) - before_s
        self.deliveries[at_once] = self.deliveries.get(at_once, 0) + times * at_once * self.streams.count

    def pace(self) -> None:
        """Publish at a steady rate, and note how long the last stream waits for each round."""
        start, sent_s = time.monotonic(), []
        for number in range(_RATE * _PACED_S):
            time.sleep(max(0.0, start + number / _RATE - time.monotonic()))
            sent_s.append(time.monotonic())
            self.server.publish(1)
        first, self.received = self.received, self.received + len(sent_s)
        done_s = self.streams.wait(self.received)[first:]
        self.waits_s = [done - sent for sent, done in zip(sent_s, done_s, strict=True)]

    def check(self, protocol: Protocol) -> None:
        """Compare what every stream has with what was published."""
        if isinstance(self.server, BareLoop):
            return  # the bytes are this process's own
        counts = set(self.streams.counts())
        if counts != {self.received}:
            raise SystemExit(f"{self.server.name}: streams have {sorted(counts)} of {self.received} rounds")
        self.server.check(protocol, self.streams.messages(), 0)


def run(protocol: Protocol, links: Sequence[int]) -> None:
    """Print the deliveries of all servers that have the protocol, for each number of streams."""
    rows, waits = [], []
    for count in links:
        results = _measured(protocol, count)
        ours = results[0]
        for one in results:
            shown = [str(count), one.server.name]
            for at_once in (1, _BURST):
                ratio = ours.per_cpu_s(at_once) / one.per_cpu_s(at_once)
                shown += [f"{one.per_cpu_s(at_once):,.0f}", "" if one is ours else f"**{ratio:.2f}**"]
            rows.append(shown)
            waits.append([str(count), one.server.name, *_shown_ms(one.waits_s)])
    table(
        [
            f"{protocol} streams",
            "deliveries by CPU-second",
            "one at a time",
            "we ÷ it",
            f"bursts of {_BURST}",
            "we ÷ it",
        ],
        rows,
    )
    table([f"{protocol} streams", f"{_RATE} rounds/s, to the last stream", "p50", "p99"], waits)


def _measured(protocol: Protocol, count: int) -> list[Contender]:
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer())
        contenders = []
        for make in _servers(protocol, count, nats):
            with on_core(SERVER_CORE):
                server = make(stack)
            streams = stack.enter_context(Streams(protocol))
            streams.open(server.door(protocol), count)
            contenders.append(Contender(server, streams))
        for one in contenders:
            one.run(1, 1)  # everything is loaded
            one.cpu_s.clear()
            one.deliveries.clear()
        for at_once in (1, _BURST):
            times = max(1, _DELIVERIES // count // _TURNS // (at_once if at_once * count < _DELIVERIES else 1))
            for _ in range(_TURNS):
                for one in contenders:
                    one.run(at_once, min(times, 3) if at_once > 1 else times)
        for one in contenders:
            one.pace()
            one.check(protocol)
        return contenders


def _servers(protocol: Protocol, count: int, nats: NatsServer) -> list[Callable[[ExitStack], Server]]:
    """Return what starts each server, ours first."""
    found: list[Callable[[ExitStack], Server]] = [lambda stack: stack.enter_context(relayed(nats))]
    if protocol == "grpc":
        found.append(lambda stack: stack.enter_context(grpc_go()))
    found.append(lambda stack: stack.enter_context(centrifugo()))
    if compiler():
        found.append(lambda stack: stack.enter_context(bare_loop(protocol, count)))
    return found


def _shown_ms(waits_s: Sequence[float]) -> list[str]:
    return [f"{1000 * percentile(waits_s, share):.1f} ms" for share in (0.5, 0.99)]
