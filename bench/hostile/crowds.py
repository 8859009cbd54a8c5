"""Attacks by numbers: idle connections, and clients that never read, leave at once, or have a filter each or no key."""

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import grpc
from grpc_health.v1 import health_pb2

from bench.hostile.sockets import Target, reset, upgrade

_IDLE: Final = 1100
_WATCHES: Final = 1500
_PER_CONNECTION: Final = 100
_UNREAD: Final = 300
_FILTERS: Final = 2000
_PER_TOKEN: Final = 200
"""Links with one token, which is valid for 30 s."""
_SMALL: Final = 4096
_PAUSE_S: Final = 0.05
"""The situation itself: those that are there stay there."""


def idle_sockets(target: Target) -> Iterator[int]:
    """Connections that send nothing, to both ports, replaced when they are closed."""
    return crowd(_IDLE, lambda number: target.connect(port=target.grpc_port if number % 2 else target.port))


def never_reads_ws(target: Target) -> Iterator[int]:
    """WebSocket links that ask for everything and read nothing."""
    token = target.token()
    path = "/ws?last=10000"
    return crowd(_UNREAD, lambda _: target.websocket(token, path, receive_buffer=_SMALL))


def never_reads_sse(target: Target) -> Iterator[int]:
    return crowd(_UNREAD, lambda _: _asked(target, target.head("GET", "/sse?last=10000")))


def never_reads_history(target: Target) -> Iterator[int]:
    request = target.head("GET", "/api/history/crash?limit=1000")
    return crowd(_UNREAD, lambda _: _asked(target, request * 10))


def filters(target: Target) -> Iterator[int]:
    """Links with a filter of their own each, that leave newest first, again and again."""
    while True:
        links: list[socket.socket] = []
        for first in range(0, _FILTERS, _PER_TOKEN):
            with suppress(OSError):  # the relay may have stopped answering
                token = target.token()
                paths = (f"/ws?min_point={number}.5" for number in range(first, first + _PER_TOKEN))
                links.extend(target.websocket(token, path) for path in paths)
        for link in reversed(links):
            reset(link)
            yield 1


def leave_early(target: Target) -> Iterator[int]:
    """Streams that are reset as soon as they were asked for."""
    token = target.token()
    requests = [
        target.head("GET", "/sse/crash?last=1000"),
        upgrade("/ws/crash?last=1000", token),
        target.head("GET", "/api/history/crash?limit=1000"),
    ]
    while True:
        for request in requests:
            with suppress(OSError):
                connection = target.connect()
                connection.sendall(request)
                reset(connection)
                yield 1


def health_watch(target: Target) -> Iterator[int]:
    """``Health.Watch`` without a key, a hundred on each connection."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    watches, calls = [], []
    for _ in range(_WATCHES // _PER_CONNECTION):
        channel = grpc.insecure_channel(f"127.0.0.1:{target.grpc_port}", options=options)
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        watches.append((channel, watch))
    for number in range(_WATCHES):
        calls.append(watches[number % len(watches)][1](health_pb2.HealthCheckRequest()))
        yield 1
    while True:
        yield 0
        time.sleep(_PAUSE_S)


def handshakes(target: Target) -> Iterator[int]:
    """Connections to a port for plaintext HTTP/2 that send the preface and nothing else."""
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"

    def begin(_: int) -> socket.socket:
        connection = target.connect(port=target.grpc_port)
        connection.sendall(preface)
        return connection

    return crowd(_IDLE, begin)


def _asked(target: Target, request: bytes) -> socket.socket:
    connection = target.connect(receive_buffer=_SMALL)
    connection.sendall(request)
    return connection


def crowd(count: int, begin: Callable[[int], socket.socket]) -> Iterator[int]:
    """Hold so many connections; replace those that were closed."""
    held: dict[int, socket.socket] = {}
    while True:
        for number in range(count):
            if number in held and not _is_closed(held[number]):
                continue
            with suppress(OSError):
                held[number] = begin(number)
                held[number].setblocking(False)
                yield 1
        yield 0
        time.sleep(_PAUSE_S)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the peer has ended or reset it; what it has sent stays unread."""
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
