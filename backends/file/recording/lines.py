"""Cut a stream of bytes into lines, in bounded memory for any input. Pure: bytes in, lines out."""

from typing import Final, NamedTuple

RAW_BYTES: Final = 64 << 10
"""Number of bytes kept of a line that is not a round, to show it to an operator."""


class TooLong(NamedTuple):
    """A line over the limit: its first bytes, and its size without the line end."""

    head: bytes
    size: int


class LineCutter:
    """Takes chunks of any size. Holds at most the last chunk and `max_bytes` of an unfinished line."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0  # of the unfinished line, including bytes that are not kept

    @property
    def overflow(self) -> TooLong | None:
        """The unfinished line if it is too long already; its size is the number of bytes seen so far."""
        return TooLong(self._head(), self._size) if self._size > self._max_bytes else None

    def feed(self, chunk: bytes) -> list[bytes | TooLong]:
        """Return the lines that end in `chunk`, without their ``\\n``. A ``\\r`` before it stays."""
        first, *rest = chunk.split(b"\n")
        if not rest:
            self._grow(first)
            return []
        self._grow(first)
        lines: list[bytes | TooLong] = [self._take()]
        last = rest.pop()
        if len(chunk) > self._max_bytes:
            lines += [line if len(line) <= self._max_bytes else TooLong(line[:RAW_BYTES], len(line)) for line in rest]
        else:
            lines += rest
        self._grow(last)
        return lines

    def finish(self) -> list[bytes | TooLong]:
        """Return the bytes after the last line end: one line, or an empty list."""
        return [self._take()] if self._size else []

    def _grow(self, part: bytes) -> None:
        if part:
            if self._size <= self._max_bytes:
                self._parts.append(part)
            self._size += len(part)

    def _take(self) -> bytes | TooLong:
        line = self.overflow or b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        return line

    def _head(self) -> bytes:
        return b"".join(self._parts)[:RAW_BYTES]
