"""``python -m bench.grpc [streams] [lift] [latency] [replay]``: a relay over gRPC, beside its ceilings.

The relay has one core to itself; clients, publisher and nats-server share the other. CPU is the CPU
time of the relay's process, so that waiting for clients does not count.
"""

import itertools
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Final, Literal

from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._relay import RelayProcess, relay
from bench._report import heading, percentile, table
from bench._rounds import endless
from bench.fanout.publisher import Publisher
from bench.grpc.bare import SERVICE as BARE
from bench.grpc.bare import bare
from bench.grpc.reader import Read, read_alone
from bench.grpc.streams import Streams
from relay.history.reading.pages import PAGE
from relay.rpc.bulk import READ_AT_ONCE
from relay.rpc.wire import batch_entry, round_bytes
from rounds import Catalogue
from rounds import datastream_pb2 as pb

_COMMAND: Final = "python -m bench.grpc"
_SERVICE: Final = "/datastream.DataStream"
_STREAMS: Final = (1, 50, 500)
_DELIVERIES: Final = 60_000
"""Of each kind: enough CPU for its 10 ms steps to be below 1 %."""
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
                    heading("Streams over gRPC: messages by CPU-second of the server's process", _COMMAND)
                    fanout(at, port, publisher)
                if not wanted or "lift" in wanted:
                    heading("What lifts the ceiling: rounds by CPU-second of the server's process", _COMMAND)
                    lift(at, port, publisher)
                if not wanted or "latency" in wanted:
                    heading(f"Latency over gRPC at {_RATE} rounds/s, from publishing to the client's socket", _COMMAND)
                    latency(at, port, publisher)
                if not wanted or "replay" in wanted:
                    heading(f"Bulk replay of {_REPLAYED:,} rounds to one client", _COMMAND)
                    replay(server, at, port, publisher)
        finally:
            process.__exit__(None, None, None)


# --- streams -----------------------------------------------------------------------------------------------------


