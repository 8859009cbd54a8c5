"""How links look on the wire, from the client's side: pure functions over bytes.

Written from the RFCs and the contract, not from the relay's code, so that it checks the relay independently.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from hpack import Encoder

from rounds import datastream_pb2 as pb

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _SETTINGS, _PING, _WINDOW_UPDATE = 0, 1, 4, 6, 8
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_WIDE: Final = 2**31 - 1


class BadWire(Exception):
    """The relay sent something that the contract does not allow."""


class Rest(NamedTuple):
    """What a link has received and cannot use yet. Equal rests and equal bytes mean the same."""

    content: bytes = b""
    """The beginning of a message, taken out of its chunks or frames."""
    raw: bytes = b""
    """The beginning of a chunk or frame."""
    decoder: Any = None
    """What has decompressed everything so far. Equal only to itself: links that have it got the same bytes."""


class Taken(NamedTuple):
    """What some bytes of a link were."""

    messages: list[bytes]
    """Whole messages, without what frames them: the JSON of a round, an event's block, a protobuf message."""
    heartbeats: int
    answer: bytes
    """What the client sends back."""
    rest: Rest


class Wire(Protocol):
    """One protocol."""

    name: str
    needs_key: bool
    """Whether clients send their key; else a stream token."""
    heartbeat: bytes
    """What the relay may send between messages; not a message itself. Empty: nothing that clients can count on."""
    answer: bytes
    """What the client sends back to a heartbeat."""

    def request(self, credential: str) -> bytes:
        """The handshake that asks for all games."""
        ...

    def opening(self, received: bytes) -> int | None:
        """Bytes that belong to the handshake and come before any message; None when more must come.

        Raises:
            BadWire: The relay refused.
        """
        ...

    def take(self, rest: Rest, data: bytes) -> Taken:
        """Go through bytes that came after `rest`, however they were cut into chunks, frames and reads.

        Raises:
            BadWire: They are not what the protocol allows here.
        """
        ...

    def framed(self, messages: Sequence[bytes]) -> bytes:
        """The bytes of a write that delivers these messages."""
        ...

    def message_end(self, data: bytes, start: int) -> int | None:
        """Where the frame or chunk that begins at `start` ends; None when more must come."""
        ...

    def round_of(self, message: bytes) -> dict[str, Any]:
        """The round in one message, and its cursor; raise `BadWire` if there is none."""
        ...


class WebSocket:
    """RFC 6455, without compression."""

    name = "WebSocket"
    needs_key = False
    heartbeat = b"\x89\x00"
    answer = b"\x8a\x80\x00\x00\x00\x00"  # a masked pong; a mask of zeros changes nothing

    def request(self, credential: str) -> bytes:
        return (
            "GET /ws HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: YSBiZW5jaCwgbm8gbmFtZQ==\r\n"
            f"Sec-WebSocket-Protocol: {credential}\r\n\r\n"
        ).encode()

    def opening(self, received: bytes) -> int | None:
        return _head_end(received, b"HTTP/1.1 101 ")

    def take(self, rest: Rest, data: bytes) -> Taken:
        data = rest.raw + data
        messages, heartbeats, start = [], 0, 0
        while (end := self.message_end(data, start)) is not None:
            if data[start] == 0x81:  # the last frame of a text message, and its first
                size = data[start + 1]
                messages.append(data[start + (2 if size < 126 else 4 if size == 126 else 10) : end])
            elif data[start:end] == self.heartbeat:
                heartbeats += 1
            else:
                raise BadWire(f"not one whole text frame: {data[start:end][:20]!r}")
            start = end
        return Taken(messages, heartbeats, heartbeats * self.answer, Rest(raw=data[start:]))

    def framed(self, messages: Sequence[bytes]) -> bytes:
        return b"".join(
            (b"\x81\x7e%b%b" % (len(message).to_bytes(2, "big"), message))
            if len(message) > 125
            else b"\x81%c%b" % (len(message), message)
            for message in messages
        )

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
        return _object(message)


