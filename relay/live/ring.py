"""The newest rounds of every game, in memory: answers most reconnects, and is where replays join the live stream.

Pure. Owns from which sequence on it holds every round of a game, and returns None instead of an incomplete answer.
Corrections of a game are held beside its rounds, as if they were a game of their own: they displace no round.
Does not know the log, which has the older rounds.
"""

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable
from heapq import merge
from itertools import islice, takewhile
from operator import attrgetter
from typing import Final

from relay.live.item import Item
from relay.live.newest_revisions import NewestRevisions
from rounds.subjects import is_corrections

_ITEM_OVERHEAD_BYTES: Final = 1500
"""Memory of an item's objects besides its data, with two wire forms; measured with tracemalloc."""

_FOUND: Final = 256
"""Sets of games for which it is remembered from where on the ring is whole."""

_by_sequence: Final = attrgetter("sequence")


class _GameRing:
    __slots__ = ("is_of_corrections", "items", "size", "whole_from")

    def __init__(self, whole_from: int, *, is_of_corrections: bool) -> None:
        self.items: deque[Item] = deque()
        self.size = 0
        self.is_of_corrections = is_of_corrections
        self.whole_from = whole_from  # every round of this game after this sequence is in `items`


class Ring:
    """Rounds of one log, in log order. Each game has its own limits: a busy game does not displace a quiet one."""

    def __init__(self, *, rounds_per_game: int, bytes_per_game: int) -> None:
        self._rounds_per_game = rounds_per_game
        self._bytes_per_game = bytes_per_game
        self._games: dict[str, _GameRing] = {}
        self._begun_at = 0
        self._found_whole: dict[frozenset[str], int] = {}  # what `whole_from` returned, until that may change
        self.newest: dict[str, Item] = {}
        """The last round of each game, of any age."""
        self.revisions = NewestRevisions()
        """The last correction of each game's last round."""

    def begin(self, head: int, newest: Iterable[Item] = ()) -> None:
        """Drop all rounds, and start after sequence `head`.

        `newest` has the last round of each game up to it, and the last correction of each game, also one after it.
        """
        self._games.clear()
        self._found_whole.clear()
        self._begun_at = head
        items = list(newest)
        self.newest = {item.game: item for item in items if not item.is_correction}
        self.revisions.begin(head, self.newest, [item for item in items if item.is_correction])

    def append(self, item: Item) -> None:
        """Add the next round of the log."""
        ring = self._games.get(item.game)
        if ring is None:
            ring = self._games[item.game] = _GameRing(self._begun_at, is_of_corrections=item.is_correction)
        ring.items.append(item)
        if ring.is_of_corrections:
            self.revisions.append(item, self.newest)
        else:
            self.newest[item.game] = item
        ring.size += len(item.data) + _ITEM_OVERHEAD_BYTES
        while len(ring.items) > self._rounds_per_game or ring.size > self._bytes_per_game:
            oldest = ring.items.popleft()
            ring.size -= len(oldest.data) + _ITEM_OVERHEAD_BYTES
            ring.whole_from = oldest.sequence
            self._found_whole.clear()

    @property
    def begun_at(self) -> int:
        """The sequence up to which the ring holds no round of any game."""
        return self._begun_at

    def reach_back(self, start: int, items: Iterable[Item]) -> None:
        """Add `items`, every round after `start` up to `begun_at` in log order; the ring then begins at `start`."""
        begun_at, self._begun_at = self._begun_at, start
        self._found_whole.clear()
        older: dict[str, list[Item]] = {}
        for item in items:
            older.setdefault(item.game, []).append(item)
        for ring in self._games.values():
            if ring.whole_from == begun_at:  # it has dropped no round
                ring.whole_from = start
        for game, found in older.items():
            ring = self._games.setdefault(game, _GameRing(start, is_of_corrections=is_corrections(game)))
            if ring.whole_from == start:
                self._put_before(ring, found)

    def _put_before(self, ring: _GameRing, older: list[Item]) -> None:
        for item in reversed(older):
            size = len(item.data) + _ITEM_OVERHEAD_BYTES
            if len(ring.items) == self._rounds_per_game or ring.size + size > self._bytes_per_game:
                ring.whole_from = item.sequence
                return
            ring.items.appendleft(item)
            ring.size += size

    def whole_from(self, games: Iterable[str]) -> int:
        """Return the sequence after which the ring holds every round of `games`."""
        names = frozenset(games)
        found = self._found_whole.get(names)
        if found is None:
            found = max((self._whole_from(name) for name in names), default=self._begun_at)
            if len(self._found_whole) < _FOUND:
                self._found_whole[names] = found
        return found

    def after(self, sequence: int, games: Iterable[str], *, limit: int) -> list[Item] | None:
        """Return the first `limit` rounds of `games` after `sequence` in log order; None when the ring lacks some."""
        names = tuple(games)
        if sequence < self.whole_from(names):
            return None
        runs = []
        for name in names:
            ring = self._games.get(name)
            if ring is not None and ring.items and ring.items[-1].sequence > sequence:
                start = bisect_right(ring.items, sequence, key=_by_sequence)
                runs.append(islice(ring.items, start, start + limit))
        if len(runs) == 1:
            return list(runs[0])
        return list(islice(merge(*runs, key=_by_sequence), limit))

    def before(self, sequence: int, games: Iterable[str], *, limit: int) -> list[Item]:
        """Return the last `limit` rounds of `games` before `sequence` that the ring holds, newest first.

        Complete down to `whole_from` of those games, where the answer ends.
        """
        names = tuple(games)
        floor = self.whole_from(names)
        runs = []
        for name in names:
            if (ring := self._games.get(name)) is not None:
                end = bisect_left(ring.items, sequence, key=_by_sequence)
                runs.append(islice(reversed(ring.items), len(ring.items) - end, None))
        newest_first = runs[0] if len(runs) == 1 else merge(*runs, key=_by_sequence, reverse=True)
        return list(islice(takewhile(lambda item: item.sequence > floor, newest_first), limit))

    def last(self, game: str, count: int) -> list[Item] | None:
        """Return the newest `count` rounds of a game in log order; None when the ring holds fewer."""
        ring = self._games.get(game)
        if ring is None or len(ring.items) < count:
            return None
        return list(islice(ring.items, len(ring.items) - count, None))

    def items(self) -> list[Item]:
        """Return all rounds, in log order."""
        return list(merge(*(ring.items for ring in self._games.values()), key=_by_sequence))

    def __len__(self) -> int:
        return sum(len(ring.items) for ring in self._games.values())

    def _whole_from(self, game: str) -> int:
        ring = self._games.get(game)
        return self._begun_at if ring is None else ring.whole_from
