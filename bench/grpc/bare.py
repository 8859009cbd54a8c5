"""The most that the HTTP/2 engine can do: a server that writes bytes made beforehand to all of its streams."""

import asyncio
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

import uvloop

from relay.http2 import DataBatch, Http2Connections, Http2Limits, Http2Protocol
from relay.links.intake import Intake
from relay.rpc.calls.call_head import head_fields
from relay.rpc.calls.grpc_call import CallHandler, GrpcCall
from relay.rpc.calls.grpc_calls import GrpcCalls
from relay.rpc.calls.request_messages import prefixed
from relay.turns import Turns

PATH: Final = "/bare.Bare/Stream"


class _Ask(NamedTuple):
    """Messages to write to each stream."""

    first: int
    size: int
    together: bool


class Bare:
    """The handle of such a process, which listens on `port`."""

    def __init__(self, pid: int, port: int, pipe: Connection) -> None:
        self.pid, self.port, self._pipe = pid, port, pipe

    def write(self, first: int, count: int, *, together: bool) -> None:
        """Have messages from the `first` on written to every stream, `together` or one by one; does not wait for it."""
        self._pipe.send(_Ask(first, count, together))


@contextmanager
def bare(messages: Sequence[bytes]) -> Iterator[Bare]:
    """Run the process, on the cores this one is on. After the last message comes the first one again."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_main, args=(list(map(prefixed, messages)), theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        port = ours.recv()
        assert process.pid is not None
        yield Bare(process.pid, port, ours)
    finally:
        process.kill()
        process.join()


class _Follow(CallHandler):
    """Answers with headers, and gets what is written to all."""

    def __init__(self, call: GrpcCall, followers: list[GrpcCall]) -> None:
        super().__init__(call)
        self._followers = followers
        call.stream.send_headers(head_fields())
        followers.append(call)

    def lost(self) -> None:
        self._followers.remove(self.call)


def _main(messages: list[bytes], pipe: Connection) -> None:
    uvloop.run(_serve(messages, pipe))


async def _serve(messages: list[bytes], pipe: Connection) -> None:
    loop, turns, connections = asyncio.get_running_loop(), Turns(), Http2Connections(Http2Limits())
    followers: list[GrpcCall] = []
    calls = GrpcCalls(
        {PATH: lambda call: _Follow(call, followers)},
        request_bytes=1 << 10,
        header_bytes=16 << 10,
        most=1 << 20,
        retry_ms=lambda: 0,
    )

    def written() -> None:
        first, size, together = pipe.recv()
        asked = [messages[number % len(messages)] for number in range(first, first + size)]
        for batch in map(DataBatch, [b"".join(asked)] if together else asked):
            for call in followers:
                call.stream.write(batch)

    server = await loop.create_server(lambda: Intake(turns, Http2Protocol(calls, connections)), "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    loop.add_reader(pipe.fileno(), written)
    await connections.run()
