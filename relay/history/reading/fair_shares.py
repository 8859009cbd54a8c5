"""Shares of something that is scarce, such as reads at a time: payers that wait get them in turns.

Owns waiting, cancellation, and that one key does not hold everything. The order is that of
`relay.history.reading.fair_queue`.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from relay.history.reading.fair_queue import FairQueue
from relay.history.reading.payer import Payer


class Claim:
    """A wait for one share, by one payer or by several that want the same: the first whose turn comes gets it."""

    __slots__ = ("_joined", "_payers", "_queue", "_turn", "cost", "units")

    def __init__(self, payer: Payer | None = None) -> None:
        self.units, self.cost = 1, 1.0
        self._payers = Counter[Payer](() if payer is None else (payer,))
        self._queue: FairQueue[Claim] | None = None
        self._turn: asyncio.Future[Payer] | None = None
        self._joined: Callable[[], None] | None = None

    @property
    def payer(self) -> Payer | None:
        """The one who came first; None when nobody waits any more."""
        return next(iter(self._payers), None)

    @property
    def is_given_up(self) -> bool:
        """Whether its wait was cancelled, by a task that has not run since."""
        return self._turn is not None and self._turn.cancelled()

    def join(self, payer: Payer) -> None:
        """Let a payer wait for the same."""
        self._payers[payer] += 1
        if self._queue is not None and self._joined is not None:
            self._queue.add(payer, self)
            self._joined()

    def leave(self, payer: Payer) -> None:
        """Let one wait of a payer end."""
        self._payers[payer] -= 1
        if not self._payers[payer]:
            del self._payers[payer]
            if self._queue is not None:
                self._queue.remove(payer, self)

    def wait(self, queue: "FairQueue[Claim]", joined: Callable[[], None]) -> "asyncio.Future[Payer]":
        """Wait in a queue; the result is the payer whose turn it was. `joined` is called when a payer has joined."""
        self._queue, self._joined = queue, joined
        self._turn = asyncio.get_running_loop().create_future()
        for payer in self._payers:
            queue.add(payer, self)
        return self._turn

    def admit(self, payer: Payer) -> None:
        """Let it wait no more: a payer's turn has come."""
        self.withdraw()
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(payer)

    def withdraw(self) -> None:
        """Let it wait no more, for any payer."""
        queue, self._queue = self._queue, None
        if queue is not None:
            for payer in self._payers:
                queue.remove(payer, self)


class Turn:
    """A share that is held: who pays, and what it costs."""

    __slots__ = ("cost", "payer")

    def __init__(self, payer: Payer, cost: float) -> None:
        self.payer = payer
        self.cost = cost
        """Counted at first as expected; set to what it was, if that is known before the end."""


class FairShares:
    """A number of units that may be held at a time."""

    def __init__(self, units: int, *, most: int, head_start: float = 0.0) -> None:
        """Make all units free.

        Args:
            units: How many there are.
            most: How many of them one key may hold, so that another one finds some.
            head_start: See `FairQueue`.
        """
        self._free = units
        self._most = most
        self._held = Counter[str]()
        self._queue = FairQueue[Claim](head_start=head_start)
        self._suspended = dict[str, Payer]()

    @property
    def free(self) -> int:
        """Units that nobody holds."""
        return self._free

    async def take(self, claim: Claim, units: int = 1, *, cost: float) -> Payer:
        """Wait for so many units; return the payer that got them, which is charged what they cost.

        There is no deadline. A wait that is cancelled holds nothing, and costs nothing.
        """
        claim.units, claim.cost = units, cost
        payer = claim.payer
        if payer is not None and self._may_take(payer, units):
            self._queue.serve(payer, cost)
            self._take(payer, units)
            return payer
        turn = claim.wait(self._queue, self._admit)
        self._admit()  # a key that may hold no more is not to be waited for
        try:
            return await turn
        except asyncio.CancelledError:
            claim.withdraw()
            if not turn.cancelled():
                self._queue.charge(turn.result(), -cost)
                self.give(turn.result(), units)
            else:
                self._admit()  # the next one may need less
            raise

    def try_take(self, payer: Payer, units: int, *, cost: float) -> bool:
        """Take units if no wait is needed; return whether that was so."""
        if not self._may_take(payer, units):
            return False
        self._queue.serve(payer, cost)
        self._take(payer, units)
        return True

    def give(self, payer: Payer, units: int = 1) -> None:
        """Give units back."""
        self._free += units
        self._held[payer.key_id] -= units
        if self._held[payer.key_id] <= 0:
            del self._held[payer.key_id]
        for one in self._suspended.values():  # each holds some, so they are few
            self._queue.resume(one)
        self._suspended.clear()
        self._admit()

    @asynccontextmanager
    async def turn(self, claim: Claim, *, cost: float, within_s: float) -> AsyncIterator[Turn]:
        """Hold one unit while the block runs; raise TimeoutError when it was not to be had in time."""
        payer = claim.payer
        if payer is None or not self.try_take(payer, 1, cost=cost):  # a timer for each turn would cost as much as it
            async with asyncio.timeout(within_s):
                payer = await self.take(claim, cost=cost)
        turn = Turn(payer, cost)
        try:
            yield turn
        finally:
            if turn.cost != cost:
                self._queue.charge(turn.payer, turn.cost - cost)
            self.give(turn.payer)

    def _may_take(self, payer: Payer, units: int) -> bool:
        return units <= self._free and self._is_within(payer, units) and self._queue.first() is None

    def _is_within(self, payer: Payer, units: int) -> bool:
        """Whether enough remains for other keys. One that holds nothing may take what it needs."""
        held = self._held[payer.key_id]
        return not held or held + units <= self._most_of(payer, self._free - units)

    def _most_of(self, payer: Payer, free: int) -> int:
        """Return how many units one key may hold when `free` remain."""
        del payer, free
        return self._most

    def _take(self, payer: Payer, units: int) -> None:
        self._free -= units
        self._held[payer.key_id] += units

    def _admit(self) -> None:
        while (first := self._queue.first()) is not None:
            payer, claim = first
            if claim.is_given_up:
                claim.withdraw()
                continue
            if claim.units > self._free:
                return
            if not self._is_within(payer, claim.units):
                self._suspended[payer.key_id] = payer
                self._queue.suspend(payer)
                continue
            self._queue.pop(claim.cost)
            self._take(payer, claim.units)
            claim.admit(payer)
