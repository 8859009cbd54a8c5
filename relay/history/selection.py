"""Which rounds a replay sends of those that it reads, and when it has read beyond the end that was asked for. Pure."""

from collections.abc import Sequence

import structlog

from relay.history.start import OVERRUN_MS, Start
from relay.live.encode import Form
from relay.live.hub import Subscription
from relay.live.item import Item

log = structlog.get_logger()


class ReplaySelection:
    """What one client wants of history: games and a filter, between two times, each game from a place of its own."""

    def __init__(self, wanted: Subscription, start: Start) -> None:
        self.wanted = wanted
        self.floors: dict[str, int] = {}
        """With `last`: the sequence at which each game begins."""
        self._since_ms = start.since_ms
        self._until_ms = start.until_ms
        self._is_unbounded = start.since_ms is None and start.until_ms is None and wanted.filter.is_empty
        self._newest_ms = 0  # time of the newest round that was looked at

    @property
    def is_beyond_end(self) -> bool:
        """Whether a round was looked at that is so much later than the end that none before it can follow."""
        return self._until_ms is not None and self._newest_ms > self._until_ms + OVERRUN_MS

    def has(self, item: Item) -> bool:
        """Whether a round is to be sent."""
        if item.game not in self.wanted.games or not item.valid or item.sequence < self.floors.get(item.game, 0):
            return False
        timestamp = item.round.timestamp
        self._newest_ms = max(self._newest_ms, timestamp)
        if self._since_ms is not None and timestamp < self._since_ms:
            return False
        if self._until_ms is not None and timestamp > self._until_ms:
            return False
        return item.matches(self.wanted.filter)

    def rendered(self, items: Sequence[Item], form: Form) -> list[bytes]:
        """Return the bytes of the rounds that are to be sent. One that fails costs itself only, as in the hub."""
        try:
            return self._rendered(items, form)
        except Exception:  # noqa: BLE001 - it is told which one
            return [data for item in items for data in self._rendered_alone(item, form)]

    def cut(self, end: int) -> None:
        """Take back what begins behind sequence `end`, where the log has ended since: other rounds will be there."""
        self.floors = {game: min(floor, end + 1) for game, floor in self.floors.items()}

    def _rendered(self, items: Sequence[Item], form: Form) -> list[bytes]:
        if self._is_unbounded and not self.floors:  # the usual case, at half the cost
            games = self.wanted.games
            return [item.rendered(form) for item in items if item.game in games and item.valid]
        return [item.rendered(form) for item in items if self.has(item)]

    def _rendered_alone(self, item: Item, form: Form) -> list[bytes]:
        try:
            return self._rendered((item,), form)
        except Exception:
            log.exception("round_failed", game=item.game, cursor=item.cursor)
            return []
