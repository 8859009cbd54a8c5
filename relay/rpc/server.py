"""The gRPC server: its methods, limits and connections, and its port. Does not know rounds, nor what its methods do."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from relay.admission.held_bytes import HeldBytes
from relay.admission.strangers import Share
from relay.config.sections import GrpcSettings
from relay.config.trusted_proxies import TrustedProxies
from relay.http.connections.guarded import GuardedHandler
from relay.http.over_http2.bridge import bridge_of
from relay.http2 import Http2Connections, Http2Limits
from relay.http2.guards.fault_reports import FaultReports
from relay.http2.guards.guarded_http2 import ConnectionGuards, GuardedHttp2
from relay.links.intake import Receiver
from relay.rpc.calls.grpc_call import Begin, GrpcCall
from relay.rpc.calls.grpc_calls import GrpcCalls
from relay.rpc.keyless.descriptors import Descriptors
from relay.rpc.keyless.health import HEALTH, HealthService
from relay.rpc.keyless.keyless_call import waiting
from relay.rpc.keyless.open_calls import OpenCalls
from relay.rpc.keyless.readiness import Readiness
from relay.rpc.keyless.reflection import REFLECTIONS, Reflection
from relay.rpc.methods import SERVICE
from relay.rpc.port.http2_port import listening_http2
from relay.rpc.port.one_port import OnePort
from relay.turns import Turns
from roundlog.tasks import cancel_and_wait

_OTHER_CALLS: Final = 3000
"""Concurrent calls that admission does not count: those that wait for their request, health and reflection."""
_WATCHES: Final = 1000
"""Concurrent watches of health. A client that watches has one for each of its connections."""
_WATCH_S: Final = 3600.0
"""How long a watch lasts at most: as long as a link."""
_REFLECTIONS: Final = 50
"""Concurrent streams of reflection, which people and tools use."""
_REFLECTION_S: Final = 60.0
"""How long one lasts."""
_RETRY_MS: Final = (1000, 3000)
_STOP_S: Final = 1.0
"""Time for open calls when the server stops: streams have ended before, and health watchers get the new status."""


class GrpcServer:
    """All methods, and the connections on which they are called."""

    def __init__(
        self,
        settings: GrpcSettings,
        methods: Mapping[str, Begin],
        obstacle: Callable[[], str | None],
        *,
        max_links: int,
        connections: int,
        held: HeldBytes,
        turns: Turns,
        retry_ms: Callable[[], int],
        check_key: Callable[[GrpcCall], object],
        proxies: TrustedProxies,
    ) -> None:
        """Prepare to serve.

        Args:
            settings: Limits, and who may use reflection.
            methods: What handles the calls of each method of the service, by path.
            obstacle: As for ``/readyz``; health is NOT_SERVING while there is one.
            max_links: How many streams the methods admit; the limit on calls here is only a last resort.
            connections: Maximum number of connections to the port. For another one, an idle one is closed.
            held: The bytes of unfinished requests.
            turns: What each turn of the event loop has time for.
            retry_ms: Draws when a client of one call too many may call again.
            check_key: Raises when a call has no valid key; for reflection, where that needs one.
            proxies: Those that say from which address a call comes.
        """
        watches = OpenCalls(_WATCHES, age_s=_watch_s, retry_ms=_retry_ms, proxies=proxies)
        reflections = OpenCalls(_REFLECTIONS, age_s=lambda: _REFLECTION_S, retry_ms=_retry_ms, proxies=proxies)
        health = HealthService(Readiness(obstacle), watches, waiting(settings.request_s, proxies))
        shown = Reflection(
            Descriptors((SERVICE, HEALTH, *REFLECTIONS)),
            reflections,
            request_s=settings.request_s,
            check_key=check_key if settings.reflection == "key" else None,
        )
        limits = Http2Limits.for_streams(
            settings.streams_per_connection,
            preface_s=settings.request_s,
            idle_s=settings.idle_s,
            keepalive_s=settings.keepalive_s,
            keepalive_timeout_s=settings.keepalive_timeout_s,
        )
        self.calls = GrpcCalls(
            {**methods, **health.methods(), **({} if settings.reflection == "off" else shown.methods())},
            request_bytes=settings.request_bytes,
            header_bytes=limits.header_bytes,
            most=max_links + settings.answers + _OTHER_CALLS,
            retry_ms=retry_ms,
        )
        self.faults = FaultReports()
        self.connections = Http2Connections(limits, on_fault=self.faults.add)
        """Those of all ports. `Http2Connections.run` is to run while there are any."""
        self.share = Share(connections)
        """The connections to the gRPC port."""
        self.turns = turns
        self.guards = ConnectionGuards(self.share, self.share, held)
        self._held = held
        self._keyless = (watches, reflections)

    def on_http_port(self, strangers: Share, guests: Share, connection: GuardedHandler) -> Receiver:
        """Make what serves a connection of the HTTP port, whose shares these are, in place of its handler."""
        service = OnePort(self.calls, bridge_of(connection))
        return GuardedHttp2(service, self.connections, ConnectionGuards(strangers, guests, self._held))

    async def stop(self) -> None:
        """End calls without a key, and close all connections when they have no streams, or soon."""
        for calls in self._keyless:
            calls.stop()
        await self.connections.stop(within_s=_STOP_S)


@asynccontextmanager
async def listening_grpc(
    server: GrpcServer, settings: GrpcSettings, closers: list[Callable[[], None]]
) -> AsyncIterator[int | None]:
    """Serve on the gRPC port while the block runs; yield the port, None when the settings have none.

    `closers` gets a function that closes the port before the end of the block: no more connections are accepted, and
    clients of open connections are asked to use others (GOAWAY); open calls stay.

    Raises:
        StartError: The port is in use, or the TLS files are not valid.
    """
    leaving: list[asyncio.Task[None]] = []
    closers.append(lambda: leaving.append(asyncio.create_task(server.connections.leave(), name="grpc-leave")))
    guards, turns = server.guards, server.turns
    try:
        async with listening_http2(settings, server.calls, server.connections, guards, turns, closers) as port:
            yield port
    finally:
        await server.stop()
        await cancel_and_wait(*leaving)


def _watch_s() -> float:
    return _WATCH_S * random.uniform(5 / 6, 1)  # noqa: S311 - watches that begin together do not end together


def _retry_ms() -> int:
    return random.randint(*_RETRY_MS)  # noqa: S311 - spreads calls, keeps no secret
