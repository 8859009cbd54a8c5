"""Split what a PostgreSQL server sends into messages, and drop large logical messages while they arrive. Pure.

Owns which bytes are kept: rows as a whole, of any size; of a logical message with another prefix, or over the limit,
only the head once it does not fit into what was received. So such a message costs no memory.
Why: docs/adr/0038-logical-messages-on-request.md
Reference: https://www.postgresql.org/docs/current/protocol-message-formats.html
"""

from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

from backends.postgres.replication.protocol.pgoutput import InvalidMessage
from backends.postgres.replication.protocol.wal import DATA_START

COPY_DATA: Final = ord("d")

_HEAD: Final = Struct(">BI")
_HEAD_BYTES: Final = _HEAD.size
_KNOWN: Final = frozenset(b"ACDEINSTWZcd")
_PREFIX_AT: Final = _HEAD_BYTES + DATA_START + 10
"""Where the prefix of a logical message starts, after its kind, its flags and its LSN."""
_KIND_AT: Final = _HEAD_BYTES + DATA_START
_LOGICAL_MESSAGE: Final = ord("M")
_NO_CONTENT: Final = bytes(5)
"""An empty prefix and an empty content."""


class ServerMessage(NamedTuple):
    """A message that is not a frame of a stream."""

    kind: int
    body: bytes


class WireReader:
    """Takes bytes as they arrive, in pieces of any size."""

    def __init__(self, prefix: bytes, limit_bytes: int) -> None:
        """Prepare.

        Args:
            prefix: The prefix of the logical messages that are kept.
            limit_bytes: The largest content of a logical message that is kept.
        """
        self._prefix = prefix + b"\0"
        self._limit = limit_bytes
        self._decided_at = _PREFIX_AT + len(self._prefix) + 4
        self.frames: list[bytes] = []
        """The frames of the stream that nobody has taken yet."""
        self.frames_bytes = 0
        """The size of `frames`."""
        self._head = b""  # the begin of a message of which too little has arrived
        self._parts: list[bytes] = []  # what has arrived of a message that is kept
        self._missing = 0  # how much has not arrived of a message that is kept or dropped
        self._cut: bytes | None = None  # what is kept of a message that is dropped

    @property
    def held_bytes(self) -> int:
        """The size of all that is held."""
        return self.frames_bytes + len(self._head) + sum(map(len, self._parts)) + len(self._cut or b"")

    def take(self, frames: int, size: int) -> list[bytes]:
        """Return the oldest frames, at most `frames`, and no more once they have `size` bytes."""
        count = taken = 0
        for frame in self.frames[:frames]:
            if taken >= size:
                break
            count += 1
            taken += len(frame)
        out = self.frames[:count]
        del self.frames[:count]
        self.frames_bytes -= taken
        return out

    def feed(self, data: bytes) -> list[ServerMessage]:
        """Take the next bytes; append to `frames`, and return the messages that are no frames.

        Raises:
            InvalidMessage: The bytes are no messages of a server.
        """
        others: list[ServerMessage] = []
        at = self._continue(data, others) if self._missing else 0
        if self._head:
            data, self._head = self._head + data, b""
        end = len(data)
        unpack, keep = _HEAD.unpack_from, self.frames.append
        while at + _HEAD_BYTES <= end:
            kind, size = unpack(data, at)
            stop = at + 1 + size
            if stop > end:
                break
            if kind == COPY_DATA and size >= 4:
                keep(data[at + _HEAD_BYTES : stop])
                self.frames_bytes += size - 4
            else:
                _check(kind, size)
                others.append(ServerMessage(kind, data[at + _HEAD_BYTES : stop]))
            at = stop
        if at < end:
            self._begin(data[at:])
        return others

    def _continue(self, data: bytes, others: list[ServerMessage]) -> int:
        """Take what belongs to the message that has not arrived as a whole; return where the next one starts."""
        end = min(self._missing, len(data))
        self._missing -= end
        if self._cut is None:
            self._parts.append(data[:end])
        if self._missing:
            return end
        if self._cut is not None:
            frame, self._cut = self._cut, None
        else:
            whole, self._parts = b"".join(self._parts), []
            if whole[0] != COPY_DATA:
                others.append(ServerMessage(whole[0], whole[_HEAD_BYTES:]))
                return end
            frame = whole[_HEAD_BYTES:]
        self.frames.append(frame)
        self.frames_bytes += len(frame)
        return end

    def _begin(self, rest: bytes) -> None:
        """Keep the begin of a message, or decide to drop what follows."""
        if len(rest) < _HEAD_BYTES:
            self._head = rest
            return
        kind, size = _HEAD.unpack_from(rest)
        _check(kind, size)
        if kind == COPY_DATA and (len(rest) <= _KIND_AT or rest[_KIND_AT] == _LOGICAL_MESSAGE):
            if len(rest) < self._decided_at:
                self._head = rest
                return
            self._cut = self._cut_of(rest)
        if self._cut is None:
            self._parts = [rest]
        self._missing = 1 + size - len(rest)

    def _cut_of(self, rest: bytes) -> bytes | None:
        """Return what is kept of a logical message; None: all of it."""
        if not rest.startswith(self._prefix, _PREFIX_AT):
            return rest[_HEAD_BYTES:_PREFIX_AT] + _NO_CONTENT
        content = int.from_bytes(rest[self._decided_at - 4 : self._decided_at])
        # The size remains, so that the message is rejected with it.
        return rest[_HEAD_BYTES : self._decided_at] if content > self._limit else None


def fields_of(body: bytes) -> dict[str, bytes]:
    """Read an ErrorResponse or a NoticeResponse: its fields by their code."""
    return {chr(field[0]): field[1:] for field in body.split(b"\0") if field}


def column_names(body: bytes) -> list[bytes]:
    """Read a RowDescription."""
    names = []
    at = 2
    for _ in range(int.from_bytes(body[:2])):
        end = body.index(b"\0", at)
        names.append(body[at:end])
        at = end + 19
    return names


def column_values(body: bytes) -> Iterator[bytes | None]:
    """Read a DataRow; None is NULL."""
    at = 2
    for _ in range(int.from_bytes(body[:2])):
        size = int.from_bytes(body[at : at + 4], signed=True)
        at += 4
        yield None if size < 0 else body[at : at + size]
        at += max(0, size)


def client_message(kind: bytes, body: bytes = b"") -> bytes:
    """Write a message for the server."""
    return kind + (len(body) + 4).to_bytes(4) + body


def _check(kind: int, size: int) -> None:
    if size < 4 or kind not in _KNOWN:
        raise InvalidMessage(f"not a message of a PostgreSQL server: kind {chr(kind)!r}, size {size}")
