"""A small service on a real port: it echoes bodies, and writes batches to all streams that follow."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from relay.http2 import DataBatch, HeaderFields, Http2Connections, Http2Limits, Http2Protocol, Http2Stream
from relay.links.intake import Intake
from relay.turns import Turns


def grpc_message(payload: bytes) -> bytes:
    """Frame a message as gRPC does: not compressed, and its length."""
    return b"\0" + len(payload).to_bytes(4, "big") + payload


class Echo:
    """Sends back what comes."""

    def __init__(self, stream: Http2Stream, headers: HeaderFields) -> None:
        self._stream = stream
        length = [(name, value) for name, value in headers if name == b"content-length"]
        stream.send_headers([(b":status", b"200"), (b"content-type", b"application/octet-stream"), *length])

    def data(self, data: bytes, ended: bool) -> None:
        self._stream.write(data)
        if ended:
            self._stream.end([(b"grpc-status", b"0")])

    def lost(self, code: int | None) -> None: ...


class Hello:
    """Sends a few bytes at the end of a request."""

    def __init__(self, stream: Http2Stream) -> None:
        self._stream = stream

    def data(self, data: bytes, ended: bool) -> None:
        if ended:
            self._stream.send_headers([(b":status", b"200")])
            self._stream.write(b"hello, world")
            self._stream.end()

    def lost(self, code: int | None) -> None: ...


class Follower:
    """A stream that gets every batch, as gRPC messages."""

    def __init__(self, service: "Streams", stream: Http2Stream) -> None:
        self._service = service
        self.stream = stream
        self.loss: list[int | None] = []
        stream.send_headers([(b":status", b"200"), (b"content-type", b"application/grpc")])
        service.followers.append(self)

    def data(self, data: bytes, ended: bool) -> None: ...

    def lost(self, code: int | None) -> None:
        self.loss.append(code)
        self._service.followers.remove(self)
        self._service.lost.append(code)


class Streams:
    """The service. `/hello` and `/echo` answer, `/test/Follow` follows; other paths are 404."""

    def __init__(self) -> None:
        self.followers: list[Follower] = []
        self.lost: list[int | None] = []

    def begin(self, stream: Http2Stream, headers: HeaderFields) -> Any:
        match dict(headers)[b":path"]:
            case b"/test/Follow":
                return Follower(self, stream)
            case b"/echo" | b"/test/Echo":
                return Echo(stream, headers)
            case b"/hello":
                return Hello(stream)
        stream.send_headers([(b":status", b"404")])
        stream.write(b"not found")
        stream.end()
        return Hello(stream)

    def write(self, *payloads: bytes) -> None:
        """Write messages to all followers, as one batch."""
        batch = DataBatch(b"".join(map(grpc_message, payloads)))
        for follower in self.followers:
            follower.stream.write(batch)

    def finish(self, status: bytes = b"0") -> None:
        """End all followers."""
        followers, self.followers = self.followers, []
        for follower in followers:
            follower.stream.end([(b"grpc-status", status), (b"grpc-message", b"done")])


class Server:
    """A server in a thread of its own."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, port: int, service: Streams, connections: Http2Connections
    ) -> None:
        self.port = port
        self.service = service
        self.connections = connections
        self._loop = loop

    def call(self, function: Any, *arguments: Any) -> Any:
        """Call a function in the server's loop, and return its result."""

        async def called() -> Any:
            return function(*arguments)

        return asyncio.run_coroutine_threadsafe(called(), self._loop).result(30)

    def unsent(self) -> int:
        """Return the most that one follower has unsent."""

        def most() -> int:
            return max((follower.stream.get_write_buffer_size() for follower in self.service.followers), default=0)

        found = self.call(most)
        assert isinstance(found, int)
        return found


@contextmanager
def serving(
    *, uses_uvloop: bool = True, limits: Http2Limits | None = None, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Serve while the block runs."""
    started: list[Server] = []
    is_started, stop = threading.Event(), asyncio.Event()

    async def run() -> None:
        loop, turns, service = asyncio.get_running_loop(), Turns(), Streams()
        connections = Http2Connections(limits or Http2Limits())
        listener = await loop.create_server(
            lambda: Intake(turns, Http2Protocol(service, connections)), "127.0.0.1", 0, ssl=tls
        )
        looks = asyncio.create_task(connections.run())
        started.append(Server(loop, listener.sockets[0].getsockname()[1], service, connections))
        is_started.set()
        await stop.wait()
        listener.close()
        connections.abort()
        looks.cancel()

    thread = threading.Thread(target=uvloop.run if uses_uvloop else asyncio.run, args=(run(),))
    thread.start()
    assert is_started.wait(30)
    try:
        yield started[0]
    finally:
        started[0].call(stop.set)
        thread.join(30)
