"""Send the same request many times over plain sockets, and read the status of each answer."""

import socket
from collections.abc import Sequence
from typing import Final

_AT_ONCE: Final = 16
"""Requests in flight: a busy server has several in a turn of its loop."""
_DEADLINE_S: Final = 30.0


class Requests:
    """Connections to one server, opened when they are needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[socket.socket] = []

    def send(self, request: bytes, count: int, *, status: int, connection: bool) -> None:
        """Send `request` `count` times, some at once; with `connection` each on a connection of its own.

        Raises:
            SystemExit: An answer has another status.
        """
        for _ in range(count // _AT_ONCE):
            links = [self._take() for _ in range(_AT_ONCE)]
            for link in links:
                link.sendall(request)
            for link in links:
                head, closes = _answer(link, upgrade=status == 101)
                found = int(head[9:12])
                if found != status:
                    raise SystemExit(f"status {found} in place of {status}: {head[:200]!r}")
                if connection or closes:
                    link.close()
                else:
                    self._open.append(link)

    def send_each(self, requests: Sequence[bytes], *, status: int) -> None:
        """Send each request on a connection of its own, some at once; close it when the head of the answer came."""
        for at in range(0, len(requests), _AT_ONCE):
            some = requests[at : at + _AT_ONCE]
            links = [socket.create_connection(("127.0.0.1", self._port), timeout=_DEADLINE_S) for _ in some]
            for link, request in zip(links, some, strict=True):
                link.sendall(request)
            for link in links:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += _more(link)
                if int(data[9:12]) != status:
                    raise SystemExit(f"status {data[9:12]!r} in place of {status}: {data[:200]!r}")
                link.close()

    def close(self) -> None:
        """Close the connections."""
        while self._open:
            self._open.pop().close()

    def _take(self) -> socket.socket:
        if self._open:
            return self._open.pop(0)
        return socket.create_connection(("127.0.0.1", self._port), timeout=_DEADLINE_S)


def _answer(link: socket.socket, *, upgrade: bool) -> tuple[bytes, bool]:
    """Read one answer; return its head, and whether the server closes the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _more(link)
    head, _, body = data.partition(b"\r\n\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))}
    missing = 0 if upgrade else int(fields[b"content-length"]) - len(body)
    while missing > 0:
        missing -= len(_more(link))
    return head, fields.get(b"connection", b"").lower() == b"close"


def _more(link: socket.socket) -> bytes:
    data = link.recv(1 << 16)
    if not data:
        raise SystemExit("the server has closed the connection before its answer")
    return data
