"""The turns of replays on the event loop: one slice of rounds is made and written at a time.

Owns which replay is next: that of the payer whose slices took least time, see `relay.history.reading.fair_queue`. Live
rounds and everything else run between two slices: what takes several turns of the loop, such as a request or the start
of a resume, does not wait for a slice in each of them. Knows nothing of rounds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final

from relay.history.reading.fair_queue import FairQueue
from relay.history.reading.payer import Payer

_HEAD_START_S: Final = 0.1
"""CPU time of some 10,000 rounds: a resume of that many does not take turns with a crowd of another key."""

_REST_AFTER_S: Final = 0.0005
"""Time of slices after which no slice is made for some turns of the loop, while several replays wait."""
_REST_TURNS: Final = 16
"""So many turns: enough for most requests to be answered whole. One in which nothing is done takes 1 us."""
_REST_S: Final = 0.001
"""The longest time that they may take: about that of a slice."""


class SliceTurns:
    """The turns of all replays of one process."""

    def __init__(self) -> None:
        self._queue = FairQueue["asyncio.Future[None]"](head_start=_HEAD_START_S)
        self._is_taken = False
        self._spent_s = 0.0  # in slices since the last rest
        self._rests = 0  # turns of the present rest
        self._ended_at = 0.0  # when the last slice did

    @asynccontextmanager
    async def turn(self, payer: Payer) -> AsyncIterator[None]:
        """Wait for a turn of the loop, and run the block in it, which awaits nothing. Its time is counted."""
        await self._next_turn(payer)
        began = perf_counter()
        try:
            yield
        finally:
            self._ended_at = perf_counter()
            self._spent_s += self._ended_at - began
            self._queue.charge(payer, self._ended_at - began)

    async def _next_turn(self, payer: Payer) -> None:
        loop = asyncio.get_running_loop()
        if not self._is_taken:
            self._is_taken = True
            self._queue.serve(payer, 0.0)
            loop.call_soon(self._pass_on)
            return
        turn = loop.create_future()
        self._queue.add(payer, turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._queue.remove(payer, turn)
            raise

    def _pass_on(self) -> None:
        """Give the next turn of the loop to the replay that is first; called in each turn while some wait."""
        if self._spent_s > _REST_AFTER_S:
            if len(self._queue) > 1 and self._rests < _REST_TURNS and perf_counter() < self._ended_at + _REST_S:
                self._rests += 1
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
            self._spent_s, self._rests = 0.0, 0
        while (first := self._queue.pop(0.0)) is not None:
            _, turn = first
            if not turn.done():
                turn.set_result(None)
                asyncio.get_running_loop().call_soon(self._pass_on)
                return
        self._is_taken = False
