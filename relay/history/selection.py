"""Which rounds a replay sends of those that it reads, and when it has read past the end that was asked for. Pure."""

from collections.abc import Mapping, Sequence

import structlog

from relay.history.start import OVERRUN_MS, Start
from relay.live.channels import Subscription
from relay.live.encode import Form
from relay.live.item import Item

log = structlog.get_logger()


class ReplaySelection:
    """What one client wants of history: games and a filter, between two times, each game from its floor."""

    def __init__(self, wanted: Subscription, start: Start, floors: Mapping[str, int]) -> None:
        """`floors` is a view of the walk's: with `last`, the sequence at which each game begins."""
        self.wanted = wanted
        self._floors = floors
        self._since_ms = start.since_ms
        self._until_ms = start.until_ms
        self._is_unbounded = start.since_ms is None and start.until_ms is None and wanted.filter.is_empty
        self._newest_ms = 0  # time of the newest round that was seen

    @property
    def is_past_end(self) -> bool:
        """Whether a round was seen that is so much later than the end that none from before the end can follow."""
        return self._until_ms is not None and self._newest_ms > self._until_ms + OVERRUN_MS

    @property
    def is_plain(self) -> bool:
        """Whether every valid round of the games is to be sent."""
        return self._is_unbounded and not self._floors

    @property
    def is_shared(self) -> bool:
        """Whether what is to be sent depends on the subscription and on the position only."""
        return self._since_ms is None and self._until_ms is None and not self._floors

    def has(self, item: Item) -> bool:
        """Whether a round is to be sent."""
        if item.game not in self.wanted.games or not item.valid or item.sequence < self._floors.get(item.game, 0):
            return False
        timestamp = item.round.timestamp
        self._newest_ms = max(self._newest_ms, timestamp)
        if self._since_ms is not None and timestamp < self._since_ms:
            return False
        if self._until_ms is not None and timestamp > self._until_ms:
            return False
        return item.matches(self.wanted.filter)

    def rendered(self, items: Sequence[Item], form: Form) -> list[bytes]:
        """Return the bytes of the rounds that are to be sent. A round that fails costs itself only, as in the hub."""
        try:
            return self._rendered(items, form)
        except Exception:  # noqa: BLE001 - `_rendered_alone` logs which round it was
            return [data for item in items for data in self._rendered_alone(item, form)]

    def _rendered(self, items: Sequence[Item], form: Form) -> list[bytes]:
        if self.is_plain:  # the usual case, at half the cost
            games = self.wanted.games
            return [item.rendered(form) for item in items if item.game in games and item.valid]
        return [item.rendered(form) for item in items if self.has(item)]

    def _rendered_alone(self, item: Item, form: Form) -> list[bytes]:
        try:
            return self._rendered((item,), form)
        except Exception:
            log.exception("round_failed", game=item.game, cursor=item.cursor)
            return []
