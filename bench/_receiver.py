"""A process that only follows the log, so that its CPU is measured apart from the publisher's and the server's."""

import asyncio
import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import NamedTuple

import nats
import uvloop
from nats.errors import Error as NatsError

from bench._followers import MANY, WAYS

_QUIET_S = 10.0


class Received(NamedTuple):
    """What the process received of the rounds it expected."""

    cpu_s: float
    arrivals: list[tuple[int, float]]
    """Stream sequence and monotonic seconds, in order of arrival, of all its connections."""


class Receiver:
    """The handle of such a process."""

    def __init__(self, pipe: Connection, following: int) -> None:
        self._pipe = pipe
        self.following = following
        """Connections that follow; fewer than asked for when the server refused more."""

    def expect(self, count: int) -> None:
        """Reset the count; `count` rounds will come, over all connections together."""
        self._pipe.send(count)
        self._pipe.recv()

    def received(self) -> Received:
        """Wait until they have come, or 10 s have passed; return what has."""
        answer = self._pipe.recv()
        assert isinstance(answer, Received)
        return answer


@contextmanager
def receiver(url: str, way: str, *, connections: int = 1) -> Iterator[Receiver]:
    """Run a process that follows the log in one of `WAYS`, over a number of connections of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(url, way, connections, theirs), daemon=True)
    process.start()
    try:
        theirs.close()  # so that a process that dies ends our wait
        yield Receiver(ours, ours.recv())
        ours.send(0)
        process.join()
    finally:
        process.kill()


def _main(url: str, way: str, connections: int, pipe: Connection) -> None:
    uvloop.run(_follow(url, way, connections, pipe))


async def _follow(url: str, way: str, connections: int, pipe: Connection) -> None:
    arrivals: list[tuple[int, float]] = []
    expected = 0
    complete = asyncio.Event()

    def on_round(sequence: int, now: float) -> None:
        arrivals.append((sequence, now))
        if len(arrivals) == expected:
            complete.set()

    following = 0
    for _ in range(connections):
        nc = await nats.connect(url)
        try:
            await WAYS[way](nc, on_round, MANY)
        except NatsError:  # the server refuses more of this kind; the caller reads the number it accepted
            await nc.close()
            break
        following += 1
    pipe.send(following)
    while expected := await asyncio.to_thread(pipe.recv):
        arrivals.clear()
        complete.clear()
        before_s = time.process_time()
        pipe.send("counting")
        try:
            async with asyncio.timeout(_QUIET_S):
                await complete.wait()
        except TimeoutError:
            pass  # fewer came; the caller reads the number
        pipe.send(Received(time.process_time() - before_s, list(arrivals)))
