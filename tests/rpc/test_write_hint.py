"""Several messages in one write: what grpcio does with the hint that we found a way to give it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import pytest
from grpc import aio

from relay.rpc.write_hint import enable, hold

_PATIENCE_S: Final = 10.0


@asynccontextmanager
async def served(stream: Callable[[bytes, Any], Awaitable[None]]) -> AsyncIterator[Any]:
    """Serve ``/test.Test/Stream``, and ``/test.Test/Answer`` which sends back what it gets; yield a channel to it."""
    enable()

    async def answer(request: bytes, _context: Any) -> bytes:
        return request

    server = aio.server()
    methods: dict[str, Any] = {
        "Stream": grpc.unary_stream_rpc_method_handler(stream),
        "Answer": grpc.unary_unary_rpc_method_handler(answer),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("test.Test", methods)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with asyncio.timeout(_PATIENCE_S), aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(grace=None)


@pytest.mark.service
async def test_a_held_message_leaves_together_with_the_next_one() -> None:
    """What another call on the connection is answered meanwhile overtakes it; nothing is lost, nor out of order."""
    held, go_on = asyncio.Event(), asyncio.Event()

    async def stream(_request: bytes, context: Any) -> None:
        await context.send_initial_metadata(())
        hold(context)
        await context.write(b"first")  # returns, though it has not left
        held.set()
        await go_on.wait()
        await context.write(b"second")

    async with served(stream) as channel:
        call = channel.unary_stream("/test.Test/Stream")(b"")
        await call.initial_metadata()
        first = asyncio.create_task(call.read())
        await held.wait()
        for _ in range(3):  # each goes there and back on the same connection
            assert await channel.unary_unary("/test.Test/Answer")(b"x") == b"x"
        assert not first.done()

        go_on.set()

        assert await first == b"first"
        assert await call.read() == b"second"
        assert await call.read() is aio.EOF


@pytest.mark.service
async def test_a_held_message_that_nothing_follows_leaves_with_the_end() -> None:
    """A stream may end, or be aborted, right after a held message."""

    async def stream(_request: bytes, context: Any) -> None:
        await context.send_initial_metadata(())
        hold(context)
        await context.write(b"last")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    async with served(stream) as channel:
        call = channel.unary_stream("/test.Test/Stream")(b"")

        assert await call.read() == b"last"
        with pytest.raises(aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.service
async def test_held_messages_of_any_size_arrive() -> None:
    """Also those that are larger than what gRPC lets wait, and than what a client takes at a time."""
    messages = [bytes([number]) * size for number, size in enumerate((10, 1 << 20, 10, 100_000, 64 << 10, 2 << 20, 1))]

    async def stream(_request: bytes, context: Any) -> None:
        await context.send_initial_metadata(())
        for message in messages[:-1]:
            hold(context)
            await context.write(message)
        await context.write(messages[-1])

    async with served(stream) as channel:
        call = channel.unary_stream("/test.Test/Stream")(b"")

        assert [message async for message in call] == messages
