"""How many rounds of the log replays may hold in memory, all together.

A replay that waits, for its share or for its client, holds next to nothing; so memory stays bounded, however many
replays there are and however slowly they are read. Knows nothing of pages, logs or links.
"""

from typing import Final

from relay.history.reading.fair_shares import Claim, FairShares
from relay.history.reading.payer import RELAY, Payer

FEW: Final = 25
"""Rounds that a replay may hold for as long as it likes, such as those of a paced one that are not due yet."""


class Budget:
    """A number of rounds that may be held at a time. Readers that want more wait, in turns by payer."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self._shares = _WithReserve(rounds, most=rounds)

    async def take(self, rounds: int, payer: Payer = RELAY) -> int:
        """Wait for a share of so many rounds, or of all there are; return what to `give` back.

        A share of `FEW` rounds or fewer is 0 and needs no waiting. There is no deadline: each share is given back soon,
        and a reader that waits holds nothing.
        """
        rounds = self._size(rounds)
        if rounds:
            await self._shares.take(Claim(payer), rounds, cost=rounds)
        return rounds

    def try_take(self, rounds: int, payer: Payer = RELAY) -> int:
        """Take a share if it is free and no reader waits; return what to `give` back, 0 when there was none."""
        rounds = self._size(rounds)
        return rounds if rounds and self._shares.try_take(payer, rounds, cost=rounds) else 0

    def give(self, rounds: int, payer: Payer = RELAY) -> None:
        """Give a share back."""
        if rounds:
            self._shares.give(payer, rounds)

    @property
    def _free(self) -> int:
        return self._shares.free

    def _size(self, rounds: int) -> int:
        return 0 if rounds <= FEW else min(rounds, self._rounds)


class _WithReserve(FairShares):
    """Shares of which each key may hold as much as remains free: half of all while it is alone, a third each of two.

    So a key whose clients do not read, which holds its shares for long, leaves some for the others (dynamic thresholds,
    Choudhury and Hahne, 1998).
    """

    def _most_of(self, payer: Payer, free: int) -> int:
        return self._most if payer is RELAY else free
