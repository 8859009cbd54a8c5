"""The bytes that connections hold which are no links: requests that are not whole, and answers that nobody reads.

Owns how many they may be together, and which connection is closed when they are more: of the address that holds the
most, the one that has held for the longest time. So they are inside the memory that is reserved beside links, however
many connections there are. Does not know protocols. Why: docs/adr/0030-bytes-of-connections-are-bounded.md
"""

import asyncio
from collections import OrderedDict, defaultdict
from typing import Final, Protocol

LEAST_BYTES: Final = 4 << 10
"""A connection that holds less is not counted: most requests and answers are smaller."""
_ENOUGH: Final = 15 / 16
"""Part of the maximum that may be held after others were closed: each time costs a look at all addresses."""
_LOOK_S: Final = 0.1
"""Time between two looks at what connections still hold. No event says that a client's kernel has taken all."""
_LOOKED_AT: Final = 128
"""Connections per look; each costs about 2 us."""


class ByteHolder(Protocol):
    """A connection that holds bytes."""

    address: str
    """Of the client."""

    def held_bytes(self) -> int:
        """Return how many bytes it holds now: of its request, and of answers that its client has not acknowledged."""

    def shed(self) -> None:
        """Close it at once."""


class HeldBytes:
    """What all connections hold together, at most `most` bytes."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.total = 0
        """Bytes that are held."""
        self.shed = 0
        """Connections that were closed because of this limit, since the start."""
        self._sizes: dict[ByteHolder, int] = {}
        self._by_address: defaultdict[str, dict[ByteHolder, None]] = defaultdict(dict)  # oldest first
        self._totals: defaultdict[str, int] = defaultdict(int)  # by address
        self._to_look_at: OrderedDict[ByteHolder, None] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def look_at(self, holder: ByteHolder) -> None:
        """Count what a connection holds now. It is looked at again until that is little."""
        size = holder.held_bytes()
        if size < LEAST_BYTES:
            self.release(holder)
            return
        before = self._sizes.get(holder)
        if before is None:
            before = 0
            self._by_address[holder.address][holder] = None
            self._to_look_at[holder] = None
            if self._timer is None:
                self._wait()
        self._sizes[holder] = size
        self._add(holder.address, size - before)
        if self.total > self.most:
            self._shed_some()

    def release(self, holder: ByteHolder) -> None:
        """Count a connection no longer: it holds little, is closed, or is a link now, which has limits of its own."""
        size = self._sizes.pop(holder, None)
        if size is None:
            return
        del self._to_look_at[holder]
        holders = self._by_address[holder.address]
        del holders[holder]
        if not holders:
            del self._by_address[holder.address]
        self._add(holder.address, -size)

    def _add(self, address: str, size: int) -> None:
        self.total += size
        self._totals[address] += size
        if not self._totals[address]:
            del self._totals[address]

    def _shed_some(self) -> None:
        while self._sizes and self.total > self.most * _ENOUGH:
            address = max(self._totals, key=self._totals.__getitem__)
            # As many of it as bring it down by an eighth of the whole: it is most likely still the largest then.
            enough = max(0, self._totals[address] - self.most // 8)
            while self._totals.get(address, 0) > enough and self.total > self.most * _ENOUGH:
                oldest = next(iter(self._by_address[address]))
                self.release(oldest)
                self.shed += 1
                oldest.shed()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    def _look(self) -> None:
        for _ in range(min(_LOOKED_AT, len(self._to_look_at))):
            if not self._to_look_at:  # others were closed
                break
            holder = next(iter(self._to_look_at))
            self._to_look_at.move_to_end(holder)
            self.look_at(holder)
        self._timer = None
        if self._to_look_at:
            self._wait()
