"""The form of rounds on an event stream with ``Content-Encoding: gzip`` (RFC 1952), flushed at every write. Pure."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from relay.live.compression.apart import Apart
from relay.live.compression.checksum import Checksum
from relay.live.compression.deflate_window import END_OF_STREAM, DeflateWindow
from relay.live.compression.shared_stream import WindowedForm
from relay.live.encode import Renderable, chunk, sse_block

_HEADER: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""Of a gzip member: no name, no time, of an unknown system."""


@dataclass(frozen=True, slots=True)
class SseGzip(WindowedForm):
    """``text/event-stream`` blocks as a gzip member; as HTTP/1.1 chunks unless the client speaks 1.0.

    Links whose comments differ have different forms: comments are a part of the stream that they share.
    """

    chunked: bool
    comments: str = ""
    """What comments depend on."""
    has_checksum = True
    window_bits = 15
    _apart: Apart = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_apart", _apart(self.chunked))

    def render(self, item: Renderable) -> bytes:
        return sse_block(item)

    def join(self, rendered: Sequence[bytes]) -> bytes:
        return self._apart.together(rendered)

    def each(self, rendered: Sequence[bytes]) -> bytes:
        return self._apart.each(rendered)

    def plain_bytes(self, rendered: Sequence[bytes]) -> int:
        return sum(map(len, map(chunk, rendered) if self.chunked else rendered))

    def write(self, rendered: Sequence[bytes], window: DeflateWindow) -> bytes:
        return _write(rendered, window, chunked=self.chunked)

    def begin(self) -> bytes:
        """Return the first bytes of the body."""
        return self._in_body(_HEADER)

    def end(self, checksum: Checksum) -> bytes:
        """Return the last bytes of a body; `checksum`: of everything in it, not compressed."""
        return self._in_body(END_OF_STREAM + checksum.trailer())

    def _in_body(self, data: bytes) -> bytes:
        return chunk(data) if self.chunked else data


def _write(rendered: Sequence[bytes], window: DeflateWindow, *, chunked: bool) -> bytes:
    data = window.write(b"".join(rendered))
    return chunk(data) if chunked else data


@functools.cache  # comments make no difference here, and each has a window
def _apart(chunked: bool) -> Apart:
    return Apart(SseGzip.window_bits, functools.partial(_write, chunked=chunked))
