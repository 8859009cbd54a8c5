"""The log reader alone, in a process of its own: reads the whole log as a replay does, and discards it."""

import asyncio
import multiprocessing
import time
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

import uvloop

from roundlog.log_settings import LogSettings
from roundlog.reader import LogReader

_PATIENCE_S: Final = 120.0


class Read(NamedTuple):
    """What was read, and how long it took."""

    rounds: int
    took_s: float


def read_alone(url: str, *, page: int) -> Read:
    """Run the process, on the cores this one is on, to its end; it reads `page` rounds at a time."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(url, page, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(_PATIENCE_S):
            raise SystemExit(f"the log was not read within {_PATIENCE_S:.0f} s")
        return Read(*ours.recv())
    finally:
        process.kill()
        process.join()


def _main(url: str, page: int, pipe: Connection) -> None:
    uvloop.run(_read(url, page, pipe))


async def _read(url: str, limit: int, pipe: Connection) -> None:
    async with LogReader(LogSettings(url=url)) as reader:
        last, position, count = await reader.last(), 0, 0
        started = time.monotonic()
        while position < last:
            page = await reader.page(position + 1, limit=limit)
            count += len(page.entries)
            position = page.entries[-1].sequence
            await asyncio.sleep(0)
        pipe.send((count, time.monotonic() - started))
