"""A WebSocket client that follows no rules of its own: for frames that proper libraries refuse to send.

RFC 6455 by hand on a blocking socket. Every read has a deadline.
"""

import base64
import os
import socket
import struct
from types import TracebackType
from typing import Final, NamedTuple, Self

from tests.clients.live_relay import LiveRelay

CONTINUATION: Final = 0x0
TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA
_DEADLINE_S: Final = 30.0


class Frame(NamedTuple):
    """A frame as received, not inflated."""

    opcode: int
    payload: bytes


class Closed(NamedTuple):
    """Code and reason of the close frame; code None when the connection was cut without one."""

    code: int | None
    reason: str


class RawWebSocket:
    """An open connection. Leaving the block cuts it without a close frame."""

    def __init__(
        self, relay: LiveRelay, path: str, *, receive_buffer: int | None = None, compress: bool = False
    ) -> None:
        """Open a WebSocket with a fresh token; `receive_buffer` limits the kernel's receive buffer, in bytes."""
        self.socket = socket.socket()
        self.socket.settimeout(_DEADLINE_S)
        if receive_buffer is not None:  # before connect: it sets the window offered to the peer
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", relay.port))
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: 127.0.0.1:{relay.port}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
            f"Sec-WebSocket-Protocol: {relay.token()}",
        ]
        if compress:
            lines.append("Sec-WebSocket-Extensions: permessage-deflate")
        self.socket.sendall("\r\n".join([*lines, "", ""]).encode())
        self._buffer = b""
        self.answer = self._until(b"\r\n\r\n").decode()
        assert self.answer.startswith("HTTP/1.1 101"), self.answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def send(self, opcode: int, payload: bytes, *, fin: bool = True, rsv: int = 0, mask: bool = True) -> None:
        """Send one frame, valid or not."""
        head = bytes([fin << 7 | rsv << 4 | opcode])
        size = len(payload)
        if size < 126:
            head += bytes([mask << 7 | size])
        elif size < 65536:
            head += struct.pack("!BH", mask << 7 | 126, size)
        else:
            head += struct.pack("!BQ", mask << 7 | 127, size)
        if mask:
            key = os.urandom(4)
            head += key
            payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
        self.socket.sendall(head + payload)

    def frame(self) -> Frame:
        """Read the next frame.

        Raises:
            ConnectionError: The relay has cut the connection.
        """
        first, second = self._exactly(2)
        size = second & 0x7F
        if size == 126:
            [size] = struct.unpack("!H", self._exactly(2))
        elif size == 127:
            [size] = struct.unpack("!Q", self._exactly(8))
        return Frame(first & 0x0F, self._exactly(size))

    def closed(self) -> Closed:
        """Read until the relay ends the connection; return its close frame."""
        try:
            while True:
                opcode, payload = self.frame()
                if opcode == CLOSE:
                    return Closed(int.from_bytes(payload[:2], "big"), payload[2:].decode())
        except ConnectionError:
            return Closed(None, "")

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _until(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._more()
        taken, _, self._buffer = self._buffer.partition(end)
        return taken

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the relay ended the connection")
        self._buffer += data
