"""Read an answer of HTTP/1.1 that this process wrote, however it is cut: its head, its body, its end. Does no I/O."""

from collections.abc import Iterator
from enum import Enum
from typing import Final, NamedTuple

from relay.http2.header_blocks import HeaderFields

_BLANK_LINE: Final = b"\r\n\r\n"
_DROPPED: Final = frozenset((b"connection", b"keep-alive", b"transfer-encoding", b"upgrade"))
_INTERIM: Final = b"1"
_EMPTY: Final = (b"204", b"304")


class AnswerHead(NamedTuple):
    """The status and the headers, as HTTP/2 has them."""

    fields: HeaderFields


class AnswerBody(NamedTuple):
    """Some bytes of the body."""

    data: bytes


class _Part(Enum):
    HEAD = 1
    COUNTED = 2  # by Content-Length
    CHUNKS = 3
    REST = 4  # up to the end of the connection
    OVER = 5


class Http1Answer:
    """Reads one answer."""

    __slots__ = ("_chunk", "_has_body", "_held", "_left", "_part")

    def __init__(self, *, has_body: bool) -> None:
        """`has_body`: False for the answer to HEAD."""
        self._has_body = has_body
        self._part = _Part.HEAD
        self._held = b""
        self._left = 0  # bytes of the body, or of a chunk
        self._chunk = False  # within a chunk

    @property
    def is_over(self) -> bool:
        """Whether all of it was read."""
        return self._part is _Part.OVER

    @property
    def may_end(self) -> bool:
        """Whether the end of the connection is its end."""
        return self._part in (_Part.REST, _Part.OVER)

    def read(self, data: bytes) -> Iterator[AnswerHead | AnswerBody]:
        """Take bytes; yield what they say."""
        self._held += data
        if self._part is _Part.HEAD:
            yield from self._head()
        match self._part:
            case _Part.COUNTED:
                yield from self._counted()
            case _Part.CHUNKS:
                if body := self._chunks():
                    yield AnswerBody(body)
            case _Part.REST if self._held:
                yield AnswerBody(self._take(len(self._held)))

    def _head(self) -> Iterator[AnswerHead]:
        while (end := self._held.find(_BLANK_LINE)) >= 0:
            head = self._take(end + len(_BLANK_LINE))[:end]
            line, *lines = head.split(b"\r\n")
            status = line.split(b" ", 2)[1]
            if status.startswith(_INTERIM):
                continue
            fields = [(name.lower(), value.strip()) for name, _, value in (each.partition(b":") for each in lines)]
            self._begin_body(status, dict(fields))
            kept = [field for field in fields if field[0] not in _DROPPED]
            yield AnswerHead(((b":status", status), *kept))
            return

    def _begin_body(self, status: bytes, fields: dict[bytes, bytes]) -> None:
        if not self._has_body or status in _EMPTY:
            self._part = _Part.OVER
        elif fields.get(b"transfer-encoding", b"").lower() == b"chunked":
            self._part = _Part.CHUNKS
        elif b"content-length" in fields:
            self._left = int(fields[b"content-length"])
            self._part = _Part.COUNTED if self._left else _Part.OVER
        else:
            self._part = _Part.REST

    def _counted(self) -> Iterator[AnswerBody]:
        data = self._take(min(len(self._held), self._left))
        self._left -= len(data)
        if not self._left:
            self._part = _Part.OVER
        if data:
            yield AnswerBody(data)

    def _chunks(self) -> bytes:
        """Return the bytes of all chunks that are there; most writes have whole ones."""
        held, at, found = self._held, 0, list[bytes]()
        while True:
            if self._left:
                piece = held[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                found.append(piece)
                if self._left:
                    break
            if self._chunk:  # the line end after it
                if len(held) - at < 2:
                    break
                at += 2
                self._chunk = False
            end = held.find(b"\r\n", at)
            if end < 0:
                break
            self._left = int(held[at:end].partition(b";")[0], 16)
            if not self._left:  # this process writes no trailers
                self._part, at = _Part.OVER, len(held)
                break
            at, self._chunk = end + 2, True
        self._held = held[at:]
        return b"".join(found)

    def _take(self, size: int) -> bytes:
        taken, self._held = self._held[:size], self._held[size:]
        return taken
