"""The gRPC server: port, TLS, reflection, health, limits. Knows nothing of rounds."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import grpc
import structlog
from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from relay.errors import StartError
from relay.rpc.methods import SERVICE
from relay.rpc.tls import credentials
from relay.sections import GrpcSettings

log = structlog.get_logger()

_HEALTH_S: Final = 0.25
"""How often the health that watchers are told is compared with the relay's."""
_STOP_S: Final = 1.0

SERVING: Final = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


@asynccontextmanager
async def listening_grpc(
    settings: GrpcSettings, handler: grpc.GenericRpcHandler, obstacle: Callable[[], str | None]
) -> AsyncIterator[int]:
    """Serve `handler` for as long as the block lasts; yield the port. `obstacle` is as for ``/readyz``.

    Raises:
        StartError: The port is taken, or the TLS files cannot be used.
    """
    server = aio.server(
        handlers=[handler],
        options=[
            ("grpc.max_receive_message_length", settings.request_bytes),
            ("grpc.max_concurrent_streams", settings.streams_per_connection),
            ("grpc.keepalive_time_ms", round(settings.keepalive_s * 1000)),
            ("grpc.keepalive_timeout_ms", round(settings.keepalive_timeout_s * 1000)),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.so_reuseport", 0),  # two relays on one port would share its clients unseen
        ],
    )
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection(
        (SERVICE, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME), server
    )
    port = _bind(server, settings)
    await _start(server)
    watching = asyncio.create_task(_tell_health(servicer, obstacle), name="grpc-health")
    try:
        yield port
    finally:
        watching.cancel()
        await servicer.enter_graceful_shutdown()
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


async def _tell_health(servicer: health.aio.HealthServicer, obstacle: Callable[[], str | None]) -> None:
    """Keep the standard health service, and whoever watches it, up to date."""
    told = None
    while True:
        status = SERVING if obstacle() is None else NOT_SERVING
        if status != told:
            for name in ("", SERVICE):
                await servicer.set(name, status)
            told = status
        await asyncio.sleep(_HEALTH_S)
