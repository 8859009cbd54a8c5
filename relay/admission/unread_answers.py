"""Answers of gRPC calls that their clients do not read: bounded, together and for each address.

Owns how many bytes may wait for such clients. An answer waits until the client's window has room or its connection is
closed, so what would be too much is refused before it is sent.
Why: docs/adr/0030-bytes-of-connections-are-bounded.md
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Final

from relay.errors import TooManyCalls

_COPIES: Final = 2
"""How often an answer is in memory that waits: whole, and as the frames in the transport."""


class UnreadAnswers:
    """The answers of calls that are not over."""

    def __init__(self, most: int, *, retry_ms: Callable[[], int]) -> None:
        """Count none yet.

        Args:
            most: Bytes of all answers together; one address may have half of them.
            retry_ms: Draws when a refused client may call again.
        """
        self._most = most
        self._retry_ms = retry_ms
        self._by_address: defaultdict[str, int] = defaultdict(int)
        self.total = 0
        """Bytes that are kept."""

    def count(self, address: str, answer_bytes: int) -> None:
        """Count an answer that the current task is about to return.

        Raises:
            TooManyCalls: With it, there would be too much of this client's address, or of all.
        """
        call = asyncio.current_task()
        if call is None:
            raise AssertionError("calls run in tasks")
        size = _COPIES * answer_bytes
        if self.total and (self.total + size > self._most or self._by_address[address] + size > self._most // 2):
            raise TooManyCalls(self._retry_ms())
        self._add(address, size)
        call.add_done_callback(lambda _: self._add(address, -size))

    def _add(self, address: str, size: int) -> None:
        self.total += size
        self._by_address[address] += size
        if not self._by_address[address]:
            del self._by_address[address]
