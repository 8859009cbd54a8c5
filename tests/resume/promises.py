"""What was stored, and what each client may therefore see: the model that the state machine compares the relay with.

Pure. Knows logs, one after another as they were rebuilt, and judges what a client was sent, message by message.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rounds import Cursor

Message = dict[str, Any]

FOREIGN: Final = "k0"
"""An epoch that none of the logs had."""


@dataclass(frozen=True)
class Stored:
    """A round in one of the logs."""

    cursor: Cursor
    game: str
    number: int
    point: int


class Logs:
    """All logs so far; the last one is the present log."""

    def __init__(self, epoch: str) -> None:
        self.epochs = [epoch]
        self.rounds: list[Stored] = []
        self._floors: dict[str, int] = {}
        self._heads = {epoch: 0}

    @property
    def epoch(self) -> str:
        return self.epochs[-1]

    @property
    def head(self) -> Cursor:
        return Cursor(self.epoch, self._heads[self.epoch])

    @property
    def floor(self) -> int:
        """Everything up to this sequence was purged."""
        return self._floors.get(self.epoch, 0)

    def store(self, sequence: int, game: str, number: int, point: int) -> None:
        assert sequence == self.head.sequence + 1
        self._heads[self.epoch] = sequence
        self.rounds.append(Stored(Cursor(self.epoch, sequence), game, number, point))

    def purge(self, sequence: int) -> None:
        self._floors[self.epoch] = max(self.floor, sequence)

    def rebuild(self, epoch: str) -> None:
        self.epochs.append(epoch)
        self._heads[epoch] = 0

    def is_purged(self, cursor: Cursor) -> bool:
        return cursor.sequence <= self._floors.get(cursor.epoch, 0)

    def holds(self, games: Sequence[str]) -> bool:
        """Whether the present log still has a round of any of these games."""
        return any(
            stored.cursor.epoch == self.epoch and stored.game in games and not self.is_purged(stored.cursor)
            for stored in self.rounds
        )

    def key(self, cursor: Cursor) -> tuple[int, int]:
        """Order cursors of all logs, oldest first."""
        return (self.epochs.index(cursor.epoch) if cursor.epoch in self.epochs else -1, cursor.sequence)


@dataclass
class Following:
    """One game on one link, from where the client asked for it. Links may follow several; each is judged by itself."""

    game: str
    logs: Logs
    after: Cursor  # exclusive
    begun: int  # index of its first message among all that came on the link
    min_point: int = 0
    since_number: int = 0  # the first round that is late enough for `from`
    until_number: int | None = None  # the last round that is early enough for `to`
    last: int | None = None
    receives_events: bool = False
    ended: int | None = None  # index of the answer to `unsubscribe`
    not_mine: set[int] = field(default_factory=set)  # indexes of events that were sent for other games
    gaps: list[tuple[Cursor, Cursor, str]] = field(default_factory=list)

    def judge(self, seen: Sequence[Message], *, whole_up_to: Cursor | None) -> None:
        """Check everything that came for this game.

        Args:
            seen: All messages of the link.
            whole_up_to: No round up to here may be missing but those of gaps; None: what came may be cut off anywhere.
        """
        mine = seen[self.begun : self.ended]
        came = [Cursor.parse(m["cursor"]) for m in mine if "event" not in m and m["game_slug"] == self.game]
        keys = [self.logs.key(cursor) for cursor in came]
        assert keys == sorted(set(keys)), f"{self.game}: not once, or not in order: {came}"
        expected = [stored.cursor for stored in self._expected(came)]
        assert set(came) <= set(expected), f"{self.game}: not asked for: {sorted(set(came) - set(expected), key=str)}"
        events = [m for index, m in enumerate(mine, self.begun) if index not in self.not_mine]
        self.gaps = [_gap(m) for m in events if m.get("event") == "gap"]
        for cursor in came:
            assert not self._is_gone(cursor), f"{self.game}: {cursor} came, and a gap covers it: {self.gaps}"
        for cursor in expected:
            # A client without cursors gets no gap event; it can only miss what is not there.
            may_lack = self._is_gone(cursor) or (not self.receives_events and self.logs.is_purged(cursor))
            is_due = whole_up_to is not None and self.logs.key(cursor) <= self.logs.key(whole_up_to)
            has_overtaken = bool(keys) and self.logs.key(cursor) < keys[-1]
            if is_due or has_overtaken:
                assert may_lack or cursor in came, f"{self.game}: {cursor} is missing among {came}, gaps {self.gaps}"
        for begin, end, reason in self.gaps:
            self._judge_gap(begin, end, reason)

    def _expected(self, came: Sequence[Cursor]) -> Iterator[Stored]:
        matching = [stored for stored in self.logs.rounds if stored.game == self.game]
        if self.last is not None:
            yield from self._last_before_live(matching, came)
        for stored in matching:
            is_later = self.logs.key(stored.cursor) > self.logs.key(self.after)
            is_late = self.until_number is not None and stored.number > self.until_number
            if is_later and not is_late and stored.point >= self.min_point and stored.number >= self.since_number:
                yield stored

    def _last_before_live(self, matching: Sequence[Stored], came: Sequence[Cursor]) -> Sequence[Stored]:
        """The newest `last` rounds. Memory may still hold some that were purged, and count them."""
        assert self.last is not None
        before = [
            stored
            for stored in matching
            if stored.cursor.epoch == self.after.epoch and stored.cursor.sequence <= self.after.sequence
        ]
        kept = [stored for stored in before if not self.logs.is_purged(stored.cursor)]
        had = [stored for stored in before if stored.cursor in came]
        count = max(min(self.last, len(kept)), min(self.last, len(had)))
        return before[len(before) - count :]

    def _is_gone(self, cursor: Cursor) -> bool:
        key = self.logs.key
        return any(key(begin) < key(cursor) <= key(end) for begin, end, reason in self.gaps if reason != "ahead")

    def _judge_gap(self, begin: Cursor, end: Cursor, reason: str) -> None:
        assert self.receives_events
        assert self.logs.key(begin) < self.logs.key(end)
        match reason:
            case "expired":
                assert begin.epoch == end.epoch
                assert self.logs.is_purged(end), f"not everything up to {end} was purged"
            case "rebuilt":
                assert begin.epoch != end.epoch
                assert end.sequence == 0 or self.logs.is_purged(end)
            case "ahead":
                assert begin == self.after
            case _:
                raise AssertionError(f"no such reason: {reason}")


def _gap(message: Message) -> tuple[Cursor, Cursor, str]:
    return Cursor.parse(message["from"]), Cursor.parse(message["to"]), message["reason"]
