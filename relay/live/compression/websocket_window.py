"""The form of rounds on a WebSocket whose client keeps its window between messages (RFC 7692 section 7.2.3.2). Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from relay.live.compression.apart import Apart
from relay.live.compression.deflate_window import END_OF_WRITE, DeflateWindow
from relay.live.compression.shared_stream import WindowedForm
from relay.live.encode import COMPRESSED_TEXT, Renderable, frame


@dataclass(frozen=True, slots=True)
class WebSocketWindow(WindowedForm):
    """Text frames compressed with permessage-deflate, by a window that all links of a channel share.

    Messages for a link alone are not compressed: then they do not move its window (RFC 7692 section 7.2.1).
    """

    window_bits: int
    _apart: Apart = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_apart", Apart(self.window_bits, self.write))

    def render(self, item: Renderable) -> bytes:
        return item.json

    def join(self, rendered: Sequence[bytes]) -> bytes:
        return self._apart.together(rendered)

    def each(self, rendered: Sequence[bytes]) -> bytes:
        return self._apart.each(rendered)

    def plain_bytes(self, rendered: Sequence[bytes]) -> int:
        return sum(map(len, map(frame, rendered)))

    def write(self, rendered: Sequence[bytes], window: DeflateWindow) -> bytes:
        return b"".join([_frame(json, window) for json in rendered])


def _frame(json: bytes, window: DeflateWindow) -> bytes:
    # The end of a write is implied: RFC 7692 section 7.2.1.
    return frame(window.write(json)[: -len(END_OF_WRITE)], first_byte=COMPRESSED_TEXT)
