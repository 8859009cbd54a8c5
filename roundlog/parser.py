"""Read stored rounds from the frames of a NATS connection, at several times the speed of nats-py.

Owns how the server marks a stored message, republished or read. How its frames are taken from a connection is in
`roundlog.client.nats_internals`; where they cannot be, `RoundFrames.on_message` reads nats-py's messages instead.
"""

import re
from collections.abc import Callable
from typing import Final

from nats.aio.msg import Msg

from roundlog.direct_get import AnswerEnd
from roundlog.entry import LogEntry

OnEntries = Callable[[bytes, list[LogEntry]], None]
"""Called with the last token of a subject and the stored messages that came on it, in the order in which they came.

Runs inside the reading of the socket and must not raise.
"""
OnEnd = Callable[[bytes, AnswerEnd], None]
"""Called in the same way for a message that ends an answer."""
OnOther = Callable[[bytes, int], None]
"""Called in the same way with the sequence of a stored message that is no round: its subject is not that of a game."""

_STORED: Final = re.compile(rb"(?s:.*)\r\nNats-Subject: ([^\r]+)\r\nNats-Sequence: ([0-9]{1,20})\r\n")
"""The last of such lines are the server's, which adds its own after those of the publisher."""
_REPUBLISHED: Final = re.compile(rb"\r\nNats-Last-Sequence: [0-9]+\r\n\r\n\Z")
_ANSWERED: Final = b"\r\nNats-Num-Pending: "
_SUBJECT_PREFIX: Final = b"rounds."
_GAMES_CACHED: Final = 4096
_new: Final = tuple.__new__


class RoundFrames:
    """Reads messages to ``<prefix>.<token>``. Messages that are neither stored messages nor ends are skipped."""

    def __init__(
        self,
        prefix: str,
        on_entries: OnEntries,
        on_end: OnEnd = lambda _token, _end: None,
        on_other: OnOther = lambda _token, _sequence: None,
        *,
        by_token: bool = True,
        republished: bool = False,
    ) -> None:
        """Prepare to read.

        Args:
            prefix: All tokens of the subjects but the last.
            on_entries: Takes the stored rounds.
            on_end: Takes the ends of answers.
            on_other: Takes the sequences of stored messages that are no rounds.
            by_token: Off: messages are handed on together whatever their token, which is empty then.
            republished: Read only what the server republishes as it stores it. Answers of the server, which a user may
                direct to any subject of an account, are skipped.
        """
        self._start = f"HMSG {prefix}.".encode()
        # Matches nearly all of them at once: the headers of our publisher, then those of the server. No backtracking
        # (``++``): it could match nothing else, and takes 20 % longer.
        self._usual = re.compile(
            rb"%b%b [0-9]++ ([0-9]++) ([0-9]++)\r\nNATS/1\.0\r\n"
            rb"(?:Nats-Msg-Id:[^\r]*+\r\n)?+(?:Nats-Expected-Last-Msg-Id:[^\r]*+\r\n)?+"
            rb"(?:Relay-Position:[^\r]*+\r\n)?+"
            rb"Nats-Stream: [^\r]*+\r\nNats-Subject: rounds\.([^\r.]++)\r\nNats-Sequence: ([0-9]{1,20}+)\r\n"
            rb"Nats-Time-Stamp: [^\r]*+\r\n%bNats-Last-Sequence: [^\r]*+\r\n\r\n"
            % (
                re.escape(self._start),
                b"([^ ]++)" if by_token else b"()[^ ]++",
                b"" if republished else rb"Nats-Num-Pending: [^\r]*+\r\n",
            )
        ).match
        self._republished = republished
        self._on_entries = on_entries
        self._on_end = on_end
        self._on_other = on_other
        self._by_token = by_token
        self._games: dict[bytes, str] = {}

    def read(self, data: bytes, at: int) -> int:
        """Take whole frames from offset `at` on: a `roundlog.client.nats_internals.ReadFrames`."""
        length = len(data)
        match, games = self._usual, self._games.get
        entries: list[LogEntry] = []
        token = b""
        while True:
            usual = match(data, at)
            if usual is None:
                self._hand_on(token, entries)
                entries = []
                end = self._read_unusual(data, at)
                if end is None:
                    return at
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
        return at

    async def on_message(self, message: Msg) -> None:
        """Take a message that nats-py has read, in place of `read`: the callback of the subscription."""
        headers = message.headers or {}
        token = message.subject.rpartition(".")[2].encode() if self._by_token else b""
        subject, sequence = headers.get("Nats-Subject", ""), headers.get("Nats-Sequence", "")
        if self._republished and ("Nats-Last-Sequence" not in headers or "Nats-Num-Pending" in headers):
            return
        if subject and sequence.isdigit():
            self._take(token, subject.encode(), int(sequence), message.data)
        elif end := AnswerEnd.of_headers(headers):
            self._on_end(token, end)

    def _hand_on(self, token: bytes, entries: list[LogEntry]) -> None:
        if entries:
            self._on_entries(token, entries)

    def _read_unusual(self, data: bytes, at: int) -> int | None:
        """Take one frame of another form; return where it ends, or None when it is not ours or not complete."""
        if not data.startswith(self._start, at):
            return None
        line_end = data.find(b"\r\n", at)
        if line_end < 0:
            return None
        token, _sid, *_reply, header_size, size = data[at + len(self._start) : line_end].split()
        body = line_end + 2
        middle, end = body + int(header_size), body + int(size)
        if len(data) < end + 2:
            return None
        headers = data[body:middle]
        if self._republished and (_ANSWERED in headers or not _REPUBLISHED.search(headers)):
            return end + 2
        if stored := _STORED.match(headers):
            self._take(token if self._by_token else b"", stored[1], int(stored[2]), data[middle:end])
        elif answer_end := AnswerEnd.of_block(headers):
            self._on_end(token, answer_end)
        return end + 2

    def _take(self, token: bytes, subject: bytes, sequence: int, data: bytes) -> None:
        """Hand on one stored message."""
        if (name := game_in(subject)) is not None:
            self._on_entries(token, [LogEntry(sequence, self._game(name), data)])
        else:
            self._on_other(token, sequence)

    def _game(self, name: bytes) -> str:
        game = name.decode(errors="replace")
        if len(self._games) < _GAMES_CACHED:
            self._games[name] = game
        return game


def game_in(subject: bytes) -> bytes | None:
    """Return what stands for a game in the subject of a stored message; None: a round has no such subject."""
    name = subject.removeprefix(_SUBJECT_PREFIX)
    return None if name == subject or b"." in name else name
