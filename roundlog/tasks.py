"""Cancel tasks reliably, although what they wait for may swallow a cancellation.

nats-py and psycopg wait with `asyncio.wait_for`, which in Python 3.11 drops a cancellation that arrives together with
the result it waits for; nats-py drops some itself. The task would then continue to run.
https://github.com/python/cpython/issues/86296
"""

import asyncio
import math
from typing import Any, Final

import structlog

log = structlog.get_logger()

_AGAIN_S: Final = 1.0
"""Time for a task to clean up before it is cancelled again."""
_GIVE_UP_S: Final = 10.0
"""How long a caller that is cancelled itself waits for the tasks: longer than closing a connection takes."""


async def cancel_and_wait(*tasks: asyncio.Task[Any], again_s: float = _AGAIN_S) -> None:
    """Cancel tasks, again every `again_s`, until all have ended. What they raise stays in them.

    A cancellation of the caller meanwhile does not end the wait: the tasks would outlive what they use. It is raised
    when they have ended, or `_GIVE_UP_S` after it; then those that still run are logged.
    """
    clock = asyncio.get_running_loop().time
    pending = {task for task in tasks if not task.done()}
    cancelled: asyncio.CancelledError | None = None
    cancel_at, give_up_at = clock(), math.inf
    while pending and (now := clock()) < give_up_at:
        if now >= cancel_at:
            for task in pending:
                task.cancel()
            cancel_at = now + again_s
        try:
            await asyncio.wait(pending, timeout=min(cancel_at, give_up_at) - now)
        except asyncio.CancelledError as error:
            if cancelled is None:
                give_up_at = clock() + _GIVE_UP_S
            cancelled = error
        pending = {task for task in pending if not task.done()}
    if cancelled is not None:
        for task in pending:
            log.error("task_not_ended", task=task.get_name(), after_s=_GIVE_UP_S)
        raise cancelled


def raise_if_cancelled() -> None:
    """Raise `CancelledError` if this task has been cancelled and the exception was swallowed on its way."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