def following(at: RelayProcess, port: int, publisher: Publisher) -> float:
    """Return the CPU seconds that one round costs a relay that follows the log and writes it to no client."""
    nothing = pb.StreamAllRequest(filter=pb.Filter(min_point=1e9)).SerializeToString()
    one = pb.StreamByGameRequest(game_slug="pipa-brazil").SerializeToString()
    with (
        Streams(port, 1, path=f"{_SERVICE}/StreamAll", key=at.key, request=nothing) as silent,
        Streams(port, 1, path=f"{_SERVICE}/StreamByGame", key=at.key, request=one) as last,
    ):
        silent.opened()
        last.opened()
        before_s, rounds = cpu_s(at.pid), endless()
        for burst in range(1, _DELIVERIES // _BURST // 10 + 1):
            publisher.publish(list(itertools.islice(rounds, 14 * 10)))
            last.receive(burst * 10)
        return (cpu_s(at.pid) - before_s) / (_DELIVERIES // _BURST // 10 * 140)


def fanout(at: RelayProcess, port: int, publisher: Publisher) -> None:
    """The same bursts to the same number of streams, from the relay and from a bare server, in turns."""
    rows = []
    following_s = following(at, port, publisher)
    rounds = endless()
    messages = [round_bytes(round_, "mwv9bzxo-100042") for round_ in itertools.islice(endless(), _BURST)]
    request = pb.StreamAllRequest().SerializeToString()
    for count in _STREAMS:
        bursts = max(1, round(_DELIVERIES / count / _BURST / _SLICES))
        with on_core(_RELAY_CORE):
            ceiling = bare(messages)
            floor = ceiling.__enter__()
        try:
            with (
                Streams(port, count, path=f"{_SERVICE}/StreamAll", key=at.key, request=request) as ours,
                Streams(floor.port, count, path=f"/{BARE}/Stream", key="", request=b"") as theirs,
            ):
                ours.opened()
                theirs.opened()
                spent_s = [0.0, 0.0]
                sent = [0, 0]
                for number in range(2 * _SLICES):
                    which = number % 2
                    pid = (at.pid, floor.pid)[which]
                    before_s = cpu_s(pid)
                    for _ in range(bursts):
                        if which:
                            floor.write(1)
                        else:
                            publisher.publish(list(itertools.islice(rounds, _BURST)))
                        sent[which] += _BURST
                        (ours, theirs)[which].receive(sent[which])
                    spent_s[which] += cpu_s(pid) - before_s
        finally:
            ceiling.__exit__(None, None, None)
        speeds = [sent[which] * count / spent_s[which] for which in (0, 1)]
        writing = sent[0] * count / (spent_s[0] - sent[0] * following_s)
        ratios = [f"{speed / speeds[1]:.2f}" for speed in (speeds[0], writing)]
        rows.append([f"{count}", f"{speeds[0]:,.0f}", f"{speeds[1]:,.0f}", *ratios])
    table(["streams", "relay", "bare grpc.aio server", "ratio", "ratio without following the log"], rows)
    print(f"Following the log costs {1e6 * following_s:.0f} us of CPU per round, however many streams there are.\n")


# --- lift --------------------------------------------------------------------------------------------------------


def lift(at: RelayProcess, port: int, publisher: Publisher) -> None:
    """Other ways to send the same rounds: another event loop, several rounds in a message, the HTTP proxy."""
    one = [round_bytes(round_, "mwv9bzxo-100042") for round_ in itertools.islice(endless(), _BURST)]
    entries = [batch_entry(round_, "mwv9bzxo-100042") for round_ in itertools.islice(endless(), _BURST)]
    tens = [b"".join(entries[at : at + 10]) for at in range(0, _BURST, 10)]
    request = pb.StreamAllRequest().SerializeToString()
    rounds = endless()

    def publish() -> None:
        publisher.publish(list(itertools.islice(rounds, _BURST)))

    rows: dict[str, list[str]] = {}
    for count in _STREAMS[:2]:
        bares: list[tuple[str, list[bytes], Literal["uvloop", "asyncio"]]] = [
            ("bare grpc.aio server, uvloop", one, "uvloop"),
            ("bare grpc.aio server, asyncio's loop", one, "asyncio"),
            ("bare grpc.aio server, uvloop, ten rounds to a message", tens, "uvloop"),
        ]
        for name, messages, loop in bares:
            with on_core(_RELAY_CORE):
                process = bare(messages, loop=loop)
                floor = process.__enter__()
            try:
                with Streams(floor.port, count, path=f"/{BARE}/Stream", key="", request=b"") as streams:
                    speed = _speed(floor.pid, streams, count, partial(floor.write, 1), messages=len(messages))
            finally:
                process.__exit__(None, None, None)
            rows.setdefault(name, [name]).append(f"{speed:,.0f}")
        for name, target, path, proxy in (
            ("relay, gRPC", port, f"{_SERVICE}/StreamAll", False),
            ("relay, Connect through the proxy", at.port, f"/api/grpc{_SERVICE}/StreamAll", True),
        ):
            with Streams(target, count, path=path, key=at.key, request=request, proxy=proxy) as streams:
                speed = _speed(at.pid, streams, count, publish, messages=_BURST)
            rows.setdefault(name, [name]).append(f"{speed:,.0f}")
    table(["", *(f"{count} streams" for count in _STREAMS[:2])], list(rows.values()))


def _speed(pid: int, streams: Streams, count: int, burst: Callable[[], None], *, messages: int) -> float:
    """Rounds by CPU-second of a process that writes bursts of `_BURST` rounds, in so many messages each."""
    streams.opened()
    bursts = max(1, round(_DELIVERIES / count / _BURST))
    before_s = cpu_s(pid)
    for number in range(1, bursts + 1):
        burst()
        streams.receive(number * messages)
    return bursts * _BURST * count / (cpu_s(pid) - before_s)


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
