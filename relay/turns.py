"""The share of each turn of the event loop for everything that clients cause: first come, first served.

Owns how long all of it together may take in one turn: bytes to handle, steps of handlers, connections that begin and
end. Live rounds are not part of it: they wait for one share at most. Does not know what the work is.
Why: docs/adr/0016-a-share-of-each-turn.md
"""

import asyncio
import types
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Sequence
from functools import partial
from time import perf_counter
from typing import Any, Final, Protocol, TypeVar

_TURN_S: Final = 0.0003
"""The share: short beside the time that a round takes through the relay."""
_STEP_S: Final = 0.0002
"""What a step of a handler is counted as, until it has been measured."""
_SLICE: Final = 40
"""Items handled at a time: rounds that were parsed before take 0.05 ms, those that are rendered 0.4 ms."""

T = TypeVar("T")


class Work(Protocol):
    """What one connection has to do."""

    def work(self) -> bool:
        """Do a small part of it; return whether there is more."""

    def finished(self) -> None:
        """Called when no more was left, if that was in a later turn."""


class Turns:
    """Divides the share. Work that is not finished when it is over waits behind all that waits."""

    def __init__(self, *, turn_s: float = _TURN_S) -> None:
        self._turn_s = turn_s
        self._left_s = turn_s
        self._next_due = False
        self._began: float | None = None  # since when a step runs whose time is not taken yet
        self._waiting: deque[tuple[float, Work]] = deque()  # with the loop time since which it waits

    def is_over(self) -> bool:
        """Say whether work that comes now has to wait for a later turn."""
        return bool(self._waiting) or self._left_s <= 0

    def waited_since(self, now: float) -> float:
        """Return the loop time up to which everything that came has been handled; `now` when nothing waits."""
        return self._waiting[0][0] if self._waiting else now

    def serve(self, work: Work) -> bool:
        """Do work, as far as this turn has time; return whether it is finished.

        When it is not, its `Work.finished` is called in the later turn in which it is.
        """
        if not self.is_over() and self._do(work):
            return True
        self.serve_later(work)
        return False

    def serve_later(self, work: Work) -> None:
        """Do as `serve`, in a later turn."""
        self._call_next()
        self._waiting.append((asyncio.get_running_loop().time(), work))

    def call(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a turn has time for it."""
        self.serve(_Call(callback))

    async def slices(self, items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
        """Yield items that a handler has in memory, few at a time, each when a turn has time for them."""
        for at in range(0, len(items), _SLICE):
            await self.wait()
            yield items[at : at + _SLICE]

    async def wait(self) -> None:
        """Wait until a turn has time for a step of a handler that is `measured`, from here to where it waits next."""
        self._take_time()
        if not self.is_over():
            return
        entry = _Entry(self)
        self.serve_later(entry)
        await entry.entered
        self.spend(-_STEP_S)  # now it is measured

    def spend(self, time_s: float) -> None:
        """Take time from this turn; what it does not have is taken from the next one."""
        self._left_s -= time_s
        if self._left_s < self._turn_s / 2:  # with more, a call in each turn would cost more than it gives
            self._call_next()

    async def measured(self, handler: Coroutine[Any, Any, T]) -> T:
        """Run a handler, and take the time of each of its steps from the turn in which it runs."""
        steps = _Steps(self, handler)
        try:
            awaited = self.step(steps.send)
        except StopIteration as end:
            answer: T = end.value
            return answer
        rest: T = await steps.rest(awaited)
        return rest

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Do the first step of `work` now and the others in a task, which is returned, and take their time."""
        steps = _Steps(self, work)
        try:
            awaited = self.step(steps.send)
        except StopIteration:
            return None
        return asyncio.create_task(_rest(steps, awaited))

    def step(self, step: Callable[[], T]) -> T:
        """Run a step of a handler, or other work, and take its time; one within another is counted once."""
        is_outer = self._began is None
        if is_outer:
            self._began = perf_counter()
        try:
            return step()
        finally:
            self._take_time()
            if is_outer:
                self._began = None

    def _take_time(self) -> None:
        """Take the time of the step that is running, so far."""
        if self._began is not None:
            now = perf_counter()
            self.spend(now - self._began)
            self._began = now

    def _do(self, work: Work) -> bool:
        unfinished = True
        while unfinished and self._left_s > 0:
            unfinished = self.step(work.work)
        return not unfinished

    def _call_next(self) -> None:
        if not self._next_due:
            self._next_due = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._next_due = False
        self._left_s = min(self._turn_s, max(0.0, self._left_s + self._turn_s))
        try:
            while self._waiting and self._left_s > 0:
                _, work = self._waiting.popleft()
                if self._do(work):
                    work.finished()
                else:
                    self.serve_later(work)
        finally:
            if self._waiting or not self._left_s:
                self._call_next()


class _Call:
    """A call that may wait."""

    __slots__ = ("_callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self._callback = callback

    def work(self) -> bool:
        self._callback()
        return False

    def finished(self) -> None:
        """Do nothing."""


class _Entry:
    """The start of a step of a handler."""

    __slots__ = ("_turns", "entered")

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.entered = asyncio.get_running_loop().create_future()

    def work(self) -> bool:
        if not self.entered.cancelled():
            self._turns.spend(_STEP_S)
        return False

    def finished(self) -> None:
        if not self.entered.done():
            self.entered.set_result(None)


async def _rest(steps: "_Steps", awaited: object) -> None:
    await steps.rest(awaited)


class _Steps:
    """The steps of a coroutine, each of which is measured."""

    __slots__ = ("_throw", "_turns", "send")

    def __init__(self, turns: Turns, handler: Coroutine[Any, Any, Any]) -> None:
        self._turns = turns
        self.send = partial(handler.send, None)
        self._throw = handler.throw

    @types.coroutine
    def rest(self, awaited: Any) -> Generator[Any, Any, Any]:
        """Run what follows a step after which `awaited` is awaited."""
        while True:
            try:
                yield awaited
            except BaseException as error:  # noqa: BLE001 - the handler decides
                step: Callable[[], Any] = partial(self._throw, error)
            else:
                step = self.send
            try:
                awaited = self._turns.step(step)
            except StopIteration as end:
                return end.value
