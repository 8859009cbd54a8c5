"""Raw connections for attacks: nothing that a library would refuse to send."""

import base64
import http.client
import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import Final

_TIMEOUT_S: Final = 10.0
_LINGER_0: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close sends RST."""


@dataclass(frozen=True, slots=True)
class Target:
    """The relay that is attacked, and what the attacker has."""

    port: int
    grpc_port: int
    key: str

    def connect(self, *, receive_buffer: int | None = None, port: int | None = None) -> socket.socket:
        """Open a connection; `receive_buffer` limits what the kernel takes for it, in bytes."""
        connection = socket.socket()
        connection.settimeout(_TIMEOUT_S)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", port or self.port))
        return connection

    def head(self, method: str, path: str, *lines: str) -> bytes:
        """The head of a request with the attacker's key."""
        return "\r\n".join(
            [f"{method} {path} HTTP/1.1", "Host: relay", f"X-API-Key: {self.key}", *lines, "", ""]
        ).encode()

    def token(self) -> str:
        """Get a stream token; it opens any number of links for 30 s."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_TIMEOUT_S)
        connection.request("POST", "/api/auth/token", headers={"X-API-Key": self.key})
        token = json.loads(connection.getresponse().read())["token"]
        connection.close()
        return str(token)

    def websocket(
        self, token: str, path: str = "/ws/dice", *lines: str, receive_buffer: int | None = None
    ) -> socket.socket:
        """Open a WebSocket link, with more header lines.

        Raises:
            OSError: It was refused, or the relay did not answer.
        """
        connection = self.connect(receive_buffer=receive_buffer)
        connection.sendall(upgrade(path, token, *lines))
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = connection.recv(4096)
            if not data:
                raise ConnectionError("the handshake was cut")
            answer += data
        if b" 101 " not in answer[:20]:
            connection.close()
            raise ConnectionError(answer[:40].decode("latin-1"))
        return connection


def upgrade(path: str, token: str, *more: str) -> bytes:
    """The head of a WebSocket handshake."""
    lines = [f"GET {path} HTTP/1.1", "Host: relay", "Upgrade: websocket", "Connection: Upgrade"]
    lines += ["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}"]
    return "\r\n".join([*lines, *more, f"Sec-WebSocket-Protocol: {token}", "", ""]).encode()


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A client's frame, masked with zeros: six bytes and its payload of at most 125 bytes or 64 KB."""
    size = len(payload)
    head = bytes([fin << 7 | opcode])
    head += bytes([0x80 | size]) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    return head + bytes(4) + payload


def reset(connection: socket.socket) -> None:
    """Leave with an RST, as a process that dies with unread data does."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
    connection.close()
