"""The bounds of the log, requested while they change: no answer may leave out a round that is there."""

from typing import Any, cast

import pytest

from relay.history.history import History
from relay.live.bounds import Bounds
from relay.live.hub import Hub
from relay.live.ring import Ring
from relay.turns import Turns
from roundlog.entry import LogEntry
from tests.resume.log_writer import make_round
from tests.resume.memory_log import MemoryLog


class ChangingLog(MemoryLog):
    """A log that changes between two requests."""

    def __init__(self, *stored: int) -> None:
        super().__init__()
        self._stored = stored

    async def first(self) -> int | None:
        found = await super().first()
        self.happen()
        return found

    async def last(self) -> int:
        found = await super().last()
        self.happen()
        return found

    def happen(self) -> None:
        for sequence in self._stored:
            self.store(LogEntry(sequence, "crash", make_round("crash", sequence).to_json()), at_ms=0)
        self._stored = ()


@pytest.mark.parametrize("stored", [(1, 2, 3), (61, 62)], ids=["new", "all_before_it_removed"])
async def test_first_rounds_stored_between_two_requests_are_not_skipped(stored: tuple[int, ...]) -> None:
    """The bounds may include them or end before them, but not begin after them."""
    hub = Hub(Ring(rounds_per_game=10, bytes_per_game=1 << 20), unsent_bytes=1 << 20)
    hub.begin(Bounds("k3f9a2", 1, 0))

    bounds = await History(hub, cast("Any", ChangingLog(*stored)), Turns(), concurrent=1).bounds()

    assert bounds.first <= stored[0]
    assert bounds.first <= bounds.head + 1
