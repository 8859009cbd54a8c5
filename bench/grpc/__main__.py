"""``python -m bench.grpc [streams] [latency] [replay]``: a relay over gRPC, beside its ceilings.

The relay has one core to itself; clients, publisher and nats-server share the other. CPU is the CPU
time of the relay's process, so that waiting for clients does not count.
"""

import itertools
import os
import socket
import statistics
import sys
import time
from typing import Final
from urllib.request import Request, urlopen

from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._relay import RelayProcess, relay
from bench._report import heading, percentile, table
from bench._rounds import endless
from bench.fanout.publisher import Publisher
from bench.grpc.bare import PATH, Bare, bare
from bench.grpc.reader import Read, read_alone
from bench.grpc.streams import Streams
from relay.history.reading.pages import PAGE
from relay.rpc.bulk import READ_AT_ONCE
from relay.rpc.calls.request_messages import prefixed
from relay.rpc.wire import round_bytes
from rounds import Catalogue
from rounds import datastream_pb2 as pb

_COMMAND: Final = "python -m bench.grpc"
_SERVICE: Final = "/datastream.DataStream"
_STREAMS: Final = (1, 50, 500, 2000)
_SINGLES: Final = 120_000
"""Deliveries of rounds that come one at a time: enough CPU for its 10 ms steps to be below 1 %."""
_DELIVERIES: Final = 3_000_000
"""The same in bursts."""
_MOST_ROUNDS: Final = 6000
_BURST: Final = 100
_SLICES: Final = 12
"""The relay and the bare server take turns this often."""
_REPLAYED: Final = int(os.environ.get("BENCH_ROUNDS", "200000"))
_RUNS: Final = 5
_RATE: Final = 100
_LATENCY_ROUNDS: Final = 500
_RELAY_CORE: Final = 0
_CLIENT_CORE: Final = 1


def main(wanted: list[str]) -> None:
    """Run the parts that `wanted` names, or all, and print their tables."""
    with on_core(_CLIENT_CORE), NatsServer() as server:
        port = _free_port()
        with on_core(_RELAY_CORE):
            process = relay(server.url, RELAY_GRPC_PORT=str(port), RELAY_LINKS_UNSENT_BYTES=str(64 << 20))
            at = process.__enter__()
        try:
            with Publisher(server.port) as publisher:
                if not wanted or "streams" in wanted:
                    heading("Streams over gRPC: deliveries by CPU-second of the server's process", _COMMAND)
                    fanout(at, port, Source(at, publisher))
                if not wanted or "latency" in wanted:
                    heading(f"Latency over gRPC at {_RATE} rounds/s, from publishing to the client's socket", _COMMAND)
                    latency(at, port, publisher)
                if not wanted or "replay" in wanted:
                    heading(f"Bulk replay of {_REPLAYED:,} rounds to one client", _COMMAND)
                    replay(server, at, port, publisher)
        finally:
            process.__exit__(None, None, None)


# --- streams -----------------------------------------------------------------------------------------------------


class Source:
    """The rounds of the benchmark as they come into the log, and their messages as streams must get them."""

    def __init__(self, at: RelayProcess, publisher: Publisher) -> None:
        self._publisher = publisher
        self._rounds = endless()
        asked = Request(f"http://127.0.0.1:{at.port}/sse", headers={"X-API-Key": at.key})
        with urlopen(asked, timeout=10) as stream:  # noqa: S310 - our own relay
            self._epoch, _, head = stream.headers["Head-Cursor"].partition("-")
        self._sequence = int(head)

    def publish(self, count: int) -> list[bytes]:
        """Publish rounds; return their messages, with the prefixes of gRPC."""
        rounds = list(itertools.islice(self._rounds, count))
        self._publisher.publish(rounds)
        first, self._sequence = self._sequence + 1, self._sequence + count
        return [prefixed(round_bytes(each, f"{self._epoch}-{at}")) for at, each in enumerate(rounds, first)]


def fanout(at: RelayProcess, port: int, source: Source) -> None:
    """The same number of rounds to the same number of streams, from the relay and from the bare engine, in turns.

    The bytes of each stream are compared with what was published.
    """
    rows = []
    for count, together in itertools.product(_STREAMS, (False, True)):
        rounds = max(_SLICES, round((_DELIVERIES if together else _SINGLES) / count / _SLICES) * _SLICES)
        rounds = min(rounds, _MOST_ROUNDS)
        messages = [round_bytes(each, "mwv9bzxo-100042") for each in itertools.islice(endless(), rounds)]
        with on_core(_RELAY_CORE):
            ceiling = bare(messages)
            floor = ceiling.__enter__()
        try:
            speeds = _in_turns(at, port, floor, source, count, rounds, together=together)
        finally:
            ceiling.__exit__(None, None, None)
        how = f"bursts of {_BURST}" if together else "one at a time"
        rows.append([f"{count}", how, *(f"{speed:,.0f}" for speed in speeds), f"{speeds[0] / speeds[1]:.2f}"])
    table(["streams", "", "relay", "bare engine", "ratio"], rows)


