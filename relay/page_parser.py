"""Take pages of stored rounds out of a NATS connection's bytes, at several times the speed of nats-py's own way.

Owns the one place of the relay that reaches into nats-py, which spends more time on a message than everything that
follows. nats-py keeps signing in, TLS, pings and reconnecting: what is not a page's message is handed to it, frame
by frame. Measured in docs/benchmarks.md, decided in docs/adr/0007-read-pages-past-nats-py.md
"""

from collections.abc import Callable

from nats.aio.client import Client
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

OnMessage = Callable[[int, bytes, bytes], None]
"""Called with the page's number, the message's header block, and its data."""


class PageParser(Parser):
    """Calls back for each message to ``<inbox>.<number>``. The callback runs inside the reading and must not raise."""

    def __init__(self, nc: Client, inbox: bytes, on_message: OnMessage) -> None:
        super().__init__(nc)
        self._start = b"HMSG " + inbox + b"."
        self._on_message = on_message
        self._held = b""

    def reset(self) -> None:
        """Forget half a frame: the connection that was to bring the rest is gone."""
        super().reset()
        self._held = b""

    async def parse(self, data: bytes = b"") -> None:
        """Read as many whole frames as there are; keep the rest for the next call."""
        if self._held:
            data = self._held + data
        at, start = 0, self._start
        while True:
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                break
            if data.startswith(start, at):
                number, _sid, header_size, size = data[at + len(start) : line_end].split()
                body = line_end + 2
                end = body + int(size)
                if len(data) < end + 2:
                    break
                middle = body + int(header_size)
                self._on_message(int(number), data[body:middle], data[middle:end])
                at = end + 2
            else:
                end = self._other_frame_end(data, at, line_end)
                if len(data) < end:
                    break
                await super().parse(data[at:end])
                at = end
        self._held = data[at:]

    @staticmethod
    def _other_frame_end(data: bytes, at: int, line_end: int) -> int:
        if not data.startswith((b"MSG ", b"HMSG "), at):
            return line_end + 2
        size = data[data.rfind(b" ", at, line_end) + 1 : line_end]
        if not size.isdigit():
            raise ProtocolError
        return line_end + 2 + int(size) + 2


def attach(nc: Client, inbox: str, on_message: OnMessage) -> None:
    """Let `on_message` have what comes to ``<inbox>.*`` on a connection that has just been flushed."""
    nc._ps = PageParser(nc, inbox.encode(), on_message)  # noqa: SLF001 - see the module's docstring
