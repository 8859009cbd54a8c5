"""The gRPC server: port, TLS, reflection, health, limits. Knows nothing of rounds."""

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
from relay.rpc.write_hint import enable

log = structlog.get_logger()

_OTHER_CALLS: Final = 1000
"""Calls at a time beyond those that are admitted: health, reflection, which need no key, and what is being refused."""
_STOP_S: Final = 1.0
"""For calls under way when the port closes: streams have ended by then, and watchers of health are told meanwhile."""


@asynccontextmanager
async def listening_grpc(
    settings: GrpcSettings, handler: grpc.GenericRpcHandler, obstacle: Callable[[], str | None], *, max_links: int
) -> AsyncIterator[int]:
    """Serve `handler` for as long as the block lasts; yield the port.

    Args:
        settings: Port, TLS, limits.
        handler: The service. It admits `max_links` streams; what comes to it is bounded here only as a last resort.
        obstacle: As for ``/readyz``; what health says.
        max_links: How many streams there may be.

    Raises:
        StartError: The port is taken, or the TLS files cannot be used.
    """
    enable()
    server = aio.server(
        handlers=[handler, HealthService(obstacle).handler()],
        maximum_concurrent_rpcs=max_links + settings.answers + _OTHER_CALLS,
        options=[
            ("grpc.max_receive_message_length", settings.request_bytes),
            ("grpc.max_concurrent_streams", settings.streams_per_connection),
            ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
            # The option before this one is about unacknowledged bytes only: a peer whose kernel lives has a minute.
            ("grpc.http2.ping_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.so_reuseport", 0),  # two relays on one port would share its clients unseen
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
    """Start, to the end even when cancelled: the library complains aloud of a start half done."""
    starting = asyncio.create_task(server.start(), name="grpc-start")
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await starting
        await server.stop(grace=None)
        raise
