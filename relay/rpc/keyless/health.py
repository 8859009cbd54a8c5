"""The standard health service: serving only while the relay is ready.

Owns how readiness looks to gRPC probes. They need no key: platforms send none.
The servicer of grpcio-health-checking is not used: it answers SERVING until its state is set, and one watcher that
does not read blocks every later change of that state.
https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2

from auth.redact import redact
from relay.errors import BadRequest, SlowRequest
from relay.rpc.keyless.open_calls import OpenCalls
from relay.rpc.keyless.readiness import Readiness
from relay.rpc.methods import SERVICE
from relay.rpc.requests import only_request
from relay.rpc.status import status_of

if TYPE_CHECKING:  # generic only for the type checker
    Context = aio.ServicerContext[Any, Any]

HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_NAMES: Final = ("", SERVICE)

Method = Callable[[Any, "Context"], Awaitable[Any]]
_Answer = health_pb2.HealthCheckResponse


class HealthService:
    """Answers probes and watchers."""

    def __init__(self, readiness: Readiness, watches: OpenCalls, *, request_s: float) -> None:
        """Prepare to answer.

        Args:
            readiness: As ``/readyz`` reports it.
            watches: The share of watching calls.
            request_s: How long a client may take for its request.
        """
        self._readiness = readiness
        self._watches = watches
        self._request_s = request_s

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of all methods, for a server."""
        read, write = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.stream_unary_rpc_method_handler(partial(self._call, self.check), read, write),
            "Watch": grpc.stream_stream_rpc_method_handler(partial(self._call, self.watch), read, write),
            "List": grpc.stream_unary_rpc_method_handler(
                partial(self._call, self.list),
                health_pb2.HealthListRequest.FromString,
                health_pb2.HealthListResponse.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler(HEALTH, methods)

    async def _call(self, method: Method, _requests: object, context: "Context") -> Any:
        try:
            request = await only_request(context, within_s=self._request_s)
        except (SlowRequest, BadRequest) as error:
            status = status_of(error)
            if status is None:
                raise
            await context.abort(grpc.StatusCode[status.code.name], status.message)
        return await method(request, context)

    async def check(self, request: health_pb2.HealthCheckRequest, context: "Context") -> health_pb2.HealthCheckResponse:
        """Answer the status of a service; NOT_FOUND when there is none of that name."""
        if request.service not in _NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, redact(f"there is no service {request.service[:64]!r} here"))
        return self._answer(request.service)

    async def watch(self, request: health_pb2.HealthCheckRequest, context: "Context") -> None:
        """Write the status of a service, now and at each change, until the client leaves or the server stops."""

        async def work() -> None:
            sent = None
            with self._readiness.watched():
                while True:
                    changed = self._readiness.changed
                    answer = self._answer(request.service)
                    if answer != sent:
                        await context.write(answer)
                        sent = answer
                    await changed.wait()

        await self._watches.run(context, work)

    async def list(self, _request: health_pb2.HealthListRequest, _context: "Context") -> health_pb2.HealthListResponse:
        """Answer the status of every service."""
        return health_pb2.HealthListResponse(statuses={name: self._answer(name) for name in _NAMES})

    def _answer(self, name: str) -> health_pb2.HealthCheckResponse:
        if name not in _NAMES:
            return _Answer(status=_Answer.SERVICE_UNKNOWN)
        return _Answer(status=_Answer.SERVING if self._readiness.is_ready else _Answer.NOT_SERVING)
