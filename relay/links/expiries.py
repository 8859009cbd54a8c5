"""When the keys of open links expire: one list for all, by the clock on the wall. Pure.

Owns how soon an expiry is noticed, also when the system's clock is set. Does not know what an expired key means.
"""

import heapq
from typing import Final

_LOOK_S: Final = 0.25
"""The most between two looks at the clock: it may be set meanwhile."""
_FEW: Final = 64


class Expiries:
    """The next expiry of each key."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}  # Unix seconds, by key id
        self._heap: list[tuple[float, str]] = []  # has entries that are no longer in `_at`

    def put(self, key_id: str, at: float | None) -> None:
        """Take the next expiry of a key, in Unix seconds, in place of its earlier one; None: it has none."""
        if self._at.get(key_id) == at:
            return
        if at is None:
            del self._at[key_id]
        else:
            self._at[key_id] = at
            heapq.heappush(self._heap, (at, key_id))
        if len(self._heap) > 2 * len(self._at) + _FEW:
            self._heap = [(at, key_id) for key_id, at in self._at.items()]
            heapq.heapify(self._heap)

    def wait_s(self, now: float) -> float | None:
        """Return how long to wait before `due` is asked again; None: nothing expires."""
        if not self._at:
            return None
        return min(max(0.0, self._heap[0][0] - now), _LOOK_S)

    def due(self, now: float) -> list[str]:
        """Return the keys with an expiry up to `now` (Unix seconds), and drop it."""
        due = list[str]()
        while self._heap and self._heap[0][0] <= now:
            at, key_id = heapq.heappop(self._heap)
            if self._at.get(key_id) == at:
                del self._at[key_id]
                due.append(key_id)
        return due
