"""The standard health service: serving only while the relay is ready.

Owns how readiness looks to gRPC's own probes. It asks at each call, so that there is nothing to keep up to date. Not
the library's servicer: that one says SERVING until it is told better, and one watcher that does not read keeps it
from being told anything.
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
"""How often readiness is looked at for those who watch it."""

_Answer = health_pb2.HealthCheckResponse


class HealthService:
    """Answers probes and watchers. They need no key: a platform asks before anyone has one."""

    def __init__(self, obstacle: Callable[[], str | None]) -> None:
        """`obstacle` is as for ``/readyz``: one word why no client should be sent here, or None when one may."""
        self._obstacle = obstacle

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server is given to serve it."""
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
        """Say how the service is; NOT_FOUND when there is none of that name."""
        if request.service not in _NAMES:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no service {request.service[:64]!r} here")
        return self._answer(request.service)

    async def watch(self, request: health_pb2.HealthCheckRequest, context: "Context") -> None:
        """Say how the service is, now and whenever that changes, until the client leaves or the server stops."""
        told = None
        while True:
            answer = self._answer(request.service)
            if answer != told:
                await context.write(answer)
                told = answer
            await asyncio.sleep(_WATCH_S)

    async def list(self, _request: health_pb2.HealthListRequest, _context: "Context") -> health_pb2.HealthListResponse:
        """Say how everything here is."""
        return health_pb2.HealthListResponse(statuses={name: self._answer(name) for name in _NAMES})

    def _answer(self, name: str) -> health_pb2.HealthCheckResponse:
        if name not in _NAMES:
            return _Answer(status=_Answer.SERVICE_UNKNOWN)
        return _Answer(status=_Answer.SERVING if self._obstacle() is None else _Answer.NOT_SERVING)
