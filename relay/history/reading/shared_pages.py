"""Pages that several readers want at nearly the same time: read once, parsed once, encoded once.

Owns how long a page is kept for others: clients that one relay has disconnected come to another one with nearly
cursors. Knows nothing of the log.
"""

import asyncio
from collections.abc import Hashable
from typing import Final, NamedTuple

from relay.history.reading.flight import Ask, Flight
from relay.history.reading.payer import RELAY, Payer
from relay.history.reading.stretch import Stretch

_KEPT: Final = 8
"""Pages, with the wire forms of their rounds: about 1 MB each."""
_FRESH_S: Final = 1.0
"""How long a page is given to others. What is deleted from the log is not sent longer than this."""


class _Shared(NamedTuple):
    """A page that is being read, or was read a moment ago."""

    page: Flight[Stretch]
    until: float  # loop time


class SharedPages:
    """The newest pages of one source."""

    def __init__(self) -> None:
        self._pages: dict[Hashable, _Shared] = {}

    def has(self, key: Hashable) -> bool:
        """Whether the page of `key` is there, or is being read for another reader."""
        shared = self._pages.get(key)
        now = asyncio.get_running_loop().time()
        return shared is not None and shared.until >= now and not shared.page.has_failed

    async def get(self, key: Hashable, read: Ask[Stretch], payer: Payer = RELAY) -> Stretch:
        """Return the page of `key`, which another reader has read, or `read` does.

        A page that was read to the end of the log is not kept: more may follow. Raises what `read` does.
        """
        shared = self._pages.get(key)
        if shared is None or not self.has(key):
            shared = _Shared(Flight(read), asyncio.get_running_loop().time() + _FRESH_S)
            self._pages.pop(key, None)
            self._pages[key] = shared
            if len(self._pages) > _KEPT:
                del self._pages[next(iter(self._pages))]
        stretch = await shared.page.join(payer)
        if stretch.is_last and self._pages.get(key) is shared:
            del self._pages[key]
        return stretch
