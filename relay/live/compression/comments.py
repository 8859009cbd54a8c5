"""Comments for all links of a channel at once: one of a link alone would put it out of step with the others.

Owns which link's heartbeat writes them. The links of a channel have the same interval, and each of them one heartbeat
in it: it is enough that one of them writes.
"""

import asyncio
from collections.abc import Callable
from typing import Final

_SOON_S: Final = 1.0
"""A comment that was written no longer ago needs no repetition when its writer leaves."""


class Comments:
    """The comments of one channel."""

    __slots__ = ("_write", "_writer", "_written_at")

    def __init__(self, write: Callable[[bytes], None]) -> None:
        """`write` writes a block to all links of the channel."""
        self._write = write
        self._writer: object = None
        self._written_at = 0.0  # loop time

    def beat(self, link: object, comment: Callable[[], bytes]) -> None:
        """Write a comment at the heartbeat of the link that does so for all; the first one to come is that link."""
        if self._writer is None:
            self._writer = link
        if link is self._writer:
            self._put(comment())

    def leave(self, link: object, comment: bytes) -> None:
        """Forget a link. The others had their heartbeats before, so that they now have a comment instead."""
        if link is self._writer:
            self._writer = None
            loop = asyncio.get_running_loop()
            if loop.time() - self._written_at > _SOON_S:
                loop.call_soon(self._put, comment)  # not now: rounds may be being written

    def _put(self, comment: bytes) -> None:
        self._written_at = asyncio.get_running_loop().time()
        self._write(comment)
