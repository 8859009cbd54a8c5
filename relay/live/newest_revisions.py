"""The newest revision of the newest round of each game: the latest of a game, for clients that ask for corrections.

Pure. Corrections of older rounds change nothing here, however many there are. What a process has not seen of the
corrections of a round, since it was stored before the process began, is for the caller to read from the log, once.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from relay.live.item import Item
from rounds.subjects import game_of


class Unseen(NamedTuple):
    """Corrections of a round may stand in the log after sequence `begin`, up to and including `end`."""

    begin: int
    end: int


class NewestRevisions:
    """What is known of the corrections of each game's newest round."""

    def __init__(self) -> None:
        self._corrections: dict[str, Item] = {}
        self._unseen: dict[str, Unseen] = {}

    def begin(self, head: int, newest: Mapping[str, Item], corrections: Iterable[Item]) -> None:
        """Start after sequence `head`.

        Args:
            head: What is appended comes after it.
            newest: The newest round of each game up to it.
            corrections: The newest correction of each game; one after `head` is appended later.
        """
        self._corrections.clear()
        self._unseen.clear()
        for item in corrections:
            game = game_of(item.game)
            round_ = newest.get(game)
            if round_ is None or item.sequence < round_.sequence:
                continue
            if item.sequence <= head and is_revision_of(item, round_):
                self._corrections[game] = item
            else:
                self._unseen[game] = Unseen(round_.sequence, head)

    def append(self, correction: Item, newest: Mapping[str, Item]) -> None:
        """Take the next correction of the log; `newest` has the newest round of each game before it."""
        game = game_of(correction.game)
        round_ = newest.get(game)
        if round_ is not None and is_revision_of(correction, round_):
            self._corrections[game] = correction
            self._unseen.pop(game, None)

    def unseen(self, round_: Item) -> Unseen | None:
        """Return where corrections of its game's newest round may stand that are not known here; None: nowhere."""
        unseen = self._unseen.get(round_.game)
        return unseen if unseen is not None and unseen.begin == round_.sequence else None

    def found(self, round_: Item, correction: Item | None) -> None:
        """Take what a search of `unseen` has found: the newest correction of that round, or None."""
        if self.unseen(round_) is not None:
            del self._unseen[round_.game]
            if correction is not None:
                self._corrections[round_.game] = correction

    def of(self, round_: Item) -> Item:
        """Return the newest revision, as far as it is known, of a valid item that is its game's newest round."""
        correction = self._corrections.get(round_.game)
        if correction is not None and correction.sequence > round_.sequence and is_revision_of(correction, round_):
            return correction
        return round_


def is_revision_of(correction: Item, round_: Item) -> bool:
    """Whether an entry among the corrections of a game is one of this round of the game."""
    return correction.valid and round_.valid and correction.round.round_id == round_.round.round_id
