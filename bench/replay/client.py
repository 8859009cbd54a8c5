"""A client that replays and checks every byte, for little CPU: a raw socket and one comparison per read."""

import socket
import time
from typing import Final

from bench.fanout.wire import BadWire, Wire

_READ_BYTES: Final = 1 << 20
_PATIENCE_S: Final = 30.0


def greeting(wire: Wire, token: str, after: str) -> bytes:
    """The handshake that asks for all games after a cursor."""
    path, _, rest = wire.request(token).partition(b" HTTP/1.1")
    return b"%b%bafter=%b HTTP/1.1%b" % (path, b"&" if b"?" in path else b"?", after.encode(), rest)


def opening_end(wire: Wire, received: bytes) -> int | None:
    """Where the handshake and ``hello`` end and rounds begin; None when more must come."""
    start = wire.opening(received)
    return None if start is None else wire.message_end(received, start)


class ReplayClient:
    """One link that replays after a cursor."""

    def __init__(self, wire: Wire, port: int, token: str, after: str) -> None:
        self._wire = wire
        self._sock = socket.create_connection(("127.0.0.1", port), _PATIENCE_S)
        self._sock.sendall(greeting(wire, token, after))

    def close(self) -> None:
        self._sock.close()

    def fileno(self) -> int:
        return self._sock.fileno()

    def discard(self) -> bool:
        """Read what there is and discard it; False when the relay has ended the link."""
        return bool(self._sock.recv(_READ_BYTES))

    def receive(self, expected: bytes) -> float:
        """Read until all of `expected` has come; return when it had (monotonic).

        Raises:
            BadWire: Something else came, or the link ended.
        """
        received, position = b"", 0
        while (start := opening_end(self._wire, received)) is None:
            received += self._read()
        data = received[start:]
        while True:
            if not expected.startswith(data, position):
                data = self._without_heartbeat(expected, position, data)
            elif (position := position + len(data)) == len(expected):
                return time.monotonic()
            else:
                data = self._read()

    def _without_heartbeat(self, expected: bytes, position: int, data: bytes) -> bytes:
        """Take a heartbeat out of `data` and answer it; there is one where it first differs from what is expected."""
        low, high = 0, len(data)
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (middle, high) if expected.startswith(data[:middle], position) else (low, middle)
        heartbeat = self._wire.heartbeat
        while heartbeat.startswith(data[low:]) and data[low:] != heartbeat:
            data += self._read()
        if not data.startswith(heartbeat, low):
            raise BadWire(f"other bytes than expected after byte {position + low}: {data[low : low + 300]!r}")
        self._sock.sendall(self._wire.answer)
        return data[:low] + data[low + len(heartbeat) :]

    def _read(self) -> bytes:
        data = self._sock.recv(_READ_BYTES)
        if not data:
            raise BadWire("the relay closed the link")
        return data
