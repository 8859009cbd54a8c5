"""The walk of one reader through the log: where it is, what was lost on the way, and where it ends. Pure.

Owns what a reader decides: where to begin, whether a page shows a gap, what another generation of the log means for the
position, and when the end is reached. A reader reads pages, asks the walk about each one, and writes rounds. Knows
nothing of links, of the event loop or of how pages are read. Why: docs/adr/0014-one-walk-through-history.md
"""

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from relay.history.reading.stretch import Stretch
from relay.live.bounds import Bounds, Gap, GapReason
from relay.live.hub import Generation
from rounds import Cursor
from rounds.cursor import MAX_SEQUENCE


class State(Enum):
    """Where a walk is, relative to the log."""

    UNLOCATED = "unlocated"  # where to begin is not known yet
    BY_GAME = "by_game"  # each game is read by itself, from a floor of its own
    WALKING = "walking"  # the next rounds follow the position
    AT_HEAD = "at_head"  # everything known of the log is behind
    AHEAD = "ahead"  # another relay, a moment ahead of this one, gave the cursor
    ENDED = "ended"  # the end that was set has been reached


class PageVerdict(Enum):
    """What a page means to a walk."""

    ROUNDS = "rounds"  # progress
    GAP = "gap"  # rounds before it are gone
    ALL_GONE = "all_gone"  # it has no round at all: either all are gone, or the log is another one, not noticed yet
    NOTHING = "nothing"  # no progress: this relay has not yet seen the log up to the walk's end


class Resumption(NamedTuple):
    """Where reading begins: after this sequence of the present log, and what is gone before it."""

    position: int
    gap: Gap | None


def resume(after: Cursor, bounds: Bounds) -> Resumption:
    """Compare a client's cursor with the log. Everything that the log cannot give is in the gap."""
    before_first = bounds.first - 1
    if after.epoch != bounds.epoch:
        return Resumption(before_first, Gap(after, bounds.at(before_first), GapReason.REBUILT))
    if after.sequence > bounds.head:
        return Resumption(bounds.head, Gap(bounds.at(bounds.head), after, GapReason.AHEAD))
    if after.sequence < before_first:
        return Resumption(before_first, Gap(after, bounds.at(before_first), GapReason.EXPIRED))
    return Resumption(after.sequence, None)


def resume_since(found: int | None, bounds: Bounds) -> Resumption:
    """Begin at a time; `found` is the sequence before its first round, None when the log has none so late."""
    position = bounds.head if found is None else max(found, bounds.first - 1)
    if position == bounds.first - 1 > 0:  # there may have been rounds of that time before the oldest one
        return Resumption(position, Gap(bounds.at(0), bounds.at(position), GapReason.EXPIRED))
    return Resumption(position, None)


