"""How links look on the wire, from the client's side: pure functions over bytes.

Written from the RFCs and the contract, not from the relay's code, so that it checks the relay independently.
"""

import json
from typing import Any, Final, Protocol


class BadWire(Exception):
    """The relay sent something that the contract does not allow."""


class Wire(Protocol):
    """One protocol."""

    name: str
    heartbeat: bytes
    """What the relay may send between messages; not a message itself."""
    answer: bytes
    """What the client sends back to a heartbeat."""

    def request(self, token: str) -> bytes:
        """The handshake that asks for all games."""
        ...

    def opening(self, received: bytes) -> int | None:
        """Bytes that belong to the handshake and come before any message; None when more must come.

        Raises:
            BadWire: The relay refused.
        """
        ...

    def message_end(self, data: bytes, start: int) -> int | None:
        """Where the message that begins at `start` ends; None when more must come."""
        ...

    def round_of(self, message: bytes) -> dict[str, Any]:
        """The round in one whole message; raise `BadWire` if there is none."""
        ...


class WebSocket:
    """RFC 6455, without compression."""

    name = "WebSocket"
    heartbeat = b"\x89\x00"
    answer = b"\x8a\x80\x00\x00\x00\x00"  # a masked pong; a mask of zeros changes nothing

    def request(self, token: str) -> bytes:
        return (
            "GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YSBiZW5jaCwgbm8gbmFtZQ==\r\n"
            f"Sec-WebSocket-Protocol: {token}\r\n\r\n"
        ).encode()

    def opening(self, received: bytes) -> int | None:
        return _head_end(received, b"HTTP/1.1 101 ")

    def message_end(self, data: bytes, start: int) -> int | None:
        head = data[start : start + 10]
        if len(head) < 2:
            return None
        size, head_bytes = head[1], 2
        if size == 126:
            size, head_bytes = int.from_bytes(head[2:4], "big"), 4
        elif size == 127:
            size, head_bytes = int.from_bytes(head[2:10], "big"), 10
        end = start + head_bytes + size
        return end if len(head) >= head_bytes and end <= len(data) else None

    def round_of(self, message: bytes) -> dict[str, Any]:
        if message[0] != 0x81:
            raise BadWire(f"not one whole text frame: {message[:20]!r}")
        return _object(message[2 if message[1] < 126 else 4 if message[1] == 126 else 10 :])


class EventStream:
    """``text/event-stream`` in HTTP/1.1 chunks, one block in each."""

    name = "SSE"
    heartbeat = b"3\r\n:\n\n\r\n"
    answer = b""

    def request(self, token: str) -> bytes:
        return f"GET /sse?token={token} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n".encode()

    def opening(self, received: bytes) -> int | None:
        head = _head_end(received, b"HTTP/1.1 200 ")
        return None if head is None else self.message_end(received, head)  # the first chunk: retry and a comment

    def message_end(self, data: bytes, start: int) -> int | None:
        line_end = data.find(b"\r\n", start, start + 20)
        if line_end < 0:
            return None
        end = line_end + 2 + int(data[start:line_end], 16) + 2
        return end if end <= len(data) else None

    def round_of(self, message: bytes) -> dict[str, Any]:
        block = message.partition(b"\r\n")[2].removesuffix(b"\r\n")
        identity, _, data = block.partition(b"\n")
        if not (identity.startswith(b"id: ") and data.startswith(b"data: ") and data.endswith(b"\n\n")):
            raise BadWire(f"not one block of id and data: {block[:80]!r}")
        round_ = _object(data[6:-2])
        if identity[4:].decode() != round_["cursor"]:
            raise BadWire(f"id {identity!r} is not the cursor {round_['cursor']!r}")
        return round_


WIRES: Final[tuple[Wire, ...]] = (WebSocket(), EventStream())


def _head_end(received: bytes, status: bytes) -> int | None:
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    if not received.startswith(status):
        raise BadWire(f"handshake refused: {received[:300]!r}")
    return end + 4


def _object(text: bytes) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise BadWire(f"not an object: {text[:80]!r}")
    return value
