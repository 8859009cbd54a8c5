"""Server reflection: the methods and messages of the service, for tools. It needs no key, unless a setting says so.

Owns that a client cannot hold such a stream (`relay.rpc.keyless.open_calls`). The answers are those of
grpcio-reflection.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any

import grpc
from grpc import aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from relay.rpc.keyless.open_calls import OpenCalls
from relay.rpc.requests import next_request
from relay.rpc.status import status_of

if TYPE_CHECKING:  # generic only for the type checker
    Context = aio.ServicerContext[Any, Any]

REFLECTION = reflection.SERVICE_NAME


class Reflection:
    """Answers reflection requests."""

    def __init__(
        self,
        services: Iterable[str],
        calls: OpenCalls,
        *,
        request_s: float,
        check_key: Callable[["Context"], object] | None = None,
    ) -> None:
        """Prepare to answer.

        Args:
            services: Full names of the services to show.
            calls: The share of these streams.
            request_s: How long a client may take for each of its requests.
            check_key: Raises when a call has no valid key; None: it needs none.
        """
        self._servicer = reflection.aio.ReflectionServicer(services)
        self._calls = calls
        self._request_s = request_s
        self._check_key = check_key

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of all methods, for a server."""
        method = grpc.stream_stream_rpc_method_handler(
            self.answer,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        return grpc.method_handlers_generic_handler(REFLECTION, {"ServerReflectionInfo": method})

    async def answer(self, _requests: object, context: "Context") -> None:
        """Answer each request of a stream, until the client ends it or is silent for too long."""

        async def work() -> None:
            async for answer in self._servicer.ServerReflectionInfo(self._requests(context), context):
                await context.write(answer)

        try:
            if self._check_key is not None:
                self._check_key(context)
            await self._calls.run(context, work)
        except Exception as error:
            status = status_of(error)
            if status is None:
                raise
            await context.abort(grpc.StatusCode[status.code.name], status.message, status.trailers)

    async def _requests(self, context: "Context") -> AsyncIterator[Any]:
        while (request := await next_request(context, within_s=self._request_s)) is not aio.EOF:
            yield request
