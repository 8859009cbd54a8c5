"""The gRPC server: port, TLS, reflection, health, limits. Does not know rounds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import grpc
import structlog
from grpc import aio
from grpc_reflection.v1alpha import reflection

from relay.config.sections import GrpcSettings
from relay.errors import StartError
from relay.rpc.health import HEALTH, HealthService
from relay.rpc.methods import SERVICE
from relay.rpc.tls import credentials
from relay.rpc.write_hint import enable_write_hint

log = structlog.get_logger()

_OTHER_CALLS: Final = 1000
"""Concurrent calls that admission does not count: health and reflection, which need no key, and refused calls."""
_STOP_S: Final = 1.0
"""Time for open calls when the port closes: streams have ended before, and health watchers get the new status."""


@asynccontextmanager
async def listening_grpc(
    settings: GrpcSettings, handler: grpc.GenericRpcHandler, obstacle: Callable[[], str | None], *, max_links: int
) -> AsyncIterator[int]:
    """Serve `handler` while the block runs; yield the port.

    Args:
        settings: Port, TLS, limits.
        handler: The service. It admits `max_links` streams; the limit on calls here is only a last resort.
        obstacle: As for ``/readyz``; health is NOT_SERVING while there is one.
        max_links: How many streams the handler admits.

    Raises:
        StartError: The port is in use, or the TLS files are not valid.
    """
    enable_write_hint()
    server = aio.server(
        handlers=[handler, HealthService(obstacle).handler()],
        maximum_concurrent_rpcs=max_links + settings.answers + _OTHER_CALLS,
        options=[
            ("grpc.max_receive_message_length", settings.request_bytes),
            ("grpc.max_concurrent_streams", settings.streams_per_connection),
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
    reflection.enable_server_reflection((SERVICE, HEALTH, reflection.SERVICE_NAME), server)
    port = _bind(server, settings)
    await _start(server)
    try:
        yield port
    finally:
        await server.stop(grace=_STOP_S)


def _bind(server: aio.Server, settings: GrpcSettings) -> int:
    address = f"[{settings.host}]:{settings.port}" if ":" in settings.host else f"{settings.host}:{settings.port}"
    try:
        if settings.tls_cert_file is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials(settings))
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}; choose another port with RELAY_GRPC_PORT") from error


async def _start(server: aio.Server) -> None:
    """Start the server, and finish the start even when cancelled: grpc.aio logs errors after an interrupted start."""
    starting = asyncio.create_task(server.start(), name="grpc-start")
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await starting
        await server.stop(grace=None)
        raise
