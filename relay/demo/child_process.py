"""What the embedded servers have in common: child processes with a log on stderr, and an end that always comes."""

import asyncio


def log_of(process: asyncio.subprocess.Process) -> asyncio.StreamReader:
    """Return the log of a process that was started with a pipe for it."""
    if process.stderr is None:
        raise AssertionError("started with a pipe")
    return process.stderr


async def stop(process: asyncio.subprocess.Process, number: int, *, within_s: float) -> None:
    """Ask a process to end with signal `number`; kill it when it does not. Nothing happens when it has ended."""
    if process.returncode is not None:
        return
    process.send_signal(number)
    try:
        async with asyncio.timeout(within_s):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
