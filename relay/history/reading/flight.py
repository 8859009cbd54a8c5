"""A question to the log that several readers wait for: asked once, if anybody still waits when its turn comes.

Its turn comes when that of any of them does, who then pays: a reader does not wait behind the crowd of another key that
asked the same before. Knows nothing of the questions. `Flights` is for answers that must not be older than the reader's
question; `relay.history.reading.shared_pages` keeps answers for a while.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from relay.history.reading.fair_shares import Claim
from relay.history.reading.payer import RELAY, Payer

T = TypeVar("T")


class Flight(Generic[T]):
    """One question that is being asked, or waits for its turn."""

    __slots__ = ("_answer", "_is_given_up", "_is_sent", "_waiting", "claim")

    def __init__(self, ask: "Ask[T]") -> None:
        self.claim = Claim()
        """What those that wait for it claim together."""
        self._waiting = 0
        self._is_sent = False
        self._is_given_up = False
        self._answer = asyncio.create_task(ask(self), name="ask-log")
        self._answer.add_done_callback(_retrieve_error)

    @property
    def is_over(self) -> bool:
        """Whether it was answered, has failed, or was cancelled."""
        return self._answer.done()

    @property
    def has_failed(self) -> bool:
        """Whether there is no answer, and will be none."""
        answer = self._answer
        return self._is_given_up or (answer.done() and (answer.cancelled() or answer.exception() is not None))

    async def over(self) -> None:
        """Wait until `is_over`."""
        await asyncio.wait([self._answer])

    def call_when_over(self, callback: Callable[[], None]) -> None:
        """Call `callback` soon after it is over."""
        self._answer.add_done_callback(lambda _: callback())

    def sent(self) -> None:
        """Wait for the answer from now on even when nobody else does: it comes, and the next reader may want it."""
        self._is_sent = True

    async def join(self, payer: Payer = RELAY) -> T:
        """Wait for the answer; raise what asking raised. It is cancelled when nobody waits before it is `sent`."""
        self._waiting += 1
        self.claim.join(payer)
        try:
            return await asyncio.shield(self._answer)
        finally:
            self._waiting -= 1
            self.claim.leave(payer)
            if not (self._waiting or self._is_sent):
                self._is_given_up = True
                self._answer.cancel()


Ask = Callable[[Flight[T]], Coroutine[Any, Any, T]]
"""Asks a question; takes its turn by `Flight.claim`, and then calls `Flight.sent`."""


class Flights:
    """Questions by key. While one is being asked, all that want the same wait for the next one together."""

    def __init__(self) -> None:
        self._asked: dict[Hashable, Flight[Any]] = {}
        self._next: dict[Hashable, Flight[Any]] = {}

    async def join(self, key: Hashable, ask: Ask[T], payer: Payer = RELAY) -> T:
        """Return an answer to a question that was asked now or later; raise what `ask` does."""
        asked = self._asked.get(key)
        following = self._next.get(key)
        if asked is None or asked.is_over:
            flight = self._asked[key] = self._new(key, ask)
        elif following is not None and not following.has_failed:
            flight = following
        else:
            flight = self._next[key] = self._new(key, partial(self._after, asked, key, ask))
        answer: T = await flight.join(payer)
        return answer

    def _new(self, key: Hashable, ask: Ask[Any]) -> Flight[Any]:
        flight = Flight(ask)

        def forget() -> None:
            for flights in (self._asked, self._next):
                if flights.get(key) is flight:
                    del flights[key]

        flight.call_when_over(forget)
        return flight

    async def _after(self, asked: Flight[T], key: Hashable, ask: Ask[T], flight: Flight[T]) -> T:
        await asked.over()
        self._asked[key] = self._next.pop(key)
        return await ask(flight)


def _retrieve_error(answer: "asyncio.Task[Any]") -> None:
    """Retrieve the error of an answer that nobody needs any more, so that asyncio does not log it."""
    if not answer.cancelled():
        answer.exception()
