"""A port whose connections speak HTTP/2 to one service. Does not know what the service answers."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from relay.config.sections import GrpcSettings
from relay.http.connections.http_port import bound_socket
from relay.http.connections.listener import Listener
from relay.http2.guards.guarded_http2 import ConnectionGuards, GuardedHttp2
from relay.http2.http2_connections import Http2Connections
from relay.http2.http2_stream import Http2Service
from relay.links.intake import Intake
from relay.rpc.port.tls_listener import TlsListener
from relay.tls_files import TlsFiles
from relay.turns import Turns


@asynccontextmanager
async def listening_http2(
    settings: GrpcSettings,
    service: Http2Service,
    connections: Http2Connections,
    guards: ConnectionGuards,
    turns: Turns,
    closers: list[Callable[[], None]],
) -> AsyncIterator[int | None]:
    """Accept connections on the gRPC port while the block runs; yield the port, None when the settings have none.

    `closers` gets a function that closes the port. Open connections stay.

    Raises:
        StartError: The port is in use or not permitted, or a TLS file is not valid.
    """
    if settings.port is None:
        yield None
        return
    tls = None if settings.tls_cert_file is None else TlsFiles(settings, of="gRPC", http2=True)
    listening = bound_socket(settings.host, settings.port, setting="RELAY_GRPC_PORT")
    listener = _listener(listening, settings, tls, service, connections, guards, turns)
    closers.append(listener.close)
    try:
        yield int(listening.getsockname()[1])
    finally:
        listener.close()


def _listener(
    listening: socket.socket,
    settings: GrpcSettings,
    tls: TlsFiles | None,
    service: Http2Service,
    connections: Http2Connections,
    guards: ConnectionGuards,
    turns: Turns,
) -> Listener:
    def receiver() -> GuardedHttp2:
        return GuardedHttp2(service, connections, guards)

    refuses = guards.counts_links  # else strangers are always idle, and one of them is closed for the next
    if tls is None:
        return Listener(
            listening, lambda: Intake(turns, receiver()), strangers=guards.strangers, turns=turns, refuses=refuses
        )
    return TlsListener(
        listening,
        receiver,
        context=tls.context,
        handshake_s=settings.request_s,
        strangers=guards.strangers,
        turns=turns,
        refuses=refuses,
    )