class EventStream:
    """``text/event-stream`` in HTTP/1.1 chunks, of any number of blocks."""

    name = "SSE"
    needs_key = False
    heartbeat = b"3\r\n:\n\n\r\n"
    answer = b""

    def request(self, credential: str) -> bytes:
        return f"GET /sse?token={credential} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n\r\n".encode()

    def opening(self, received: bytes) -> int | None:
        head = _head_end(received, b"HTTP/1.1 200 ")
        return None if head is None else self.message_end(received, head)  # the first chunk: retry and a comment

    def take(self, rest: Rest, data: bytes) -> Taken:
        data, parts, start = rest.raw + data, [rest.content], 0
        while (end := self.message_end(data, start)) is not None:
            parts.append(data[data.index(b"\r\n", start) + 2 : end - 2])
            start = end
        messages, heartbeats = [], 0
        *blocks, content = b"".join(parts).split(b"\n\n")
        for block in blocks:
            fields, comments = self._fields(block)
            heartbeats += comments
            if b"data" in fields:  # else it is a place alone
                messages.append(b"id: %b\ndata: %b" % (fields.pop(b"id", b""), fields.pop(b"data")))
                if fields:
                    raise BadWire(f"not one block of id and data: {block[:80]!r}")
        if content.startswith((b":", b"id")) and b"\n" in content:  # what came before a block
            lines, _, content = content.rpartition(b"\n")
            fields, comments = self._fields(lines)
            heartbeats += comments
            content = b"".join(b"%b: %b\n" % field for field in fields.items()) + content
        return Taken(messages, heartbeats, b"", Rest(content, data[start:]))

    def _fields(self, lines: bytes) -> tuple[dict[bytes, bytes], int]:
        """Return the last value of each field, and the number of comments."""
        split = [line.split(b": ", 1) for line in lines.split(b"\n") if not line.startswith(b":")]
        return {name: value for name, *rest in split for value in rest}, lines.count(b"\n") + 1 - len(split)

    def framed(self, messages: Sequence[bytes]) -> bytes:
        return b"".join(b"%x\r\n%b\n\n\r\n" % (len(message) + 2, message) for message in messages)

    def message_end(self, data: bytes, start: int) -> int | None:
        line_end = data.find(b"\r\n", start, start + 20)
        if line_end < 0:
            return None
        end = line_end + 2 + int(data[start:line_end], 16) + 2
        return end if end <= len(data) else None

    def round_of(self, message: bytes) -> dict[str, Any]:
        id_, _, data = message.partition(b"\n")
        round_ = _object(data.removeprefix(b"data: "))
        if id_.removeprefix(b"id: ").decode() != round_["cursor"]:
            raise BadWire(f"{id_!r} is not the cursor {round_['cursor']!r}")
        return round_


class Grpc:
    """gRPC over HTTP/2 (RFC 9113), one stream on each connection, with windows that never fill."""

    name = "gRPC"
    needs_key = True
    heartbeat = b""
    answer = b""

    def request(self, credential: str) -> bytes:
        return greeting("/datastream.DataStream/StreamAll", credential)

    def opening(self, received: bytes) -> int | None:
        """Nothing of what comes before: pings and settings have to be answered, by `take`."""
        start = 0
        while (end := self.message_end(received, start)) is not None:
            if received[start + 3] == _HEADERS:
                return 0
            start = end
        return None

    def take(self, rest: Rest, data: bytes) -> Taken:
        data, parts, answers, start = rest.raw + data, [rest.content], list[bytes](), 0
        while (end := self.message_end(data, start)) is not None:
            kind, flags = data[start + 3], data[start + 4]
            if kind == _DATA:
                parts.append(data[start + 9 : end])
            elif kind in (_PING, _SETTINGS) and not flags & _ACK:
                answers.append(frame(kind, _ACK, 0, data[start + 9 : end] if kind == _PING else b""))
            elif kind not in (_HEADERS, _PING, _SETTINGS, _WINDOW_UPDATE) or (kind == _HEADERS and flags & _END_STREAM):
                raise BadWire(f"the call was ended: {data[start:end][:80]!r}")
            start = end
        content, at, messages = b"".join(parts), 0, []
        while len(content) - at >= 5:
            end = at + 5 + int.from_bytes(content[at + 1 : at + 5], "big")
            if end > len(content):
                break
            if content[at]:
                raise BadWire("a compressed message, which was not asked for")
            messages.append(content[at + 5 : end])
            at = end
        return Taken(messages, 0, b"".join(answers), Rest(content[at:], data[start:]))

    def framed(self, messages: Sequence[bytes]) -> bytes:
        content = b"".join(struct.pack("!BI", 0, len(message)) + message for message in messages)
        return b"".join(
            frame(_DATA, 0, 1, content[at : at + 16_384])  # the largest frame that no setting is needed for
            for at in range(0, len(content), 16_384)
        )

    def message_end(self, data: bytes, start: int) -> int | None:
        if len(data) - start < 9:
            return None
        end = start + 9 + int.from_bytes(data[start : start + 3], "big")
        return end if end <= len(data) else None

    def round_of(self, message: bytes) -> dict[str, Any]:
        round_ = pb.Round.FromString(message)
        return {field.name: value for field, value in round_.ListFields() if field.name != "finished_time"}


WIRES: Final[tuple[Wire, ...]] = (WebSocket(), EventStream())
GRPC: Final[Wire] = Grpc()


def greeting(path: str, key: str, *, streams: int = 1, message: bytes = b"") -> bytes:
    """Return what opens a connection of HTTP/2 and so many gRPC calls on it, each with one request message."""
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "bench"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
    if key:
        headers.append(("x-api-key", key))
    encoder = Encoder()
    parts = [
        _PREFACE,
        frame(_SETTINGS, 0, 0, struct.pack("!HI", 4, _WIDE)),  # the initial window of streams
        frame(_WINDOW_UPDATE, 0, 0, struct.pack("!I", _WIDE - 65_535)),
    ]
    for number in range(1, 2 * streams, 2):
        parts.append(frame(_HEADERS, _END_HEADERS, number, encoder.encode(headers)))
        parts.append(frame(_DATA, _END_STREAM, number, struct.pack("!BI", 0, len(message)) + message))
    return b"".join(parts)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame of HTTP/2."""
    return struct.pack("!BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


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
