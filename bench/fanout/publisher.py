"""Publish rounds to NATS without an event loop: one socket, and the few commands of the protocol that it needs."""

import socket
from collections.abc import Sequence
from typing import Self

from rounds import Round, log_subject


class Publisher:
    """A connection to nats-server that only publishes."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 5)
        self._sock.sendall(b'CONNECT {"verbose":false,"pedantic":false,"lang":"bench","version":"0"}\r\nPING\r\n')
        answer = b""
        while b"PONG" not in answer:
            answer += self._sock.recv(4096)
        self._sock.settimeout(None)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()

    def publish(self, rounds: Sequence[Round]) -> None:
        """Send rounds to the server in one write."""
        self._answer_pings()
        parts = []
        for round_ in rounds:
            data = round_.to_json()
            parts.append(b"PUB %b %d\r\n%b\r\n" % (log_subject(round_.game_slug).encode(), len(data), data))
        self._sock.sendall(b"".join(parts))

    def _answer_pings(self) -> None:
        try:
            if b"PING" in self._sock.recv(4096, socket.MSG_DONTWAIT):
                self._sock.sendall(b"PONG\r\n")
        except BlockingIOError:
            pass
