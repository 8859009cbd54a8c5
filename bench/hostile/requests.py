"""Attacks with requests: pipelined, with huge or slow heads, with bodies that never come or come byte by byte."""

import http.client
import json
import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from bench.hostile.sockets import Target

_PIPELINED: Final = 2000
_HUGE: Final = 1 << 20
_MANY: Final = 300
_BYTE_EVERY_S: Final = 0.01
"""The situation itself: heads that come as slowly as this, for as long as the relay waits."""
_READY_S: Final = 0.1
_CHUNKS: Final = b"1\r\na\r\n" * 20_000
_PROXY: Final = "/api/grpc/datastream.DataStream/GetHistory"


def pipelined(target: Target) -> Iterator[int]:
    """Thousands of requests for the newest round in one write; the answers are read."""
    return _pipeline(target, target.head("GET", "/api/latest/crash"), reads=True)


def pipelined_history(target: Target) -> Iterator[int]:
    return _pipeline(target, target.head("GET", "/api/history/crash?limit=1000"), reads=True)


def pipelined_pages(target: Target) -> Iterator[int]:
    """Pages from all over the log, which no two requests share."""
    connection = http.client.HTTPConnection("127.0.0.1", target.port)
    connection.request("GET", "/api/history/crash?limit=1", headers={"X-API-Key": target.key})
    answer = connection.getresponse()
    epoch, _, head = json.loads(answer.read())[0]["cursor"].partition("-")
    connection.close()
    befores = range(int(head) // 2, int(head), max(1, int(head) // 2 // _PIPELINED))
    requests = [target.head("GET", f"/api/history/crash?limit=500&before={epoch}-{at}") for at in befores]
    return _send(target, b"".join(requests), len(requests), reads=True)


def pipelined_proxy(target: Target) -> Iterator[int]:
    """Pages as JSON of protobuf."""
    body = b'{"game_slug":"crash","limit":1000}'
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    return _pipeline(target, target.head("POST", _PROXY, *lines) + body, reads=True)


def pipelined_unread(target: Target) -> Iterator[int]:
    """The same, and the answers are never read."""
    return _pipeline(target, target.head("GET", "/api/history/crash?limit=1000"), reads=False)


def pipelined_without_key(target: Target) -> Iterator[int]:
    return _pipeline(target, b"GET /api/latest/crash HTTP/1.1\r\nHost: relay\r\n\r\n", reads=True)


def wrong_credentials(target: Target) -> Iterator[int]:
    """Well-formed keys that nobody has, on every protocol of the HTTP port."""
    wrong = Target(target.port, target.grpc_port, f"sk_live_{'7' * 64}")
    paths = (("POST", "/api/auth/token"), ("GET", "/sse/crash"), ("GET", "/ws/crash"), ("POST", _PROXY))
    while True:
        for method, path in paths:
            yield from _once(wrong, wrong.head(method, path, "Content-Length: 0", "Connection: close"))


def huge_heads(target: Target) -> Iterator[int]:
    """A megabyte of header lines on each connection."""
    line = f"X-Junk: {'j' * 4000}\r\n".encode()
    head = b"GET /sse/crash HTTP/1.1\r\nHost: relay\r\n" + line * (_HUGE // len(line))
    while True:
        yield from _once(target, head)


def long_url(target: Target) -> Iterator[int]:
    head = f"GET /sse/crash?games={'a,' * (_HUGE // 2)} HTTP/1.1\r\nHost: relay\r\n\r\n".encode()
    while True:
        yield from _once(target, head)


def slow_heads(target: Target) -> Iterator[int]:
    """Hundreds of connections whose heads come byte by byte."""
    text = b"GET /sse/crash HTTP/1.1\r\nHost: relay\r\nX-Slow: " + b"s" * 10_000
    connections = [target.connect() for _ in range(_MANY)]
    at = 0
    while True:
        for index, connection in enumerate(connections):
            try:
                connection.send(text[at : at + 1])
            except OSError:
                with suppress(OSError):
                    connections[index] = target.connect()
        at = (at + 1) % len(text)
        yield len(connections)
        time.sleep(_BYTE_EVERY_S)


def slow_bodies(target: Target) -> Iterator[int]:
    """Hundreds of requests whose body never comes."""
    heads = [
        target.head(
            "POST", path, "Content-Type: application/json", "Content-Length: 3000000", "Connect-Timeout-Ms: 1000"
        )
        for path in ("/api/auth/token", _PROXY)
    ]
    connections: list[socket.socket] = []
    while True:
        with suppress(OSError):
            connection = target.connect()
            connection.sendall(heads[len(connections) % 2] + b"{")
            connections.append(connection)
            yield 1
        if len(connections) >= _MANY:
            for connection in connections:
                with suppress(OSError):
                    connection.send(b" ")
            yield 0
            time.sleep(_BYTE_EVERY_S)


def small_chunks(target: Target) -> Iterator[int]:
    """Bodies in chunks of one byte."""
    head = target.head("POST", _PROXY, "Content-Type: application/json", "Transfer-Encoding: chunked")
    while True:
        with suppress(OSError), target.connect() as connection:
            connection.sendall(head)
            while True:  # until it is refused
                connection.sendall(_CHUNKS)
                yield len(_CHUNKS) // 6
        yield 0


def _pipeline(target: Target, request: bytes, *, reads: bool) -> Iterator[int]:
    return _send(target, request * _PIPELINED, _PIPELINED, reads=reads)


def _send(target: Target, block: bytes, requests: int, *, reads: bool) -> Iterator[int]:
    """Send a block of so many requests again and again, as fast as the relay takes it."""
    while True:
        try:
            connection = target.connect(receive_buffer=None if reads else 4096)
            connection.setblocking(False)
            at = 0
            while True:
                readable, writable, _ = select.select([connection] if reads else [], [connection], [], _READY_S)
                if writable:
                    at += connection.send(block[at:])
                if at >= len(block):
                    at = 0
                    yield requests
                if readable and not connection.recv(1 << 20):
                    raise ConnectionResetError
                yield 0
        except OSError:
            yield 0


def _once(target: Target, data: bytes) -> Iterator[int]:
    try:
        with target.connect() as connection:
            connection.sendall(data)
            connection.recv(1 << 16)
    except OSError:
        pass  # refused in the middle is what should happen
    yield 1
