"""The standard health service: serving only while the relay is ready.

Owns how readiness looks to gRPC probes. They need no key: platforms send none.
The servicer of grpcio-health-checking is not used, only its messages: it answers SERVING until its state is set, and
one watcher that does not read blocks every later change of that state.
https://github.com/grpc/grpc/blob/master/doc/health-checking.md
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from grpc_health.v1 import health_pb2

from auth.redact import redact
from relay.rpc.calls.grpc_call import Begin, GrpcCall
from relay.rpc.convert import parse_message
from relay.rpc.keyless.keyless_call import KeylessCall, Waiting
from relay.rpc.keyless.open_calls import OpenCalls
from relay.rpc.keyless.readiness import Readiness
from relay.rpc.methods import SERVICE
from relay.rpc.status import Status, StatusError
from relay.rpc.status_code import StatusCode

HEALTH: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_NAMES: Final = ("", SERVICE)

_Request: Any = health_pb2.HealthCheckRequest  # the package has no types
_Answer: Any = health_pb2.HealthCheckResponse


class HealthService:
    """Answers probes and watchers."""

    def __init__(self, readiness: Readiness, watches: OpenCalls, waiting: Waiting) -> None:
        """Prepare to answer.

        Args:
            readiness: As ``/readyz`` reports it.
            watches: The share of watching calls.
            waiting: The share of calls whose message has not come.
        """
        self.readiness = readiness
        self.watches = watches
        self._waiting = waiting

    def methods(self) -> Mapping[str, Begin]:
        """Return what handles the calls of each method, by path."""
        kinds = {"Check": _Check, "List": _List, "Watch": _Watch}
        return {f"/{HEALTH}/{name}": self._method(kind) for name, kind in kinds.items()}

    def _method(self, kind: "Callable[[HealthService, GrpcCall, Waiting], _HealthCall]") -> Begin:
        return lambda call: kind(self, call, self._waiting)

    def status(self, name: str) -> Any:
        """Return the status of a service."""
        if name not in _NAMES:
            return _Answer(status=_Answer.SERVICE_UNKNOWN)
        return _Answer(status=_Answer.SERVING if self.readiness.is_ready else _Answer.NOT_SERVING)


class _HealthCall(KeylessCall):
    __slots__ = ("_health",)

    def __init__(self, health: HealthService, call: GrpcCall, waiting: Waiting) -> None:
        self._health = health
        super().__init__(call, waiting)


class _Check(_HealthCall):
    """The status of a service; NOT_FOUND when there is none of that name."""

    __slots__ = ()

    def on_request(self, data: bytes) -> None:
        name = parse_message(data, _Request).service
        if name not in _NAMES:
            sentence = redact(f"there is no service {name[:64]!r} here")
            raise StatusError(Status(StatusCode.NOT_FOUND, sentence))
        self.answer(self._health.status(name).SerializeToString())


class _List(_HealthCall):
    """The status of every service."""

    __slots__ = ()

    def on_request(self, data: bytes) -> None:
        parse_message(data, health_pb2.HealthListRequest)
        statuses = {name: self._health.status(name) for name in _NAMES}
        self.answer(health_pb2.HealthListResponse(statuses=statuses).SerializeToString())


class _Watch(_HealthCall):
    """The status of a service, now and at each change, until the client leaves or the relay stops."""

    __slots__ = ("_sent",)

    def on_request(self, data: bytes) -> None:
        name = parse_message(data, _Request).service
        self._sent: Any = None
        self.begin_task(self._health.watches.run(self.call, lambda: self._watch(name)))

    async def _watch(self, name: str) -> None:
        readiness = self._health.readiness
        with readiness.watched():
            try:
                while True:
                    changed = readiness.changed
                    self._send(name)
                    await self.call.stream.drained()  # a client that does not read gets the newest status later
                    await changed.wait()
            except asyncio.CancelledError:
                self._send(name)  # the last one, before the status of the call
                raise

    def _send(self, name: str) -> None:
        answer = self._health.status(name)
        if answer != self._sent:
            self._sent = answer
            self.call.send(answer.SerializeToString())
