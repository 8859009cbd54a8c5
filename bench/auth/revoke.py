"""``python -m bench.auth.revoke [LINKS]``: a key is taken back that has thousands of links on two relays.

How long it takes from the change in the key store until the last link has its end, and what a client of another key
notices: rounds come to it all the time. The links are half WebSocket, half SSE, in a process of their own.
"""

import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from bench._nats import NatsServer
from bench._process import allow_files, cpu_s
from bench._relay import RelayProcess, relay
from bench._report import heading, percentile, table
from bench._rounds import endless
from bench.auth.key_bucket import KeyBucket
from bench.fanout.publisher import Publisher
from bench.fanout.wire import WIRES, BadWire, Wire

_LINKS: Final = 5000
"""Of both relays together, and then of each."""
_RUNS: Final = 3
_RATE: Final = 200
_CALM_S: Final = 4.0
_AROUND_S: Final = 1.0
"""From the change on: the time in which a good client may notice something."""
_PATIENCE_S: Final = 30.0
_AT_ONCE: Final = 64
_CLOSED: Final = b"\x88\x16\x0f\xa1" + b'{"reason":"revoked"}'
"""The close frame of a revoked link, whole: 4001 and its reason."""
_ANSWER: Final = b"\x88\x82\x00\x00\x00\x00\x0f\xa1"
_LAST_CHUNK: Final = b"0\r\n\r\n"
_GAME: Final = "dice"
"""The game of the rounds. Links of the key follow another one: fan-out has a benchmark of its own."""
_ALL: Final = (b"GET /ws ", b"GET /sse?")
_OF_QUIET_GAME: Final = (b"GET /ws/crash ", b"GET /sse/crash?")


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen in one run."""

    last_s: float
    """From the start of the change to the last end."""
    cpu_s: float
    """CPU of both relays meanwhile."""
    calm_s: Sequence[float]
    """Delays of the good client's rounds before the change."""
    around_s: Sequence[float]
    """Those of rounds published within `_AROUND_S` after the change."""


