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
"""A deadline that only ends a test that would never end."""

Call = Any


class Refused(NamedTuple):
    """What a call ended with."""

    code: StatusCode
    sentence: str
    trailers: dict[str, str]


class Caller:
    """A channel and the metadata of a key. Entered for as long as it is used."""

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
        """Call a method that has one answer."""
        method = METHODS[type(request)]
        call = self.channel.unary_unary(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=_ANSWERS.get(method, pb.Round).FromString,
        )
        return await call(request, metadata=self.metadata, timeout=timeout_s)

    def call(self, request: Message, *, timeout_s: float = WAIT_S) -> Call:
        """Begin a call that streams; the caller ends it."""
        method = METHODS[type(request)]
        return self.channel.unary_stream(
            f"/{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=_ANSWERS.get(method, pb.Round).FromString,
        )(request, metadata=self.metadata, timeout=timeout_s)

    @asynccontextmanager
    async def stream(self, request: Message) -> AsyncIterator[Call]:
        """Stream for as long as the block lasts. When it begins, the relay follows the log for this stream."""
        call = self.call(request)
        try:
            await call.initial_metadata()
            yield call
        finally:
            call.cancel()

    async def refusal(self, request: Message, *, timeout_s: float = WAIT_S) -> Refused:
        """Make a call that is to fail; return what it fails with."""
        try:
            if METHODS[type(request)].startswith(("Stream", "Replay")):
                async for _ in self.call(request, timeout_s=timeout_s):
                    pass
            else:
                await self.ask(request, timeout_s=timeout_s)
        except aio.AioRpcError as error:
            return refused(error)
        raise AssertionError("the call was not refused")


def refused(error: aio.AioRpcError) -> Refused:
    """Take apart what grpcio raises."""
    return Refused(error.code(), error.details() or "", text_of(error.trailing_metadata()))


def text_of(metadata: Any) -> dict[str, str]:
    return {name: value for name, value in metadata or () if isinstance(value, str)}


async def read(call: Call, count: int) -> list[Any]:
    """Read so many messages of a stream."""
    return [await call.read() for _ in range(count)]


async def ending(call: Call) -> tuple[list[Any], Refused | None]:
    """Read a stream to its end; return its messages and, unless it ended well, what it ended with."""
    messages: list[Any] = []
    try:
        while (message := await call.read()) is not aio.EOF:
            messages.append(message)
    except aio.AioRpcError as error:
        return messages, refused(error)
    return messages, None
