"""The corrections of single games, as they were read from the log a moment ago. One read serves many pages.

Corrections are few: a page of them covers what many pages of the game's rounds do. Owns how long such a page is used.
Knows nothing of the log.
"""

import asyncio
from typing import Final, NamedTuple

from relay.history.reading.stretch import Stretch
from relay.live.hub import Generation

_KEPT: Final = 8
"""Pages: of several games, or of readers at different positions."""
_FRESH_S: Final = 1.0
"""How long a page is used. What is deleted from the log is not sent longer than this."""


class CorrectionsOf(NamedTuple):
    """Which corrections pages are of, and how they were read."""

    name: str  # stands for the corrections of a game
    generation: Generation
    finds_gaps: bool


class _Kept(NamedTuple):
    of: CorrectionsOf
    begin: int
    stretch: Stretch
    until: float  # loop time


class CorrectionPages:
    """The newest pages of corrections of one source."""

    def __init__(self) -> None:
        self._kept: list[_Kept] = []

    def find(self, of: CorrectionsOf, position: int, *, end: int) -> Stretch | None:
        """Return corrections that are whole after `position` up to `end` at least; None when none are kept."""
        now = asyncio.get_running_loop().time()
        self._kept = [kept for kept in self._kept if kept.until >= now]
        for kept in self._kept:
            if kept.of == of and kept.begin <= position and kept.stretch.covered_to >= end:
                return kept.stretch
        return None

    def keep(self, of: CorrectionsOf, position: int, stretch: Stretch) -> None:
        """Keep corrections that were read after `position`."""
        until = asyncio.get_running_loop().time() + _FRESH_S
        self._kept = [*self._kept[1 - _KEPT :], _Kept(of, position, stretch, until)]
