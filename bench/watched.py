"""``python -m bench.watched``: what a relay pays for rounds that nobody watches.

CPU of the relay's process for 1,000 rounds of all games: without links, with one link on one of the 14 games, and with
one on all. What the link gets is checked. The relay has one core to itself; the publisher, nats-server and the client
share the other.
"""

import socket
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Final

from bench._nats import NatsServer
from bench._process import on_core
from bench._relay import RelayProcess, relay
from bench._report import heading, percentile, table
from bench._rounds import endless
from bench.fanout.publisher import Publisher
from bench.fanout.wire import BadWire, Rest, WebSocket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rounds import Round

_GAME: Final = "dice"
_CASES: Final = {"no link": None, "one link on one game of 14": _GAME, "one link on all games": ""}
_WARM_BURSTS: Final = 100
"""Enough to fill the ring."""
_RATES: Final = (200, 1000)
_SPAN_S: Final = 5
_BURST: Final = 100
_BURSTS: Final = 200
_PAUSE_S: Final = 0.005
_PATIENCE_S: Final = 10.0


class Link:
    """A WebSocket link whose thread notes when each round came."""

    def __init__(self, process: RelayProcess, game: str) -> None:
        self._wire = WebSocket()
        self._sock = socket.create_connection(("127.0.0.1", process.port), _PATIENCE_S)
        path = f"/ws/{game}" if game else "/ws"
        self._sock.sendall(self._wire.request(process.token()).replace(b"GET /ws ", f"GET {path} ".encode()))
        received = b""
        while (end := self._wire.opening(received)) is None:
            received += self._sock.recv(4096)
        self._sock.settimeout(None)
        self.came: list[tuple[int, float]] = []
        """Ids of rounds, and when each came (monotonic seconds)."""
        self._thread = threading.Thread(target=self._read, args=(received[end:],), daemon=True)
        self._thread.start()

    def _read(self, data: bytes) -> None:
        rest = Rest()
        while True:
            taken = self._wire.take(rest, data)
            rest, now = taken.rest, time.monotonic()
            self.came += [(self._wire.round_of(message)["round_id"], now) for message in taken.messages]
            try:
                if taken.answer:
                    self._sock.sendall(taken.answer)
                data = self._sock.recv(1 << 16)
            except OSError:
                return
            if not data:
                return

    def wait_for(self, round_id: int) -> None:
        """Wait until a round has come."""
        deadline = time.monotonic() + _PATIENCE_S
        while not self.came or self.came[-1][0] != round_id:
            if time.monotonic() > deadline:
                raise BadWire(f"round {round_id} did not come; the last was {self.came[-1:]}")
            time.sleep(0.001)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._sock.close()


class Traffic:
    """Publishes rounds of all games, and checks what a link got of them."""

    def __init__(self, process: RelayProcess, publisher: Publisher, game: str | None) -> None:
        self._process = process
        self._publisher = publisher
        self._rounds: Iterator[Round] = endless()
        self._game = game
        self._link = None if game is None else Link(process, game)
        self.waits_ms: list[float] = []

    def close(self) -> None:
        if self._link is not None:
            self._link.close()

    def run(self, pieces: int, *, size: int, pause_s: float) -> float:
        """Publish so many pieces of so many rounds; return the relay's CPU for 1,000 rounds, in milliseconds."""
        before_s, start = cpu_s(self._process.pid), time.monotonic()
        sent: list[tuple[int, float]] = []
        for number in range(pieces):
            ahead_s = start + number * pause_s - time.monotonic()
            if ahead_s > 0:
                time.sleep(ahead_s)
            rounds = list(islice(self._rounds, size))
            now = time.monotonic()
            sent += [(r.round_id, now) for r in rounds if self._game in ("", r.game_slug)]
            self._publisher.publish(rounds)
        self._check(sent)
        return 1000 * (cpu_s(self._process.pid) - before_s) / (pieces * size / 1000)

    def _check(self, sent: list[tuple[int, float]]) -> None:
        link = self._link
        if link is None:
            time.sleep(0.5)
            return
        link.wait_for(sent[-1][0])
        came, link.came = link.came, []
        if [round_id for round_id, _ in came] != [round_id for round_id, _ in sent]:
            raise BadWire(f"{len(sent)} rounds of its games were published, and the link got {len(came)}")
        self.waits_ms = [1000 * (at - since) for (_, at), (_, since) in zip(came, sent, strict=True)]


def main() -> None:
    heading("Rounds that nobody watches", "python -m bench.watched")
    rows = []
    with on_core(1), NatsServer() as nats:
        for name, game in _CASES.items():
            with on_core(0):
                running = relay(nats.url)
                process = running.__enter__()
            with Publisher(nats.port) as publisher:
                rows.append([name, *_measure(Traffic(process, publisher, game))])
            running.__exit__(None, None, None)
    table(
        [
            "CPU of the relay for 1,000 rounds of all games",
            *[text for rate in _RATES for text in (f"{rate}/s", "latency p50")],
            f"bursts of {_BURST}",
        ],
        rows,
    )


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, to the nanosecond: see ``CPUCLOCK_SCHED`` of Linux."""
    return time.clock_gettime((~pid << 3) | 2)


def _measure(traffic: Traffic) -> list[str]:
    traffic.run(_WARM_BURSTS, size=_BURST, pause_s=_PAUSE_S)
    cells = []
    for rate in _RATES:
        traffic.run(rate, size=1, pause_s=1 / rate)
        used_ms = traffic.run(rate * _SPAN_S, size=1, pause_s=1 / rate)
        latency = f"{percentile(traffic.waits_ms, 0.5):.2f} ms" if traffic.waits_ms else ""
        cells += [f"**{used_ms:.1f} ms**", latency]
    cells.append(f"{traffic.run(_BURSTS, size=_BURST, pause_s=_PAUSE_S):.1f} ms")
    traffic.close()
    return cells


if __name__ == "__main__":
    main()
