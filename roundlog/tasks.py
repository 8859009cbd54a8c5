"""Cancel tasks reliably, although what they wait for may swallow a cancellation.

nats-py and psycopg wait with `asyncio.wait_for`, which in Python 3.11 drops a cancellation that arrives together with
the result it waits for; nats-py drops some itself. The task would then continue to run.
https://github.com/python/cpython/issues/86296
"""

import asyncio
from typing import Any, Final

_AGAIN_S: Final = 1.0
"""Time for a task to clean up before it is cancelled again."""


async def cancel_and_wait(*tasks: asyncio.Task[Any], again_s: float = _AGAIN_S) -> None:
    """Cancel tasks, again every `again_s`, until all have ended. What they raise stays in them."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=again_s)


def raise_if_cancelled() -> None:
    """Raise `CancelledError` if this task has been cancelled and the exception was swallowed on its way."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
