"""Many clients that reconnect at the same moment with the cursors they had: seconds until all are live again."""

import errno
import select
import socket
import time
from collections.abc import Mapping
from typing import Final

from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._relay import RelayProcess, relay
from bench._report import table
from bench.fanout.fleet import Fleet
from bench.fanout.wire import WIRES, BadWire, Wire
from bench.replay.client import greeting
from bench.replay.filled_log import FilledLog
from bench.replay.scrape import scrape
from relay.http.monitoring.scrapes import FRESH_S

_CLIENTS: Final = 1000
_BEHIND: Final = 100
_REPEATS: Final = 3
_PATIENCE_S: Final = 60.0
_READ_BYTES: Final = 1 << 16
_COUNTERS: Final = {
    "memory": 'relay_resumes_total{source="memory"}',
    "log": 'relay_resumes_total{source="log"}',
    "requests": "relay_log_requests_total",
}


def run(nats: NatsServer, log: FilledLog, *, relay_core: int, client_core: int) -> None:
    """Print how long it takes with a relay that ran before, and with one that has just started."""
    rows = []
    for wire in WIRES:
        for is_warm in (True, False):
            best: tuple[float, list[str]] | None = None
            for _ in range(_REPEATS):
                with on_core(relay_core), relay(nats.url) as process, on_core(client_core):
                    if is_warm:
                        _fill_memory(log, process)
                    result = _storm(wire, log, process)
                best = result if best is None else min(best, result)
            assert best is not None
            rows.append([f"{wire.name}, relay {'that ran before' if is_warm else 'just started'}", *best[1]])
    header = [f"{_CLIENTS} clients, {_BEHIND} rounds behind", "all live again", "relay's CPU", "from memory"]
    table([*header, "from the log", "NATS reads"], rows)


def _fill_memory(log: FilledLog, process: RelayProcess) -> None:
    """Publish as many rounds as clients will be behind, so that the relay has them in memory."""
    wire = WIRES[0]
    watcher = Fleet(wire)
    watcher.connect(process.port, 1, lambda: wire.request(process.token()))
    log.publish(_BEHIND + 1)
    watcher.receive(_BEHIND + 1)
    watcher.close()


def _storm(wire: Wire, log: FilledLog, process: RelayProcess) -> tuple[float, list[str]]:
    """All connect at once and must get the rounds they miss; then a live one must reach all of them."""
    log.wait_stored()
    missed = log.stream(wire, after=log.count - _BEHIND, count=_BEHIND)
    hello = greeting(wire, process.token(), log.cursor(log.count - _BEHIND))
    before, before_cpu_s = _counters(process), cpu_s(process.pid)
    begun = time.monotonic()
    sockets = [_connecting(process.port) for _ in range(_CLIENTS)]
    _receive(wire, sockets, hello, missed)
    took_s = time.monotonic() - begun
    used_s = cpu_s(process.pid) - before_cpu_s
    time.sleep(FRESH_S)
    after = _counters(process)
    log.publish(1)
    _receive(wire, sockets, b"", log.stream(wire, after=log.count - 1, count=1))
    for sock in sockets:
        sock.close()
    counted = [f"{after[name] - before[name]:,.0f}" for name in _COUNTERS]
    return took_s, [f"**{took_s:.2f} s**", f"{used_s:.2f} s", *counted]


def _counters(process: RelayProcess) -> Mapping[str, float]:
    numbers = scrape(process)
    return {name: numbers[metric] for name, metric in _COUNTERS.items()}


def _connecting(port: int) -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    refused = sock.connect_ex(("127.0.0.1", port))
    if refused not in (0, errno.EINPROGRESS):
        raise OSError(refused, "cannot connect")
    return sock


def _receive(wire: Wire, sockets: list[socket.socket], request: bytes, tail: bytes) -> None:
    """Send `request` on each as soon as it is connected; return when each has received `tail`."""
    poll = select.epoll()
    received = {sock.fileno(): bytearray() for sock in sockets}
    by_number = {sock.fileno(): sock for sock in sockets}
    for sock in sockets:
        poll.register(sock, select.EPOLLOUT if request else select.EPOLLIN)
    waiting, deadline = len(sockets), time.monotonic() + _PATIENCE_S
    while waiting:
        if time.monotonic() > deadline:
            most = max(received.values(), key=len)
            raise BadWire(f"{waiting} clients are not live after {_PATIENCE_S:g} s; one has: {bytes(most[-300:])!r}")
        for number, event in poll.poll(1):
            if event & select.EPOLLOUT:
                by_number[number].send(request)
                poll.modify(number, select.EPOLLIN)
                continue
            data = by_number[number].recv(_READ_BYTES)
            if not data:
                raise BadWire(f"the relay ended a link: {bytes(received[number][-300:])!r}")
            received[number] += data
            # No round contains the bytes of a heartbeat; one with the client's place may follow the last round.
            if tail in received[number].replace(wire.heartbeat, b""):
                waiting -= 1
                poll.unregister(number)
    poll.close()
