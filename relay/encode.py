"""The wire forms of a round: pure functions from bytes to bytes.

Owns how a round looks inside a WebSocket frame and an SSE block, compressed or chunked. A form is a value; every
link with the same form is handed the very same bytes, so a round is encoded once per form however many links read
it.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final, Protocol

_TEXT: Final = 0x81  # FIN + opcode 1, RFC 6455 section 5.2
_RSV1: Final = 0x40  # "compressed", RFC 7692 section 6
PONG: Final = 0x8A  # FIN + opcode 10
PING_FRAME: Final = b"\x89\x00"
SSE_COMMENT: Final = b":\n\n"


class Form(Protocol):
    """One way to write a round on a connection. Hashable: equal forms share their bytes."""

    def render(self, round_json: bytes, cursor: str) -> bytes:
        """Render one round, given its JSON with the cursor in it and the cursor itself."""
        ...


@dataclass(frozen=True, slots=True)
class WebSocketText:
    """One unmasked text frame (RFC 6455)."""

    def render(self, round_json: bytes, cursor: str) -> bytes:
        return frame(round_json)


@dataclass(frozen=True, slots=True)
class WebSocketDeflate:
    """One text frame compressed with permessage-deflate (RFC 7692).

    The window is emptied after every frame. So a frame depends on no other and can be shared by all links whose
    negotiated window is at least `window_bits`; any inflater reads it, with context takeover or without.
    """

    window_bits: int
    _deflate: "zlib._Compress" = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_deflate", zlib.compressobj(wbits=-self.window_bits))

    def render(self, round_json: bytes, cursor: str) -> bytes:
        # Z_FULL_FLUSH forgets the window; the last four bytes are implied by the RFC, section 7.2.1.
        packed = self._deflate.compress(round_json) + self._deflate.flush(zlib.Z_FULL_FLUSH)
        return frame(packed[:-4], first_byte=_TEXT | _RSV1)


@dataclass(frozen=True, slots=True)
class SseBlock:
    """One ``text/event-stream`` block, blank line included; as an HTTP/1.1 chunk unless the client speaks 1.0."""

    chunked: bool

    def render(self, round_json: bytes, cursor: str) -> bytes:
        # The JSON has no raw CR or LF (the encoder escapes them), so one data line holds it.
        block = b"id: %b\ndata: %b\n\n" % (cursor.encode("ascii"), round_json)
        return chunk(block) if self.chunked else block


def frame(payload: bytes, *, first_byte: int = _TEXT) -> bytes:
    """Put a server-to-client (unmasked) WebSocket frame header before `payload`."""
    size = len(payload)
    if size < 126:
        return bytes((first_byte, size)) + payload
    if size < 65536:
        return struct.pack("!BBH", first_byte, 126, size) + payload
    return struct.pack("!BBQ", first_byte, 127, size) + payload


def chunk(data: bytes) -> bytes:
    """Wrap data as one chunk of ``Transfer-Encoding: chunked`` (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
