"""The head of a request of which a part was read: where it begins, its size, and whether its first line is over.

aiohttp's errors do not say what they were found in. Does not parse.
"""

from typing import Final

_BLANK_LINE: Final = b"\r\n\r\n"


class PartialHead:
    """What was read of a head."""

    __slots__ = ("line_is_over", "size")

    def __init__(self) -> None:
        self.size = 0  # bytes
        self.line_is_over = False  # the first line

    def clear(self) -> None:
        """Forget it: the head is whole."""
        self.size, self.line_is_over = 0, False

    def add(self, data: bytes) -> None:
        """Count bytes of the head; blank lines may come before it."""
        line = data if self.size else data.lstrip(b"\r\n")
        self.line_is_over = self.line_is_over or b"\n" in line
        self.size += len(data)


def after_request(data: bytes, *, body_bytes: int, begins_in_body: bool) -> bytes:
    """Return what follows the last whole request in `data`: the begin of the next head, mostly nothing.

    Args:
        data: Bytes in which a request ends.
        body_bytes: How many of them are of its body; 0 for one of chunks, which a blank line ends as well.
        begins_in_body: Whether `data` begins in its body.
    """
    if begins_in_body and body_bytes:
        return data[body_bytes:]
    end = data.rfind(_BLANK_LINE, 0, len(data) - body_bytes)
    if end < 0:  # it began in the data before
        return data.partition(b"\n")[2][body_bytes:]
    return data[end + len(_BLANK_LINE) + body_bytes :]
