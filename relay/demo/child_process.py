"""Child processes of the demo: read the log of an embedded server from stderr, and stop the server."""

import asyncio


def log_of(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    """Return the stderr of a process that was started with a pipe for it."""
    if process.stderr is None:
        raise AssertionError("the process was started without a pipe for stderr")
    return process.stderr


async def stop(process: asyncio.subprocess.Process, number: int, *, within_s: float) -> None:
    """Send signal `number` to a process, and SIGKILL when it has not ended within `within_s`. Does nothing if ended."""
    if process.returncode is not None:
        return
    process.send_signal(number)
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
