"""Thousands of clients that come back at the same moment, each 100 rounds behind: until all have them."""

import statistics
from contextlib import ExitStack
from typing import Final

from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._report import table
from bench.peers.client import Protocol, Streams
from bench.peers.fanout import SERVER_CORE
from bench.peers.servers import Centrifugo, Server, centrifugo, relayed

CLIENTS: Final = 5000
_BEHIND: Final = 100
_TURNS: Final = 3
_KEPT: Final = 1000


def run() -> None:
    """Print how long it takes, and the server's CPU."""
    rows = []
    with ExitStack() as stack:
        nats = stack.enter_context(NatsServer())
        with on_core(SERVER_CORE):
            ours = stack.enter_context(relayed(nats))
            theirs = stack.enter_context(centrifugo(history=_KEPT))
        cases: list[tuple[Server, Protocol]] = [
            (ours, "websocket"),
            (theirs, "websocket"),
            (ours, "sse"),
            (ours, "grpc"),
        ]
        took = [list[tuple[float, float, int]]() for _ in cases]
        for _ in range(_TURNS):
            for case, (server, protocol) in enumerate(cases):
                took[case].append(_storm(server, protocol))
        for (server, protocol), times in zip(cases, took, strict=True):
            took_s, used_s, again = (statistics.median(each) for each in zip(*times, strict=True))
            rows.append([f"{server.name}, {protocol}", f"**{took_s:.2f} s**", f"{used_s:.2f} s", f"{again:,.0f}"])
    heads = ["until all have them", "CPU of the server", "connections opened again"]
    table([f"{CLIENTS:,} clients, {_BEHIND} rounds behind", *heads], rows)


def _storm(server: Server, protocol: Protocol) -> tuple[float, float, int]:
    """Return the seconds until all have what they missed, its CPU seconds, and the connections opened again."""
    after = _place(server)
    first = len(server.published)
    with Streams("websocket") as watching:
        watching.open(server.door("websocket"), 1)
        server.publish(_BEHIND)
        watching.wait(_BEHIND)
    with Streams(protocol) as streams:
        door = server.door(protocol, after=after)
        before_s = cpu_s(server.pid)
        took_s = streams.storm(door, CLIENTS, _BEHIND)
        used_s = cpu_s(server.pid) - before_s
        if set(streams.counts()) != {_BEHIND}:
            raise SystemExit(f"{server.name}: a client got more than {_BEHIND} rounds")
        server.check(protocol, streams.messages(), first)
        return took_s, used_s, streams.retries()


def _place(server: Server) -> str:
    """Publish a round, and return its cursor."""
    with Streams("websocket") as watching:
        watching.open(server.door("websocket"), 1)
        server.publish(1)
        watching.wait(1)
        if isinstance(server, Centrifugo):
            return server.place()
        return str(server.read("websocket", watching.messages()[0])["cursor"])
