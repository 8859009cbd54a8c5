"""The gRPC server: port, TLS, reflection, health, limits. Does not know rounds."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import grpc
import structlog
from grpc import aio

from relay.config.sections import GrpcSettings
from relay.config.trusted_proxies import TrustedProxies
from relay.errors import StartError
from relay.rpc.keyless.health import HEALTH, HealthService
from relay.rpc.keyless.open_calls import OpenCalls
from relay.rpc.keyless.readiness import Readiness
from relay.rpc.keyless.reflection import REFLECTION, Reflection
from relay.rpc.methods import SERVICE
from relay.rpc.tls import credentials
from relay.rpc.write_hint import enable_write_hint

log = structlog.get_logger()

_NO_PROXIES: Final = TrustedProxies()
_OTHER_CALLS: Final = 1000
"""Concurrent calls that neither admission nor a share counts: those that are refused, and checks of health."""
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
_OPEN_S: Final = 86_400.0
"""Time for open calls after the port was closed: longer than any drain, at whose end the server stops."""


@asynccontextmanager
async def listening_grpc(
    settings: GrpcSettings,
    handler: grpc.GenericRpcHandler,
    obstacle: Callable[[], str | None],
    *,
    max_links: int,
    connections: int,
    check_key: Callable[[Any], object] = lambda _context: None,
    proxies: TrustedProxies = _NO_PROXIES,
    closers: list[Callable[[], None]] | None = None,
) -> AsyncIterator[int]:
    """Serve `handler` while the block runs; yield the port.

    Args:
        settings: Port, TLS, limits.
        handler: The service. It admits `max_links` streams; the limit on calls here is only a last resort.
        obstacle: As for ``/readyz``; health is NOT_SERVING while there is one.
        check_key: Raises when a call, given its context, has no valid key; for reflection, where that needs one.
        max_links: How many streams the handler admits.
        connections: Maximum number of connections, with and without calls; the others are closed when accepted.
        proxies: Those that say from which address a call comes.
        closers: Gets a function that closes the port before the end of the block: no more connections and calls are
            accepted, and clients of open connections are asked to use others (GOAWAY); open calls stay.

    Raises:
        StartError: The port is in use, or the TLS files are not valid.
    """
    enable_write_hint()
    watches = OpenCalls(_WATCHES, age_s=_watch_s, retry_ms=_retry_ms, proxies=proxies)
    reflections = OpenCalls(_REFLECTIONS, age_s=lambda: _REFLECTION_S, retry_ms=_retry_ms, proxies=proxies)
    health = HealthService(Readiness(obstacle), watches, request_s=settings.request_s)
    shown = Reflection(
        (SERVICE, HEALTH, REFLECTION),
        reflections,
        request_s=settings.request_s,
        check_key=check_key if settings.reflection == "key" else None,
    )
    server = aio.server(
        handlers=[handler, health.handler(), *([] if settings.reflection == "off" else [shown.handler()])],
        maximum_concurrent_rpcs=max_links + settings.answers + _WATCHES + _REFLECTIONS + _OTHER_CALLS,
        options=[
            ("grpc.max_receive_message_length", settings.request_bytes),
            ("grpc.max_concurrent_streams", settings.streams_per_connection),
            ("grpc.max_allowed_incoming_connections", connections),
            ("grpc.server_handshake_timeout_ms", round(settings.request_s * 1000)),
            ("grpc.max_connection_idle_ms", round(settings.idle_s * 1000)),
            ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
            # keepalive_timeout_ms covers unacknowledged bytes only: a peer whose kernel answers would have a minute.
            ("grpc.http2.ping_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            (
                "grpc.so_reuseport",
                0,
            ),  # otherwise a second relay on the same port would start and get part of the clients
        ],
    )
    port = _bind(server, settings)
    await _start(server)
    stopping: list[asyncio.Task[None]] = []

    def close() -> None:  # a stop with a grace does this at once; what it waits for is the end of the open calls
        stopping.append(asyncio.create_task(server.stop(grace=_OPEN_S), name="grpc-close"))

    if closers is not None:
        closers.append(close)
    try:
        yield port
    finally:
        await server.stop(grace=_STOP_S)
        await asyncio.gather(*stopping)


def _bind(server: aio.Server, settings: GrpcSettings) -> int:
    address = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
    try:
        if settings.tls_cert_file is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials(settings))
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}; choose another port with RELAY_GRPC_PORT") from error


def _watch_s() -> float:
    return _WATCH_S * random.uniform(5 / 6, 1)  # noqa: S311 - watches that begin together do not end together


def _retry_ms() -> int:
    return random.randint(*_RETRY_MS)  # noqa: S311 - spreads calls, keeps no secret


async def _start(server: aio.Server) -> None:
    """Start the server, and finish the start even when cancelled: grpc.aio logs errors after an interrupted start."""
    starting = asyncio.create_task(server.start(), name="grpc-start")
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await starting
        await server.stop(grace=None)
        raise
