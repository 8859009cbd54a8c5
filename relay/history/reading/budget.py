"""How many rounds of the log replays may hold in memory, all together.

A replay that waits, for its share or for its client, holds next to nothing; so memory stays bounded, however many
replays there are and however slowly they are read. Knows nothing of pages, logs or links.
"""

import asyncio
from collections import deque
from typing import Final

FEW: Final = 25
"""Rounds that a replay may hold for as long as it likes, such as those of a paced one that are not due yet."""


class Budget:
    """A number of rounds that may be held at a time. Readers that want more wait, first come, first served."""

    def __init__(self, rounds: int) -> None:
        self._rounds = self._free = rounds
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, rounds: int) -> int:
        """Wait for a share of so many rounds, or of all there are; return what to `give` back.

        A share of `FEW` rounds or fewer is 0 and needs no waiting. There is no deadline: each share is given back soon,
        and a reader that waits holds nothing.
        """
        rounds = self._size(rounds)
        if not rounds or (not self._waiting and rounds <= self._free):
            self._free -= rounds
            return rounds
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((rounds, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._admit()  # the next in the queue may need less
            else:
                self.give(rounds)
            raise
        return rounds

    def try_take(self, rounds: int) -> int:
        """Take a share if it is free and no reader waits; return what to `give` back, 0 when there was none."""
        rounds = self._size(rounds)
        if self._waiting or rounds > self._free:
            return 0
        self._free -= rounds
        return rounds

    def give(self, rounds: int) -> None:
        """Give a share back."""
        self._free += rounds
        self._admit()

    def _size(self, rounds: int) -> int:
        return 0 if rounds <= FEW else min(rounds, self._rounds)

    def _admit(self) -> None:
        while self._waiting:
            rounds, turn = self._waiting[0]
            if not turn.done():
                if rounds > self._free:
                    return
                self._free -= rounds
                turn.set_result(None)
            self._waiting.popleft()
