"""gRPC streams in one process, for little CPU: raw sockets, one epoll, and the few frames of HTTP/2 that they need.

Each stream has a connection of its own, as clients do. Messages are counted, not parsed: only the five bytes before
each are read.
"""

import hashlib
import select
import socket
import struct
import time
from collections.abc import Callable, Iterable
from typing import Final, Self

from bench.fanout.wire import frame, greeting

_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY = 0, 1, 3, 4, 6, 7
_ACK: Final = 1
_END_STREAM: Final = 1
_READ_BYTES: Final = 1 << 18
_PATIENCE_S: Final = 60.0


class _Connection:
    """A connection with one stream on it, and counts of what it received."""

    __slots__ = ("_buffer", "answered", "digest", "ended", "messages", "received", "sock")

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
        self.messages = 0
        self.received = 0
        self.digest = hashlib.blake2b()
        """Of all bytes of messages, prefixes included."""
        self.answered = False
        self.ended = False
        self._buffer = b""


class _Stream(_Connection):
    """A stream over HTTP/2."""

    __slots__ = ("_message_left", "_prefix")

    def __init__(self, port: int, path: str, key: str, request: bytes) -> None:
        super().__init__(port)
        self._message_left = 0
        self._prefix = b""
        self.sock.sendall(greeting(path, key, message=request))

    def take(self, data: bytes) -> None:
        """Go through what was received, frame by frame."""
        if self._buffer:
            data = self._buffer + data
        at = 0
        while len(data) - at >= 9:
            size = int.from_bytes(data[at : at + 3], "big")
            kind, flags = data[at + 3], data[at + 4]
            end = at + 9 + size
            if len(data) < end:
                break
            if kind == _DATA:
                self._count(data, at + 9, end)
            elif kind == _HEADERS:
                self.answered = True
                self.ended = bool(flags & _END_STREAM)
            elif kind in (_PING, _SETTINGS) and not flags & _ACK:
                self.sock.sendall(frame(kind, _ACK, 0, data[at + 9 : end] if kind == _PING else b""))
            elif kind in (_RST, _GOAWAY):
                raise ConnectionError(f"the server ended a stream: {data[at:end]!r}")
            at = end
        self._buffer = data[at:]

    def _count(self, data: bytes, at: int, end: int) -> None:
        self.received += end - at
        self.digest.update(data[at:end])
        while at < end:
            if self._message_left:
                taken = min(self._message_left, end - at)
                self._message_left -= taken
                at += taken
            else:
                taken = min(5 - len(self._prefix), end - at)
                self._prefix += data[at : at + taken]
                at += taken
                if len(self._prefix) < 5:
                    return
                self._message_left = int.from_bytes(self._prefix[1:], "big")
                self._prefix = b""
            if not self._message_left:
                self.messages += 1


class _ProxyStream(_Connection):
    """A stream of the HTTP proxy, by the Connect protocol."""

    __slots__ = ()

    def __init__(self, port: int, path: str, key: str, request: bytes) -> None:
        super().__init__(port)
        body = struct.pack("!BI", 0, len(request)) + request
        # HTTP/1.0: what follows the headers is the stream itself, not in chunks.
        head = f"POST {path} HTTP/1.0\r\nX-API-Key: {key}\r\nContent-Type: application/connect+proto\r\n"
        self.sock.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def take(self, data: bytes) -> None:
        """Count the messages in what was received."""
        data = self._buffer + data
        at = 0
        if not self.answered:
            head, found, _ = data.partition(b"\r\n\r\n")
            if not found:
                self._buffer = data
                return
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise ConnectionError(f"the proxy answered {head!r}")
            self.answered = True
            at = len(head) + 4
        while len(data) - at >= 5:
            end = at + 5 + int.from_bytes(data[at + 1 : at + 5], "big")
            if len(data) < end:
                break
            self.ended = bool(data[at])
            self.messages += not self.ended
            self.received += end - at
            if not self.ended:
                self.digest.update(data[at:end])
            at = end
        self._buffer = data[at:]


class Streams:
    """Many streams, open until the block ends."""

    def __init__(self, port: int, count: int, *, path: str, key: str, request: bytes, proxy: bool = False) -> None:
        """Open `count` streams over HTTP/2, or as plain HTTP requests of the `proxy`."""
        self._epoll = select.epoll()
        self._streams: dict[int, _Stream | _ProxyStream] = {}
        for _ in range(count):
            stream = (_ProxyStream if proxy else _Stream)(port, path, key, request)
            self._streams[stream.sock.fileno()] = stream
            self._epoll.register(stream.sock.fileno(), select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in self._streams.values():
            stream.sock.close()
        self._epoll.close()

    @property
    def messages(self) -> int:
        """Messages received on all streams together."""
        return sum(stream.messages for stream in self._streams.values())

    @property
    def received_bytes(self) -> int:
        return sum(stream.received for stream in self._streams.values())

    def check(self, expected: Iterable[bytes]) -> None:
        """Compare the bytes of each stream with those of the messages that were sent, prefixes included."""
        digest = hashlib.blake2b()
        for message in expected:
            digest.update(message)
        if any(stream.digest.digest() != digest.digest() for stream in self._streams.values()):
            raise ConnectionError("a stream got other bytes than were sent")

    def receive(self, each: int) -> float:
        """Read until every stream has had so many messages since the start; return when (monotonic seconds)."""
        return self._read_until(lambda stream: stream.messages >= each)

    def receive_all(self) -> float:
        """Read until every stream has ended; return when."""
        return self._read_until(lambda stream: stream.ended)

    def opened(self) -> None:
        """Read until every stream has been answered: by then the server follows what it will send."""
        self._read_until(lambda stream: stream.answered)

    def _read_until(self, is_done: Callable[[_Connection], bool]) -> float:
        waiting = {number for number, stream in self._streams.items() if not is_done(stream)}
        while waiting:
            events = self._epoll.poll(_PATIENCE_S)
            if not events:
                raise ConnectionError(f"{len(waiting)} streams waited for {_PATIENCE_S:.0f} s")
            for number, _ in events:
                stream = self._streams[number]
                data = stream.sock.recv(_READ_BYTES)
                if not data:
                    raise ConnectionError("the server closed a connection")
                stream.take(data)
                if number in waiting and is_done(stream):
                    waiting.discard(number)
        return time.monotonic()
