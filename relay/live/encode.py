"""The wire forms of a round: pure functions from bytes to bytes.

Owns how a round looks inside a WebSocket frame and an SSE block, compressed or chunked. A form is a value; all links
with the same form share their bytes, so a round is encoded once per form. Does not know links or transports.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from rounds import Round

_TEXT: Final = 0x81  # FIN + opcode 1, RFC 6455 section 5.2
COMPRESSED_TEXT: Final = _TEXT | 0x40  # RSV1, RFC 7692 section 6
PONG: Final = 0x8A  # FIN + opcode 10
CLOSE: Final = 0x88  # FIN + opcode 8
LAST_CHUNK: Final = b"0\r\n\r\n"
PING_FRAME: Final = b"\x89\x00"
SSE_COMMENT: Final = b":\n"
"""A comment. A blank line after it would be an empty event to some parsers."""


class Renderable(Protocol):
    """What a form is made from: see `relay.live.item.Item`."""

    @property
    def round(self) -> Round: ...
    @property
    def json(self) -> bytes: ...
    @property
    def cursor(self) -> str: ...


class Form(Protocol):
    """One way to write rounds on a connection. Hashable: equal forms share their bytes."""

    def render(self, item: Renderable) -> bytes:
        """Render one round, as `join` takes it."""
        ...

    def join(self, rendered: list[bytes]) -> Any:
        """Make one write of several rounds, of the type that sinks of this form take; its length is in bytes."""
        ...


class ByteStream:
    """Base of the forms whose connections are streams of bytes."""

    __slots__ = ()

    def join(self, rendered: list[bytes]) -> bytes:
        return rendered[0] if len(rendered) == 1 else b"".join(rendered)


@dataclass(frozen=True, slots=True)
class WebSocketText(ByteStream):
    """One unmasked text frame (RFC 6455)."""

    def render(self, item: Renderable) -> bytes:
        return frame(item.json)


@dataclass(frozen=True, slots=True)
class WebSocketDeflate(ByteStream):
    """One text frame compressed with permessage-deflate (RFC 7692), for clients that keep no window.

    The window is emptied after every frame. A frame then depends on no other and can be shared by all links whose
    negotiated window is at least `window_bits`; any inflater reads it, with context takeover or without. Clients that
    keep their window get a fifth of the bytes: see `relay.live.compression`.
    """

    window_bits: int
    _deflate: "zlib._Compress" = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_deflate", zlib.compressobj(wbits=-self.window_bits))

    def render(self, item: Renderable) -> bytes:
        # Z_FULL_FLUSH forgets the window; the last four bytes are implied by the RFC, section 7.2.1.
        packed = self._deflate.compress(item.json) + self._deflate.flush(zlib.Z_FULL_FLUSH)
        return frame(packed[:-4], first_byte=COMPRESSED_TEXT)


@dataclass(frozen=True, slots=True)
class SseBlock(ByteStream):
    """One ``text/event-stream`` block, blank line included; as an HTTP/1.1 chunk unless the client speaks 1.0."""

    chunked: bool

    def render(self, item: Renderable) -> bytes:
        block = sse_block(item)
        return chunk(block) if self.chunked else block


def sse_block(item: Renderable) -> bytes:
    """Render a round as a ``text/event-stream`` block, blank line included."""
    # The JSON has no raw CR or LF (the encoder escapes them), so one data line holds it.
    return b"id: %b\ndata: %b\n\n" % (item.cursor.encode("ascii"), item.json)


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
