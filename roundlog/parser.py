"""Take stored rounds out of a NATS connection's bytes, at several times the speed of nats-py's own way.

Owns the one place of the relay that reaches into nats-py, which spends more time on a message than everything that
follows, and how the server marks a stored message, republished or read. nats-py keeps signing in, TLS, pings and
reconnecting: what is not for us is handed to it, frame by frame.
Measured in docs/benchmarks.md, decided in docs/adr/0007-read-pages-past-nats-py.md
"""

import re
from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from roundlog.entry import LogEntry

OnEntries = Callable[[bytes, list[LogEntry]], None]
"""Called with stored messages, in the order in which they came, and the last token of their subject.

Runs inside the reading and must not raise.
"""
OnOther = Callable[[bytes, bytes], None]
"""Called in the same way with the header block of what is no stored message: the end of a page, an error."""

_STORED: Final = re.compile(rb"\r\nNats-Subject: rounds\.([^\r]+)\r\nNats-Sequence: ([0-9]{1,20})\r\n")
_GAMES_KEPT: Final = 4096
_new: Final = tuple.__new__


class RoundParser(Parser):
    """Calls back for messages to ``<prefix>.<token>``."""

    def __init__(
        self, nc: Client, prefix: str, on_entries: OnEntries, on_other: OnOther, *, by_token: bool = True
    ) -> None:
        """`by_token` off: messages are handed on together whatever their token, which is left empty."""
        super().__init__(nc)
        self._start = f"HMSG {prefix}.".encode()
        # Nearly all of them, in one match: what our publisher sent, and where the server says it is stored.
        self._usual = re.compile(
            rb"%b%b [0-9]+ ([0-9]+) ([0-9]+)\r\nNATS/1\.0\r\n"
            rb"(?:Nats-Msg-Id:[^\r]*\r\n)?(?:Nats-Expected-Last-Msg-Id:[^\r]*\r\n)?"
            rb"(?:Relay-Position:[^\r]*\r\n)?"
            rb"Nats-Stream: [^\r]*\r\nNats-Subject: rounds\.([^\r]+)\r\nNats-Sequence: ([0-9]{1,20})\r\n"
            % (re.escape(self._start), b"([^ ]+)" if by_token else b"()[^ ]+")
        ).match
        self._on_entries = on_entries
        self._on_other = on_other
        self._by_token = by_token
        self._games: dict[bytes, str] = {}
        self._held = b""

    def reset(self) -> None:
        """Forget half a frame: the connection that was to bring the rest is gone."""
        super().reset()
        self._held = b""

    async def parse(self, data: bytes = b"") -> None:
        """Read as many whole frames as there are; keep the rest for the next call."""
        if self._held:
            data = self._held + data
        at, length = 0, len(data)
        match, games = self._usual, self._games.get
        entries: list[LogEntry] = []
        token = b""
        while True:
            usual = match(data, at)
            if usual is None:
                self._hand_on(token, entries)
                entries = []
                end = await self._unusual(data, at)
                if end is None:
                    break
                at = end
                continue
            of, header_size, size, game, sequence = usual.groups()
            body = usual.end(3) + 2
            end = body + int(size)
            if length < end + 2:
                break
            if of != token:
                self._hand_on(token, entries)
                token, entries = of, []
            # As ``LogEntry(…)`` does, without the call of Python code that a NamedTuple makes of it.
            entry = (int(sequence), games(game) or self._game(game), data[body + int(header_size) : end])
            entries.append(_new(LogEntry, entry))
            at = end + 2
        self._hand_on(token, entries)
        self._held = data[at:]

    def _hand_on(self, token: bytes, entries: list[LogEntry]) -> None:
        if entries:
            self._on_entries(token, entries)

    async def _unusual(self, data: bytes, at: int) -> int | None:
        """Take one frame of another form; return where it ends, or None when it has not come whole."""
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        if not data.startswith(self._start, at):
            end = self._other_frame_end(data, at, line_end)
            if len(data) < end:
                return None
            await super().parse(data[at:end])
            return end
        token, _sid, header_size, size = data[at + len(self._start) : line_end].split()
        body = line_end + 2
        middle, end = body + int(header_size), body + int(size)
        if len(data) < end + 2:
            return None
        headers = data[body:middle]
        stored = _STORED.search(headers)
        if stored is None:
            self._on_other(token, headers)
        else:
            entry = LogEntry(int(stored[2]), self._game(stored[1]), data[middle:end])
            self._on_entries(token if self._by_token else b"", [entry])
        return end + 2

    def _game(self, name: bytes) -> str:
        game = name.decode(errors="replace")
        if len(self._games) < _GAMES_KEPT:
            self._games[name] = game
        return game

    @staticmethod
    def _other_frame_end(data: bytes, at: int, line_end: int) -> int:
        if not data.startswith((b"MSG ", b"HMSG "), at):
            return line_end + 2
        size = data[data.rfind(b" ", at, line_end) + 1 : line_end]
        if not size.isdigit():
            raise ProtocolError
        return line_end + 2 + int(size) + 2


def attach(nc: Client, parser: RoundParser) -> None:
    """Let `parser` read a connection whose last request has just been answered."""
    nc._ps = parser  # noqa: SLF001 - see the module's docstring


async def handled_by_parser(_message: Msg) -> None:
    """Stand as the callback of a subscription whose messages never reach it: only the server must know of it."""