class Walk:
    """One reader's walk. It begins once, with one of the `begin` methods; until then it has no position."""

    def __init__(self, generation: Generation) -> None:
        self.generation = generation
        """The generation that the position belongs to."""
        self.floors: dict[str, int] = {}
        """The sequence at which each game begins, where games begin at different ones (`last`)."""
        self.position = 0
        """The sequence up to which everything wanted was written; of a located walk."""
        self.end = MAX_SEQUENCE
        """The sequence at which the walk ends; that of a walk which leads to the live stream is never reached."""
        self.is_located = False
        """Whether it is known where to begin."""
        self._counted_to = 0
        self._misses = True

    @property
    def cursor(self) -> Cursor | None:
        """The position as a client keeps it; None while it is not known where to begin."""
        return Cursor(self.generation.epoch, self.position) if self.is_located else None

    def state(self, head: int) -> State:
        """Return where the walk is, when `head` is the newest sequence that this relay has seen."""
        if not self.is_located:
            return State.UNLOCATED
        if self.position >= self.end:
            return State.ENDED
        if self.position < self._counted_to:
            return State.BY_GAME
        if self.position < head:
            return State.WALKING
        return State.AHEAD if self.position > head else State.AT_HEAD

    # --- where to begin ------------------------------------------------------------------------------------------

    def begin(self, generation: Generation, position: int, floors: Mapping[str, int] | None = None) -> None:
        """Begin after `position`, where nothing is gone; with `floors`, each game begins at its own."""
        self.generation, self.position, self.is_located = generation, position, True
        self.floors.update(floors or {})

    def begin_by_game(self, generation: Generation, bounds: Bounds, floors: Mapping[str, int], *, seen: int) -> None:
        """Begin each game at its floor and read it by itself up to the head; `seen` is the head that the hub has."""
        oldest = {game: max(floor, bounds.first) for game, floor in floors.items()}
        # A round that was stored while floors were counted comes after the position, whichever game it is of.
        self.begin(generation, min([bounds.head + 1, *oldest.values()]) - 1, oldest)
        self._counted_to = min(bounds.head, seen)

    def begin_up_to_head(self, generation: Generation, bounds: Bounds, after: Cursor | None) -> Gap | None:
        """Begin after a cursor, or at the oldest round, and end at the head of now; return what is gone.

        Without a cursor, rounds that are purged before the first one was read are not missed.
        """
        position, gap = Resumption(bounds.first - 1, None) if after is None else resume(after, bounds)
        self.begin(generation, position)
        self.end, self._misses = bounds.head, after is not None
        return gap

    # --- on the way ----------------------------------------------------------------------------------------------

    def judge(self, stretch: Stretch) -> PageVerdict:
        """Say what a page read from the position means."""
        if stretch.gap is not None and self._misses:
            return PageVerdict.GAP if stretch.entries else PageVerdict.ALL_GONE
        return PageVerdict.ROUNDS if stretch.covered_to > self.position else PageVerdict.NOTHING

    def pass_gap(self, stretch: Stretch) -> Gap | None:
        """Advance past what is gone before a page, if it is missed; return it."""
        if self.judge(stretch) not in (PageVerdict.GAP, PageVerdict.ALL_GONE) or stretch.gap is None:
            return None
        self.advance(stretch.gap.end.sequence)
        return stretch.gap

    def advance(self, sequence: int) -> None:
        """Everything wanted up to `sequence` was written, or is gone and was reported."""
        self.position = max(self.position, min(sequence, self.end))
        self._misses = True

    def begins(self, games: Collection[str]) -> dict[str, int]:
        """Return from where each game is read by itself; without those that have nothing up to the counted head."""
        begins = {game: max(self.position, floor - 1) for game, floor in self.floors.items() if game in games}
        return {game: begin for game, begin in begins.items() if begin < self._counted_to}

    def common_end(self, stretches: Sequence[Stretch]) -> int:
        """Return up to where pages of single games, together, are whole."""
        return min([self._counted_to, *(stretch.covered_to for stretch in stretches)])

    def follow(self, generation: Generation, bounds: Bounds, ends: Sequence[int]) -> Gap | None:
        """Continue in a new generation of the log; return the gap left by the previous one.

        Args:
            generation: The present one.
            bounds: What the log holds now.
            ends: Where the log ended after each loss of its tail, oldest first.
        """
        before, self.generation, position = self.generation, generation, self.position
        if before.epoch != bounds.epoch:
            gap = Gap(Cursor(before.epoch, position), bounds.at(bounds.first - 1), GapReason.REBUILT)
            self.position, self._counted_to = bounds.first - 1, 0
            self.floors.clear()
            return gap
        end = min(ends[before.losses :])
        # After the end, other rounds are stored now: games that would begin there begin with those.
        self.floors.update({game: min(floor, end + 1) for game, floor in self.floors.items()})
        self._counted_to = min(self._counted_to, end)
        self.end = min(self.end, end) if self.end < MAX_SEQUENCE else MAX_SEQUENCE
        if position <= end:
            return None
        self.position = end
        return Gap(bounds.at(end), bounds.at(position), GapReason.AHEAD)

    def compare(self, bounds: Bounds) -> Gap | None:
        """Set the end back to the log's head where it has less than it had; return what is gone before the position."""
        position, gap = resume(Cursor(self.generation.epoch, self.position), bounds)
        self.position, self.end = position, min(self.end, bounds.head)
        return gap
