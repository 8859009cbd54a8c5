"""A bulk replay that its client reads step by step, over gRPC or through the proxy."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
from grpc import StatusCode, aio

from auth.key_secret import DEMO_KEY
from rounds import datastream_pb2 as pb
from tests.rpc.caller import Call, Caller, CallStatus, status_of
from tests.rpc.conftest import GrpcRelay
from tests.rpc.envelopes import element, end_status, envelope

TRANSPORTS: Final = ("grpc", "proxy")
READ_S: Final = 30.0


class Replaying(ABC):
    """A running replay."""

    @abstractmethod
    async def batch(self) -> pb.RoundBatch | CallStatus:
        """Read the next batch, or the status."""

    async def rest(self) -> tuple[list[pb.RoundBatch], CallStatus]:
        """Read it to its end."""
        batches = []
        async with asyncio.timeout(READ_S):
            while isinstance(read := await self.batch(), pb.RoundBatch):
                batches.append(read)
        return batches, read


_OK: Final = CallStatus(StatusCode.OK, "", {})


class _Grpc(Replaying):
    def __init__(self, call: Call) -> None:
        self._call = call

    async def batch(self) -> pb.RoundBatch | CallStatus:
        try:
            read = await self._call.read()
        except aio.AioRpcError as error:
            return status_of(error)
        return _OK if read is aio.EOF else read


class _Proxy(Replaying):
    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def batch(self) -> pb.RoundBatch | CallStatus:
        flags, data = await element(self._response)
        if flags == 0:
            return pb.RoundBatch.FromString(data)
        assert await self._response.content.read() == b"", "something follows the end"
        return end_status(data) or _OK


@asynccontextmanager
async def replaying(transport: str, relay: GrpcRelay, request: pb.ReplayRequest) -> AsyncIterator[Replaying]:
    """Run a replay while the block runs. A client that does not read gets little of it."""
    if transport == "grpc":
        small: dict[str, Any] = {"http2.bdp_probe": 0}
        async with Caller(relay.address, DEMO_KEY, **small) as calling:
            call = calling.call(request, timeout_s=2 * READ_S)
            yield _Grpc(call)
            call.cancel()
    else:
        headers = {"X-API-Key": DEMO_KEY, "Content-Type": "application/connect+proto"}
        async with (
            aiohttp.ClientSession(headers=headers) as http,
            http.post(relay.proxy("Replay"), data=envelope(request)) as response,
        ):
            yield _Proxy(response)
