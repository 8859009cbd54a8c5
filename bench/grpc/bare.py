"""The most that grpc.aio can do: a server of nothing but a handler that yields bytes made beforehand."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final, Literal

import grpc
import uvloop
from grpc import aio

SERVICE: Final = "bare.Bare"


class Bare:
    """The handle of such a process, which listens on `port`."""

    def __init__(self, pid: int, port: int, pipe: Connection) -> None:
        self.pid, self.port, self._pipe = pid, port, pipe

    def write(self, times: int) -> None:
        """Have the messages yielded `times` times on every stream; does not wait for it."""
        self._pipe.send(times)


@contextmanager
def bare(messages: Sequence[bytes], *, loop: Literal["uvloop", "asyncio"] = "uvloop") -> Iterator[Bare]:
    """Run the process, on the cores this one is on."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(list(messages), theirs, loop), daemon=True)
    process.start()
    theirs.close()
    try:
        port = ours.recv()
        assert process.pid is not None
        yield Bare(process.pid, port, ours)
    finally:
        process.kill()
        process.join()


def _main(messages: list[bytes], pipe: Connection, loop: str) -> None:
    run = uvloop.run if loop == "uvloop" else asyncio.run
    run(_serve(messages, pipe))


async def _serve(messages: list[bytes], pipe: Connection) -> None:
    asked = 0
    more = asyncio.Condition()

    async def stream(_request: bytes, context: Any) -> AsyncIterator[bytes]:
        done = asked
        await context.send_initial_metadata(())
        while True:
            async with more:
                while asked == done:
                    await more.wait()
            for _ in range(asked - done):
                done += 1
                for message in messages:
                    yield message

    server = aio.server()
    methods: dict[str, Any] = {"Stream": grpc.unary_stream_rpc_method_handler(stream)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    pipe.send(port)
    while True:
        times = await asyncio.to_thread(pipe.recv)
        async with more:
            asked += times
            more.notify_all()
