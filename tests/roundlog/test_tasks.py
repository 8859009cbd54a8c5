"""Tasks end when they are cancelled, although a library swallows the first cancellation."""

import asyncio

import pytest
import structlog

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


async def test_caller_that_is_cancelled_still_waits() -> None:
    """Its tasks must not outlive what they use; the cancellations are raised when they have ended."""
    cleans, cleaned, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            cleans.set()
            await may_end.wait()
            cleaned.set()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    caller = asyncio.create_task(cancel_and_wait(task))
    await cleans.wait()
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    assert not caller.done()
    may_end.set()
    await asyncio.wait([caller])

    assert cleaned.is_set(), "the clean-up was not interrupted by the cancellations of the caller"
    assert task.cancelled()
    assert caller.cancelled()


async def test_caller_that_is_cancelled_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that cannot be ended is logged by its name."""
    monkeypatch.setattr("roundlog.tasks._GIVE_UP_S", 0.05)
    started = asyncio.Event()
    task = asyncio.create_task(deaf(started, 1000), name="stubborn")
    await started.wait()
    caller = asyncio.create_task(cancel_and_wait(task, again_s=0.01))
    await asyncio.sleep(0)
    caller.cancel()
    with structlog.testing.capture_logs() as logs:
        await asyncio.wait([caller])

    assert caller.cancelled()
    assert not task.done()
    assert [(line["event"], line["task"]) for line in logs] == [("task_not_ended", "stubborn")]
    await cancel_and_wait(task, again_s=0)


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