def _in_turns(
    at: RelayProcess, port: int, floor: Bare, source: Source, count: int, rounds: int, *, together: bool
) -> tuple[float, float]:
    """Return the deliveries by CPU-second of the relay and of the bare engine."""
    request, step = pb.StreamAllRequest().SerializeToString(), _BURST if together else 1
    expected: list[bytes] = []
    spent_s = [0.0, 0.0]
    with (
        Streams(port, count, path=f"{_SERVICE}/StreamAll", key=at.key, request=request) as ours,
        Streams(floor.port, count, path=PATH, key="", request=b"") as theirs,
    ):
        ours.opened()
        theirs.opened()
        for first in range(0, rounds, max(step, rounds // _SLICES)):
            last = min(rounds, first + max(step, rounds // _SLICES))
            for which, pid in enumerate((at.pid, floor.pid)):
                before_s = cpu_s(pid)
                for sent in range(first, last, step):
                    size = min(step, last - sent)
                    if which:
                        floor.write(sent, size, together=together)
                    else:
                        expected += source.publish(size)
                    (ours, theirs)[which].receive(sent + size)
                spent_s[which] += cpu_s(pid) - before_s
        ours.check(expected)
    return rounds * count / spent_s[0], rounds * count / spent_s[1]


# --- latency -----------------------------------------------------------------------------------------------------


def latency(at: RelayProcess, port: int, publisher: Publisher) -> None:
    """One round at a time: publish, wait for it on the client's socket."""
    waits_ms = []
    request = pb.StreamAllRequest().SerializeToString()
    with Streams(port, 1, path=f"{_SERVICE}/StreamAll", key=at.key, request=request) as stream:
        stream.opened()
        start = time.monotonic()
        for number, round_ in enumerate(itertools.islice(endless(), _LATENCY_ROUNDS), 1):
            time.sleep(max(0.0, start + number / _RATE - time.monotonic()))
            sent_at = time.monotonic()
            publisher.publish([round_])
            waits_ms.append(1000 * (stream.receive(number) - sent_at))
    table(["p50", "p99"], [[f"{statistics.median(waits_ms):.2f} ms", f"{percentile(waits_ms, 0.99):.2f} ms"]])


# --- replay ------------------------------------------------------------------------------------------------------


def replay(server: NatsServer, at: RelayProcess, port: int, publisher: Publisher) -> None:
    """The whole log as one client gets it, beside the log reader alone, which discards what it reads."""
    rounds = endless(first_id=10**6)
    for _ in range(_REPLAYED // 1000):
        publisher.publish(list(itertools.islice(rounds, 1000)))
    ways = {"all games": pb.ReplayRequest(), "one of them": pb.ReplayRequest(game_slugs=["crash"])}
    pages = {f"{PAGE:,} rounds at a time, as everywhere": PAGE, f"{READ_AT_ONCE:,}, as here": READ_AT_ONCE}
    alone: dict[str, list[Read]] = {name: [] for name in pages}
    took_s: dict[str, list[float]] = {name: [] for name in ways}
    used_s: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_RUNS):  # in turns, so that what disturbs the machine disturbs all of them
        for name, page in pages.items():
            with on_core(_RELAY_CORE):
                alone[name].append(read_alone(server.url, page=page))
        for name, request in ways.items():
            started, before_s = time.monotonic(), cpu_s(at.pid)
            data = request.SerializeToString()
            with Streams(port, 1, path=f"{_SERVICE}/Replay", key=at.key, request=data) as stream:
                took_s[name].append(stream.receive_all() - started)
            used_s[name].append(cpu_s(at.pid) - before_s)
    ceilings = {
        name: reads[0].rounds / statistics.median(read.took_s for read in reads) for name, reads in alone.items()
    }
    count = next(iter(alone.values()))[0].rounds
    rows = []
    for name, request in ways.items():
        number = count if not request.game_slugs else count // len(Catalogue.load().slugs)
        speed, by_cpu = (number / statistics.median(seconds[name]) for seconds in (took_s, used_s))
        ratios = ["" if request.game_slugs else f"{speed / ceiling:.2f}" for ceiling in ceilings.values()]
        rows.append([name, f"{speed:,.0f}", f"{by_cpu:,.0f}", *ratios])
    for name, ceiling in ceilings.items():
        rows.append(
            [f"log reader alone, {name}", f"{ceiling:,.0f}", "", *("1" if name == of else "" for of in ceilings)]
        )
    of_reader = [f"to the reader of {page:,}" for page in pages.values()]
    table(["", "rounds/s", "rounds by CPU-second of the relay", *of_reader], rows)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    main(sys.argv[1:])
