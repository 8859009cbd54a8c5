"""Read the frames of a WebSocket client (RFC 6455, RFC 7692): bytes in, whole messages out. Pure.

Owns every rule about what a client may put on the wire. Clients of ours say little, so this is made for few and small
messages; what is written to them is in `relay.live.encode`.
"""

import zlib
from enum import IntEnum
from typing import Final, NamedTuple

_FIN: Final = 0x80
_RSV1: Final = 0x40
_RSV23: Final = 0x30
_MASKED: Final = 0x80
_TAIL: Final = b"\x00\x00\xff\xff"
"""The end of a deflate block, which RFC 7692 section 7.2.1 leaves out."""


class Opcode(IntEnum):
    """What a frame is (RFC 6455 section 5.2)."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class Message(NamedTuple):
    """A whole message, or a control frame."""

    opcode: Opcode
    data: bytes  # of a text: valid UTF-8; of a close: its code in two bytes, then the reason; or nothing


class FrameError(Exception):
    """The client broke the protocol; the connection is to be closed with `code`."""

    def __init__(self, code: int, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code, self.sentence = code, sentence


class FrameReader:
    """Takes what arrives in any pieces. Bounded: never holds more than one message of the largest size allowed."""

    __slots__ = ("_buffer", "_compressed", "_deflate", "_fragments", "_max_size", "_opcode")

    def __init__(self, *, max_size: int, deflate: bool) -> None:
        """`max_size`: bytes of the largest message, unpacked; `deflate`: permessage-deflate was agreed on."""
        self._max_size = max_size
        self._deflate = deflate
        self._buffer = b""
        self._opcode: Opcode | None = None  # of the message whose fragments are being collected
        self._fragments = b""
        self._compressed = False

    def feed(self, data: bytes) -> list[Message]:
        """Take bytes; return the messages that they complete.

        Raises:
            FrameError: The client broke the protocol. Nothing can be read after that.
        """
        data = self._buffer + data if self._buffer else data
        messages: list[Message] = []
        at = 0
        while (frame := self._frame(data, at)) is not None:
            first, payload, at = frame
            message = self._take(first, payload)
            if message is not None:
                messages.append(message)
        self._buffer = data[at:]
        return messages

    def _frame(self, data: bytes, at: int) -> tuple[int, bytes, int] | None:
        """Read the frame at `at`: its first byte, its payload, and where the next begins; None until it is whole."""
        if len(data) < at + 2:
            return None
        first, second = data[at], data[at + 1]
        if not second & _MASKED:
            raise FrameError(1002, "frame without a mask; a client masks every frame")
        size, body = second & 0x7F, at + 2
        if first & 0x08:
            if size > 125 or not first & _FIN:
                raise FrameError(1002, "control frame that is fragmented or longer than 125 bytes")
        elif size > 125:
            width = 2 if size == 126 else 8
            if len(data) < body + width:
                return None
            size, body = int.from_bytes(data[body : body + width]), body + width
        if not first & 0x08 and size + len(self._fragments) > self._max_size:
            raise FrameError(1009, f"message of more than {self._max_size} bytes")
        end = body + 4 + size
        if len(data) < end:
            return None
        return first, _unmasked(data[body + 4 : end], data[body : body + 4]), end

    def _take(self, first: int, payload: bytes) -> Message | None:
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise FrameError(1002, f"unknown opcode {first & 0x0F}") from None
        compressed = bool(first & _RSV1)
        starts = opcode in (Opcode.TEXT, Opcode.BINARY)
        if first & _RSV23 or (compressed and not (self._deflate and starts)):
            raise FrameError(1002, "reserved bit that was not agreed on")
        if opcode is Opcode.CLOSE:
            _check_close(payload)
            return Message(opcode, payload)
        if first & 0x08:
            return Message(opcode, payload)
        if starts == (self._opcode is not None):
            raise FrameError(1002, "message that begins within another, or goes on without a beginning")
        if starts:
            self._opcode, self._compressed = opcode, compressed
        self._fragments += payload
        if not first & _FIN:
            return None
        whole, kind, self._fragments, self._opcode = self._fragments, self._opcode, b"", None
        return self._message(Opcode.TEXT if kind is Opcode.TEXT else Opcode.BINARY, whole)

    def _message(self, opcode: Opcode, data: bytes) -> Message:
        if self._compressed:
            data = _inflated(data, self._max_size)
        if opcode is Opcode.TEXT:
            _check_text(data)
        return Message(opcode, data)


def _unmasked(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    key = int.from_bytes((mask * (size // 4 + 1))[:size])
    return (int.from_bytes(data) ^ key).to_bytes(size)


def _inflated(data: bytes, max_size: int) -> bytes:
    inflate = zlib.decompressobj(wbits=-15)  # of its own: the client was told to forget its window
    try:
        plain = inflate.decompress(data + _TAIL, max_size + 1)
    except zlib.error as error:
        raise FrameError(1007, "message that is not deflated") from error
    if len(plain) > max_size:
        raise FrameError(1009, f"message of more than {max_size} bytes")
    return plain


def _check_text(data: bytes) -> None:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        raise FrameError(1007, "text that is not UTF-8") from error


def _check_close(payload: bytes) -> None:
    """Check a close frame (RFC 6455 sections 5.5.1 and 7.4)."""
    if not payload:
        return
    code = int.from_bytes(payload[:2])
    known = 1000 <= code <= 1014 and code not in (1004, 1005, 1006)
    if len(payload) < 2 or not (known or 3000 <= code <= 4999):
        raise FrameError(1002, "close frame with a code that does not exist")
    _check_text(payload[2:])
