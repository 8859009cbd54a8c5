"""The gRPC port: its socket, TLS, limits and end. Does not know rounds, nor what its methods do."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog

from relay.config.sections import GrpcSettings
from relay.errors import PortUnavailable
from relay.http.monitoring.exposition import listening_socket
from relay.http2 import Fault, Http2Connections, Http2Limits, Http2Protocol
from relay.http2.h2_machine import check_h2
from relay.links.intake import Intake
from relay.rpc.calls.grpc_call import Begin
from relay.rpc.calls.grpc_calls import GrpcCalls
from relay.turns import Turns
from roundlog.tasks import cancel_and_wait

log = structlog.get_logger()

_OTHER_CALLS: Final = 3000
"""Concurrent calls that admission does not count: those that wait for their request, health and reflection."""
_STOP_S: Final = 1.0
"""Time for open calls when the server stops: streams have ended before, and health watchers get the new status."""


@asynccontextmanager
async def listening_grpc(
    settings: GrpcSettings,
    methods: Mapping[str, Begin],
    *,
    max_links: int,
    connections: int,
    turns: Turns,
    retry_ms: Callable[[], int],
    closers: list[Callable[[], None]] | None = None,
) -> AsyncIterator[int]:
    """Serve `methods` while the block runs; yield the port.

    Args:
        settings: Port, TLS, limits.
        methods: What handles the calls of each method, by path.
        max_links: How many streams the methods admit; the limit on calls here is only a last resort.
        connections: Maximum number of connections. For another one, one without an accepted key is closed.
        turns: What each turn of the event loop has time for.
        retry_ms: Draws when a client of one call too many may call again.
        closers: Gets a function that closes the port before the end of the block: no more connections are accepted,
            and clients of open connections are asked to use others (GOAWAY); open calls stay.

    Raises:
        StartError: The port is in use, the TLS files are not valid, or a library is not as required.
    """
    check_h2()
    try:
        listening = listening_socket(settings.host, settings.port, backlog=4096)
    except OSError as error:
        raise PortUnavailable(f"{settings.host}:{settings.port}", error, setting="RELAY_GRPC_PORT") from error
    limits = _limits(settings)
    calls = GrpcCalls(
        methods,
        request_bytes=settings.request_bytes,
        header_bytes=limits.header_bytes,
        most=max_links + settings.answers + _OTHER_CALLS,
        retry_ms=retry_ms,
    )
    open_ = Http2Connections(limits, on_fault=_report)
    server = await asyncio.get_running_loop().create_server(
        lambda: Intake(turns, Http2Protocol(calls, open_)), sock=listening
    )
    tasks = [asyncio.create_task(open_.run(), name="grpc-connections")]

    def close() -> None:
        server.close()
        tasks.append(asyncio.create_task(open_.leave(), name="grpc-leave"))

    if closers is not None:
        closers.append(close)
    port = listening.getsockname()[1]
    try:
        yield port
    finally:
        server.close()
        await open_.stop(within_s=_STOP_S)
        await cancel_and_wait(*tasks)


def _limits(settings: GrpcSettings) -> Http2Limits:
    return Http2Limits(
        streams=settings.streams_per_connection,
        preface_s=settings.request_s,
        idle_s=settings.idle_s,
        keepalive_s=settings.keepalive_s,
        keepalive_timeout_s=settings.keepalive_timeout_s,
    )


def _report(fault: Fault) -> None:
    """Log at debug level, since any client can cause it."""
    log.debug("grpc_connection_refused", code=fault.code.name, error=fault.text, streams=fault.streams)
