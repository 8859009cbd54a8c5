"""Several messages in one write: how grpcio handles the write hint, and a grpcio with other internals."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Final

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from structlog.testing import capture_logs

from relay.config.sections import GrpcSettings
from relay.rpc.server import listening_grpc
from relay.rpc.write_hint import buffer_next_write, enable_write_hint

_PATIENCE_S: Final = 10.0


@asynccontextmanager
async def served(stream: Callable[[bytes, Any], Awaitable[None]]) -> AsyncIterator[Any]:
    """Serve ``/test.Test/Stream``, and ``/test.Test/Answer`` which returns its request; yield a channel to it."""
    enable_write_hint()

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
async def test_buffered_message_leaves_with_the_next_one() -> None:
    """Answers to another call on the connection arrive before it; no message is lost or out of order."""
    buffered, may_continue = asyncio.Event(), asyncio.Event()

    async def stream(_request: bytes, context: Any) -> None:
        await context.send_initial_metadata(())
        buffer_next_write(context)
        await context.write(b"first")  # returns before the message leaves
        buffered.set()
        await may_continue.wait()
        await context.write(b"second")

    async with served(stream) as channel:
        call = channel.unary_stream("/test.Test/Stream")(b"")
        await call.initial_metadata()
        first = asyncio.create_task(call.read())
        await buffered.wait()
        for _ in range(3):  # each is a round trip on the same connection
            assert await channel.unary_unary("/test.Test/Answer")(b"x") == b"x"
        assert not first.done()

        may_continue.set()

        assert await first == b"first"
        assert await call.read() == b"second"
        assert await call.read() is aio.EOF


@pytest.mark.service
async def test_buffered_last_message_leaves_with_the_end() -> None:
    """A stream may end, or be aborted, right after a buffered message."""

    async def stream(_request: bytes, context: Any) -> None:
        await context.send_initial_metadata(())
        buffer_next_write(context)
        await context.write(b"last")
        await context.abort(grpc.StatusCode.UNAVAILABLE, "draining")

    async with served(stream) as channel:
        call = channel.unary_stream("/test.Test/Stream")(b"")

        assert await call.read() == b"last"
        with pytest.raises(aio.AioRpcError) as refused:
            await call.read()
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.service
async def test_buffered_messages_of_any_size_arrive() -> None:
    """Also those larger than gRPC's write buffer and than a client's flow-control window."""
    messages = [bytes([number]) * size for number, size in enumerate((10, 1 << 20, 10, 100_000, 64 << 10, 2 << 20, 1))]

    async def stream(_request: bytes, context: Any) -> None:
        await context.send_initial_metadata(())
        for message in messages[:-1]:
            buffer_next_write(context)
            await context.write(message)
        await context.write(messages[-1])

    async with served(stream) as channel:
        call = channel.unary_stream("/test.Test/Stream")(b"")

        assert [message async for message in call] == messages


def test_installed_grpcio_has_the_hint() -> None:
    """Otherwise every message would be a write of its own, and only a log line would say so."""
    with capture_logs() as logs:
        assert enable_write_hint()

    assert logs == []


@pytest.mark.parametrize(
    "internals",
    [None, SimpleNamespace(), SimpleNamespace(WriteFlag=SimpleNamespace(no_compress=2))],
    ids=["module", "class", "flag"],
)
async def test_server_starts_with_a_grpcio_that_lacks_the_hint(
    internals: SimpleNamespace | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It logs that once, with the installed version, and serves: here its health."""
    monkeypatch.setitem(sys.modules, "grpc._cython.cygrpc", internals)
    handler = grpc.method_handlers_generic_handler("test.Test", {})
    with capture_logs() as logs:
        async with (
            listening_grpc(
                GrpcSettings(host="127.0.0.1", port=0), handler, lambda: None, max_links=1, connections=10
            ) as port,
            aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=_PATIENCE_S
            )

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert [(entry["event"], entry["grpcio"]) for entry in logs] == [("grpc_write_hint_missing", grpc.__version__)]