def main(links: int) -> None:
    allow_files(2 * links + 4000)
    heading("Taking a key back", f"python -m bench.auth.revoke {links}")
    rows = []
    with NatsServer() as nats:
        bucket = KeyBucket(nats.url)
        for each in (links // 2, links):
            results = [measure(nats, bucket, each) for _ in range(_RUNS)]
            median = sorted(results, key=lambda result: result.last_s)[_RUNS // 2]
            calm, around = percentile(median.calm_s, 0.99), percentile(median.around_s, 0.99)
            rows.append(
                [
                    f"{each} links on each of two relays",
                    f"**{1000 * median.last_s:.0f} ms**",
                    f"{1e6 * median.cpu_s / (2 * each):.0f} µs",
                    f"{1000 * calm:.1f} ms",
                    f"{1000 * around:.1f} ms",
                    f"**{around / calm:.1f}**",
                ]
            )
    table(
        [
            "",
            "change to last end",
            "CPU of the relays per link",
            "p99 of a good client before",
            "in that second",
            "ratio",
        ],
        rows,
    )


def measure(nats: NatsServer, bucket: KeyBucket, links: int) -> Result:
    """Open so many links to each of two relays, take their key back, and wait for the last end."""
    with bucket.key() as (key_id, secret), _relay(nats) as one, _relay(nats) as two:
        relays = [one, two]
        with _crowd([replace(each, key=secret) for each in relays], links) as crowd:
            good = GoodClient(relays, nats.port)
            good.measure(_CALM_S)
            before = sum(cpu_s(each.pid) for each in relays)
            began = time.monotonic()
            bucket.disable(key_id)
            good.measure(_AROUND_S)
            last = float(crowd.line())
            used = sum(cpu_s(each.pid) for each in relays) - before
            good.close()
    calm = [delay for sent, delay in good.delays if sent < began]
    return Result(last - began, used, calm, [delay for sent, delay in good.delays if began <= sent < began + _AROUND_S])


class GoodClient:
    """A link of another key to each relay; rounds are published at a steady rate meanwhile."""

    def __init__(self, relays: Sequence[RelayProcess], nats_port: int) -> None:
        wire = WIRES[0]
        self._links = [_opened(wire, each.port, wire.request(each.token())) for each in relays]
        self._publisher = Publisher(nats_port)
        rounds = endless(first_id=time.time_ns() // 1000)
        self._rounds = (round_ for round_ in rounds if round_.game_slug == _GAME)
        self.delays: list[tuple[float, float]] = []
        """When a round was published (monotonic), and seconds until it came, for each link."""

    def measure(self, seconds: float) -> None:
        """Publish for so long, and wait for each round on each link."""
        sent: list[tuple[int, float]] = []
        readers = [
            threading.Thread(target=self._read, args=(link, sent, round(seconds * _RATE))) for link in self._links
        ]
        for thread in readers:
            thread.start()
        began = time.monotonic()
        for number in range(round(seconds * _RATE)):
            time.sleep(max(0.0, began + number / _RATE - time.monotonic()))
            round_ = next(self._rounds)
            sent.append((round_.round_id, time.monotonic()))
            self._publisher.publish([round_])
        for thread in readers:
            thread.join(_PATIENCE_S)

    def close(self) -> None:
        for link in self._links:
            link.close()

    def _read(self, link: socket.socket, sent: Sequence[tuple[int, float]], count: int) -> None:
        """Rounds come in the order in which they were published."""
        link.settimeout(_PATIENCE_S)
        number = 0
        while number < count:
            data = link.recv(1 << 16)
            now = time.monotonic()
            if data.startswith(WIRES[0].heartbeat):
                link.sendall(WIRES[0].answer)
            for _ in range(data.count(b'"round_id"')):
                self.delays.append((sent[number][1], now - sent[number][1]))
                number += 1


class Links:
    """Thousands of open links in one process, which waits for their ends."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._held: dict[int, tuple[socket.socket, str]] = {}

    def open(self, port: int, secret: str, links: int, wire: Wire, paths: tuple[bytes, bytes]) -> None:
        """Open links to one port; `paths`: what is replaced in the request, and by what."""
        while links:
            some = min(links, _AT_ONCE)
            request = wire.request(replace(_TARGET, port=port, key=secret).token()).replace(*paths)
            for sock in [_opened(wire, port, request) for _ in range(some)]:
                sock.setblocking(False)
                self._held[sock.fileno()] = (sock, wire.name)
                self._epoll.register(sock, select.EPOLLIN)
            links -= some

    def wait(self) -> float:
        """Wait until all have ended; return when the last one did (monotonic)."""
        last = 0.0
        while self._held:
            for number, _ in self._epoll.poll(_PATIENCE_S):
                sock, name = self._held[number]
                data = os.read(number, 1 << 16)
                if not (_sse_ended(data) if name == "SSE" else _websocket_ended(number, data)):
                    continue
                last = time.monotonic()
                self._epoll.unregister(number)
                sock.close()
                del self._held[number]
        return last


def crowd(secret: str, links: int, ports: Sequence[int]) -> None:
    """Open links to each port, half of each kind, say so, and print when the last one has ended."""
    allow_files(len(ports) * links + 100)
    held = Links()
    for port in ports:
        for number, wire in enumerate(WIRES):
            held.open(port, secret, (links + number) // 2, wire, (_ALL[number], _OF_QUIET_GAME[number]))
    os.nice(10)  # what its many clients do is no work of the relays
    print("open", flush=True)
    print(held.wait(), flush=True)


def _sse_ended(data: bytes) -> bool:
    return not data or data.endswith(_LAST_CHUNK)


def _websocket_ended(number: int, data: bytes) -> bool:
    if data == WIRES[0].heartbeat:
        os.write(number, WIRES[0].answer)
        return False
    if not data.endswith(_CLOSED):
        raise BadWire(f"a WebSocket got {data[-40:]!r} in place of its close frame")
    os.write(number, _ANSWER)
    return True


class _Crowd:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@contextmanager
def _crowd(relays: Sequence[RelayProcess], links: int) -> Iterator[_Crowd]:
    command = [sys.executable, "-m", "bench.auth.revoke", "crowd", str(links), *(str(each.port) for each in relays)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"BENCH_KEY": relays[0].key}
    )
    try:
        found = _Crowd(process)
        if found.line() != "open":
            raise SystemExit("the links could not be opened")
        yield found
    finally:
        process.kill()
        process.wait()


@contextmanager
def _relay(nats: NatsServer) -> Iterator[RelayProcess]:
    with relay(nats.url, RELAY_LINKS_HEARTBEAT_S="55", **KeyBucket.settings) as process:
        yield process


_TARGET: Final = RelayProcess(0, 0, "", 0.0, -1, 0)


def _opened(wire: Wire, port: int, request: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
    sock.sendall(request)
    received = b""
    while wire.opening(received) is None:
        data = sock.recv(1 << 16)
        if not data:
            raise BadWire("closed during the handshake")
        received += data
    return sock


if __name__ == "__main__":
    if sys.argv[1:2] == ["crowd"]:
        crowd(os.environ["BENCH_KEY"], int(sys.argv[2]), [int(port) for port in sys.argv[3:]])
    else:
        main(int(sys.argv[1]) if sys.argv[1:] else _LINKS)
