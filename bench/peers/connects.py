"""New streams by CPU-second of each server, with one credential for all of them, and with a fresh one for each."""

from contextlib import ExitStack
from typing import Final

from bench._nats import NatsServer
from bench._process import cpu_s, on_core
from bench._report import table
from bench.peers.client import Protocol, Streams
from bench.peers.fanout import SERVER_CORE
from bench.peers.servers import Server, centrifugo, grpc_go, relayed

_TURNS: Final = 4
_PROTOCOLS: Final[tuple[Protocol, ...]] = ("websocket", "sse", "grpc")
_FIRST: Final = 50
"""Streams that are not counted, since they load what is needed."""


def run(count: int) -> None:
    """Print the figures of `count` streams of each protocol."""
    rows = []
    with ExitStack() as stack:
        with on_core(SERVER_CORE):
            nats = stack.enter_context(NatsServer())
            servers: list[Server] = [
                stack.enter_context(relayed(nats)),
                stack.enter_context(centrifugo()),
                stack.enter_context(grpc_go()),
            ]
        for protocol in _PROTOCOLS:
            for is_fresh in (False, True):
                if is_fresh and protocol == "grpc":
                    continue  # our clients send their key, those of grpc-go nothing
                present = [server for server in servers if protocol in server.protocols]
                used_s = dict.fromkeys(present, 0.0)
                for turn in range(_TURNS + 1):
                    for server in present:
                        spent_s = _opened(server, protocol, count if turn else _FIRST, is_fresh=is_fresh)
                        used_s[server] += spent_s if turn else 0
                speeds = {server: _TURNS * count / used for server, used in used_s.items()}
                ours = speeds[present[0]]
                credential = "a fresh token each" if is_fresh else "a key" if protocol == "grpc" else "one token"
                for server, speed in speeds.items():
                    ratio = "" if server is present[0] else f"**{ours / speed:.2f}**"
                    rows.append([f"{protocol}, {credential}", server.name, f"{speed:,.0f}", ratio])
    table([f"{count:,} new streams", "", "by CPU-second", "we ÷ it"], rows)


def _opened(server: Server, protocol: Protocol, count: int, *, is_fresh: bool) -> float:
    """Open so many streams, and close them; return the CPU seconds of the server until all were open."""
    with Streams(protocol) as streams:
        door = server.door(protocol, fresh=count if is_fresh else 0)
        before_s = cpu_s(server.pid)
        streams.open(door, count)
        return cpu_s(server.pid) - before_s
