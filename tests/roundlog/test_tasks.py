"""Tasks end when they are cancelled, although a library swallows the first cancellation."""

import asyncio

import pytest

from roundlog.tasks import cancel_and_wait, raise_if_cancelled


async def deaf(started: asyncio.Event, times: int) -> None:
    """Swallow so many cancellations, as `asyncio.wait_for` can."""
    for _ in range(times + 1):
        try:
            started.set()
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if times == 0:
                raise
            times -= 1


async def test_task_that_missed_a_cancellation_is_cancelled_again() -> None:
    """Otherwise a process that stops would wait for the task without limit."""
    started, other = asyncio.Event(), asyncio.create_task(asyncio.sleep(0))
    task = asyncio.create_task(deaf(started, 2))
    await started.wait()
    await cancel_and_wait(task, other, again_s=0.01)
    assert task.done()
    assert other.done()


async def test_task_that_missed_a_cancellation_can_raise_it_later() -> None:
    """In the next turn of its loop, without a second cancellation."""
    started = asyncio.Event()

    async def work() -> None:
        raise_if_cancelled()  # not cancelled yet
        started.set()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        raise_if_cancelled()

    task = asyncio.create_task(work())
    await started.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
