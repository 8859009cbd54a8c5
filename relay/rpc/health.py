"""The standard health service: serving only while the relay is ready.

Owns how readiness looks to gRPC probes. It reads readiness at each call, so no state has to be kept up to date.
The servicer of grpcio-health-checking is not used: it answers SERVING until its state is set, and one watcher that
does not read blocks every later change of that state.
https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2

from relay.rpc.methods import SERVICE

if TYPE_CHECKING:  # generic only for the type checker
    Context = aio.ServicerContext[Any, Any]

HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_NAMES: Final = ("", SERVICE)
_WATCH_S: Final = 0.25
"""How often readiness is read for watchers."""

_Answer = health_pb2.HealthCheckResponse


class HealthService:
    """Answers probes and watchers. They need no key: platforms send none."""

    def __init__(self, obstacle: Callable[[], str | None]) -> None:
        """`obstacle` is as for ``/readyz``: one word why the relay is not ready, or None when it is."""
        self._obstacle = obstacle

    def handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of all methods, for a server."""
        read, write = health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self.check, read, write),
            "Watch": grpc.unary_stream_rpc_method_handler(self.watch, read, write),
            "List": grpc.unary_unary_rpc_method_handler(
                self.list, health_pb2.HealthListRequest.FromString, health_pb2.HealthListResponse.SerializeToString
            ),
        }
        return grpc.method_handlers_generic_handler(HEALTH, methods)

    async def check(self, request: health_pb2.HealthCheckRequest, context: "Context") -> health_pb2.HealthCheckResponse:
        """Answer the status of a service; NOT_FOUND when there is none of that name."""
        if request.service not in _NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:64]!r} here")
        return self._answer(request.service)

    async def watch(self, request: health_pb2.HealthCheckRequest, context: "Context") -> None:
        """Write the status of a service, now and at each change, until the client leaves or the server stops."""
        sent = None
        while True:
            answer = self._answer(request.service)
            if answer != sent:
                await context.write(answer)
                sent = answer
            await asyncio.sleep(_WATCH_S)

    async def list(self, _request: health_pb2.HealthListRequest, _context: "Context") -> health_pb2.HealthListResponse:
        """Answer the status of every service."""
        return health_pb2.HealthListResponse(statuses={name: self._answer(name) for name in _NAMES})

    def _answer(self, name: str) -> health_pb2.HealthCheckResponse:
        if name not in _NAMES:
            return _Answer(status=_Answer.SERVICE_UNKNOWN)
        return _Answer(status=_Answer.SERVING if self._obstacle() is None else _Answer.NOT_SERVING)
