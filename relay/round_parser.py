"""Take rounds out of a NATS connection's bytes, at several times the speed of nats-py's own way.

Owns the one place of the relay that reaches into nats-py, which spends more time on a message than everything that
follows. nats-py keeps signing in, TLS, pings and reconnecting: what is not a round is handed to it, frame by frame.
Measured in docs/benchmarks.md, decided in docs/adr/0007-read-pages-past-nats-py.md
"""

from collections.abc import Callable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

OnMessage = Callable[[bytes, bytes, bytes], None]
"""Called with the last token of the subject, the message's header block, and its data."""


class RoundParser(Parser):
    """Calls back for each message to ``<prefix>.<token>``. The callback runs inside the reading and must not raise."""

    def __init__(self, nc: Client, prefix: str, on_message: OnMessage) -> None:
        super().__init__(nc)
        self._start = f"HMSG {prefix}.".encode()
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
                token, _sid, header_size, size = data[at + len(start) : line_end].split()
                body = line_end + 2
                end = body + int(size)
                if len(data) < end + 2:
                    break
                middle = body + int(header_size)
                self._on_message(token, data[body:middle], data[middle:end])
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


def attach(nc: Client, prefix: str, on_message: OnMessage) -> None:
    """Let `on_message` have what comes to ``<prefix>.*`` on a connection whose last request has just been answered."""
    nc._ps = RoundParser(nc, prefix, on_message)  # noqa: SLF001 - see the module's docstring


async def past_nats_py(_message: Msg) -> None:
    """Stand as the callback of a subscription whose messages never reach it: only the server must know of it."""
