"""Wait for what has no event: a probe, a metric, a counter, a row. Where there is an event, wait for the event."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final, TypeVar, overload

T = TypeVar("T")

WAIT_S: Final = 60.0
"""Long enough for a busy machine. It only ends a wait that would last forever."""

_PAUSE_S: Final = 0.005


@overload
async def until(holds: Callable[[], Awaitable[T | None]], *, within_s: float = WAIT_S) -> T: ...
@overload
async def until(holds: Callable[[], T | None], *, within_s: float = WAIT_S) -> T: ...
async def until(holds: Callable[[], Any], *, within_s: float = WAIT_S) -> Any:
    """Call `holds`, a function or a coroutine function, until its result is true; return that result.

    Raises:
        TimeoutError: It was not true within `within_s` seconds. The text shows the last result.
    """
    answer = None
    try:
        async with asyncio.timeout(within_s):
            while True:
                asked = holds()
                answer = await asked if isawaitable(asked) else asked
                if answer:
                    return answer
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise TimeoutError(f"not within {within_s} s; the last answer was {answer!r}") from None
