"""What a stream adds to the memory of each server: idle, and after rounds."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Final

from bench._nats import NatsServer
from bench._process import on_core, rss_bytes
from bench._report import table
from bench.peers.client import Protocol, Streams
from bench.peers.fanout import SERVER_CORE
from bench.peers.servers import Server, centrifugo, grpc_go, relayed

_FIRST: Final = 200
"""Streams that are not counted, since they load what all share."""
_ROUNDS: Final = 100
_SHARED: Final = 500
"""Streams of one connection."""
_KINDS: Final[tuple[tuple[str, Protocol, int], ...]] = (
    ("websocket", "websocket", 1),
    ("sse", "sse", 1),
    ("grpc", "grpc", 1),
    ("grpc, a further one of a connection", "grpc", _SHARED),
)


def run(count: int) -> None:
    """Print the growth by `count` streams of each kind, of a fresh server each."""
    rows = []
    with NatsServer() as nats:
        for name, protocol, shared in _KINDS:
            makes: list[Callable[[], AbstractContextManager[Server]]] = [lambda: relayed(nats), centrifugo]
            if protocol == "grpc":
                makes.append(grpc_go)
            for make in makes:
                with on_core(SERVER_CORE):
                    running = make()
                    server = running.__enter__()
                try:
                    idle, used = _growth(server, protocol, -(-count // shared) * shared, shared)
                finally:
                    running.__exit__(None, None, None)
                rows.append([name, server.name, f"{idle / 1024:.1f} KB", f"{used / 1024:.1f} KB"])
    table([f"{count:,} streams", "", "idle", f"after {_ROUNDS} rounds"], rows)


def _growth(server: Server, protocol: Protocol, count: int, shared: int) -> tuple[float, float]:
    """Return the bytes by stream."""
    with Streams(protocol) as first, Streams(protocol) as streams:
        first.open(server.door(protocol, per_connection=shared), max(_FIRST, shared))
        server.publish(_ROUNDS)
        first.wait(_ROUNDS)
        before = rss_bytes(server.pid)
        streams.open(server.door(protocol, per_connection=shared), count)
        idle = rss_bytes(server.pid)
        server.publish(_ROUNDS)
        streams.wait(_ROUNDS)
        used = rss_bytes(server.pid)
    return (idle - before) / count, (used - before) / count
