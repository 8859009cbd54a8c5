"""Changes of readiness, for all watchers at once.

Owns that readiness is read at an interval while somebody watches, however many watch. Does not know what it depends on.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_EVERY_S: Final = 0.25
"""How often readiness is read while it is watched."""


class Readiness:
    """Whether the relay is ready, and an event for each change."""

    def __init__(self, obstacle: Callable[[], str | None]) -> None:
        """`obstacle` is as for ``/readyz``: one word why the relay is not ready, or None when it is."""
        self._obstacle = obstacle
        self._watchers = 0
        self._last = False
        self._timer: asyncio.TimerHandle | None = None
        self.changed = asyncio.Event()
        """Set at the next change. Take it before you read readiness: each change has an event of its own."""

    @property
    def is_ready(self) -> bool:
        return self._obstacle() is None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Set `changed` at changes while the block runs."""
        self._watchers += 1
        if self._timer is None:
            self._last = self.is_ready
            self._wait()
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers and self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._read)

    def _read(self) -> None:
        if self.is_ready is not self._last:
            self._last = not self._last
            event, self.changed = self.changed, asyncio.Event()
            event.set()
        self._wait()
