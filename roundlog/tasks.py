"""End tasks for good, although what they wait for may swallow a cancellation.

nats-py and psycopg wait with `asyncio.wait_for`, which in Python 3.11 drops a cancellation that comes together with
what it waits for, and nats-py drops some by itself. The task would then go on as if nobody had asked it to end.
https://github.com/python/cpython/issues/86296
"""

import asyncio
from typing import Any, Final

_AGAIN_S: Final = 1.0
"""Patience with a task that ends in good order before it is cancelled once more."""


async def ended(*tasks: asyncio.Task[Any], again_s: float = _AGAIN_S) -> None:
    """Cancel until it has worked; what the tasks raise meanwhile stays in them."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)


def raise_if_cancelled() -> None:
    """Raise `CancelledError` if this task has been cancelled and something kept that from it."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
