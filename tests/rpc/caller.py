"""grpcio as a client of the service: what a program with generated stubs does, without the stubs."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import grpc
from google.protobuf.message import Message
from grpc import StatusCode, aio

from rounds import datastream_pb2 as pb

SERVICE: Final = "datastream.DataStream"
METHODS: Final[dict[type[Message], str]] = {
    pb.StreamByGameRequest: "StreamByGame",
    pb.StreamByTypeRequest: "StreamByType",
    pb.StreamAllRequest: "StreamAll",
    pb.ReplayRequest: "Replay",
    pb.GetLatestRequest: "GetLatest",
    pb.GetHistoryRequest: "GetHistory",
    pb.ListGamesRequest: "ListGames",
}
_ANSWERS: Final[dict[str, type[Message]]] = {
    "Replay": pb.RoundBatch,
    "GetHistory": pb.GetHistoryResponse,
    "ListGames": pb.ListGamesResponse,
}

WAIT_S: Final = 20.0
"""A deadline, so that a failing test ends."""

Call = Any


class CallStatus(NamedTuple):
    """The status that a call ended with."""

    code: StatusCode
    message: str
    trailers: dict[str, str]


class Caller:
    """A channel, and the metadata of a key. An async context manager."""

    def __init__(
        self, address: str, key: str | None, credentials: grpc.ChannelCredentials | None = None, **options: Any
    ) -> None:
        self.metadata = [] if key is None else [("x-api-key", key)]
        arguments: Sequence[tuple[str, Any]] = [(f"grpc.{name}", value) for name, value in options.items()]
        if credentials is None:
            self.channel = aio.insecure_channel(address, options=arguments)
        else:
            self.channel = aio.secure_channel(address, credentials, options=arguments)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.channel.close()

    async def ask(self, request: Message, *, timeout_s: float = WAIT_S) -> Any:
        """Call a unary method."""
        method = METHODS[type(request)]
        call = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=_ANSWERS.get(method, pb.Round).FromString,
        )
        return await call(request, metadata=self.metadata, timeout=timeout_s)

    def call(self, request: Message, *, timeout_s: float = WAIT_S) -> Call:
        """Begin a streaming call; the caller ends it."""
        method = METHODS[type(request)]
        return self.channel.unary_stream(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=_ANSWERS.get(method, pb.Round).FromString,
        )(request, metadata=self.metadata, timeout=timeout_s)

    @asynccontextmanager
    async def stream(self, request: Message) -> AsyncIterator[Call]:
        """Stream while the block runs. When it begins, the relay follows the log for this stream."""
        call = self.call(request)
        try:
            await call.initial_metadata()
            yield call
        finally:
            call.cancel()

    async def failure(self, request: Message, *, timeout_s: float = WAIT_S) -> CallStatus:
        """Make a call that is expected to fail; return its status."""
        try:
            if METHODS[type(request)].startswith(("Stream", "Replay")):
                async for _ in self.call(request, timeout_s=timeout_s):
                    pass
            else:
                await self.ask(request, timeout_s=timeout_s)
        except aio.AioRpcError as error:
            return status_of(error)
        raise AssertionError("the call was not refused")


def status_of(error: aio.AioRpcError) -> CallStatus:
    """Return the status of an error of grpcio."""
    return CallStatus(error.code(), error.details() or "", text_of(error.trailing_metadata()))


def text_of(metadata: Any) -> dict[str, str]:
    return {name: value for name, value in metadata or () if isinstance(value, str)}


async def read(call: Call, count: int) -> list[Any]:
    """Read `count` messages of a stream."""
    return [await call.read() for _ in range(count)]


async def read_to_end(call: Call) -> tuple[list[Any], CallStatus | None]:
    """Read a stream to its end; return its messages and its status, None for OK."""
    messages: list[Any] = []
    try:
        while (message := await call.read()) is not aio.EOF:
            messages.append(message)
    except aio.AioRpcError as error:
        return messages, status_of(error)
    return messages, None
