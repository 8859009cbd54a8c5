"""The HTTP port: its socket, and the application on it.

Owns the options of the socket, which every connection inherits. Does not know what the application answers.
"""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from aiohttp import web

from relay.config.sections import HttpSettings
from relay.errors import PortUnavailable
from relay.http.connections.guarded import ConnectionLimits
from relay.http.connections.listener import Listener
from relay.http.monitoring.exposition import listening_socket
from relay.http.protocol import protocol_factory
from relay.turns import Turns

_BACKLOG: Final = 4096
"""Connections that may wait to be accepted: after a deploy all clients reconnect at once."""
_SOCKET_OPTIONS: Final = {
    "TCP_USER_TIMEOUT": 30_000,  # ms until unacknowledged bytes end a connection: SSE has no pongs
    # Quiet streams write nothing: probes by the kernel find a peer that is gone, in 20 + 10 s with the timeout above.
    "TCP_KEEPIDLE": 20,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    # Bounds the unsent bytes in the kernel's buffer of a slow reader. The default is 4 MB, which count towards a
    # container's memory and hide a slow client. With much less, replays would stall while the loop is busy.
    "TCP_NOTSENT_LOWAT": 128 << 10,
}
"""Set on every connection of clients, where the system has them. See docs/benchmarks.md, fan-out."""
_CLOSING_S: Final = 1.0


@asynccontextmanager
async def listening_http(
    app: web.Application,
    settings: HttpSettings,
    limits: ConnectionLimits,
    turns: Turns,
    closers: list[Callable[[], None]],
) -> AsyncIterator[str]:
    """Answer on the HTTP port while the block runs; yield its URL. `closers` gets a function that closes the port.

    Raises:
        PortUnavailable: The port is in use or not permitted.
    """
    listener = bound_socket(settings.host, settings.port, setting="RELAY_HTTP_PORT")
    # handler_cancellation: streams of the gRPC proxy must end when their client leaves; slow answers may.
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=_CLOSING_S)
    await runner.setup()
    factory = protocol_factory(runner, limits, turns, keepalive_s=settings.keepalive_s)
    server = Listener(listener, factory, strangers=limits.strangers, turns=turns)
    try:
        host, port = listener.getsockname()[:2]
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        closers.append(server.close)
        yield f"http://{shown}:{port}"
    finally:
        server.close()
        await runner.cleanup()
        for share in (limits.strangers, limits.guests):  # those that aiohttp does not know, or that read an answer
            while share.shed_one():
                pass


def bound_socket(host: str, port: int, *, setting: str) -> socket.socket:
    """Listen on a port for many clients, with the options of connections that stay open.

    Raises:
        PortUnavailable: The port is in use or not permitted; the text has `setting`, the variable that names it.
    """
    try:
        listener = listening_socket(host, port, backlog=_BACKLOG)
    except OSError as error:
        raise PortUnavailable(f"{host}:{port}", error, setting=setting) from error
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _SOCKET_OPTIONS.items():  # inherited by every accepted connection
        if (option := getattr(socket, name, None)) is not None:
            with suppress(OSError):  # sandboxes may not support every option
                listener.setsockopt(socket.IPPROTO_TCP, option, value)
    return listener
