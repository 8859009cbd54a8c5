"""Scrapes of a process, and a port for the probes and scrapes of a process without clients."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

from relay.admission.strangers import Share
from relay.errors import PortUnavailable
from relay.http.application import build_app
from relay.http.connections.guarded import ConnectionLimits
from relay.http.monitoring.probes import Probes
from relay.http.monitoring.scrapes import Collector, Scrapes
from relay.http.protocol import protocol_factory
from relay.turns import Turns

_CONNECTIONS: Final = 64
"""The most connections to the port of probes, which few programs use. For one more, the oldest idle one is closed."""
_REQUEST_S: Final = 10.0
"""Time for the head of a request, as on the HTTP port."""
_KEEPALIVE_S: Final = 300.0
"""Idle time of a connection; longer than the interval of scrapes, so that a scrape does not meet a close."""

Scrape = Callable[[web.Request], Awaitable[web.Response]]


def listening_socket(host: str, port: int, *, backlog: int = 128) -> socket.socket:
    """Listen on an address; on ``::`` for IPv6 and IPv4, whatever the system's default is. Raises OSError.

    Accepted connections send every write at once: one that waits for an acknowledgement is 40 ms late.
    """
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    both = address[0] == "::" and socket.has_dualstack_ipv6()
    listener = socket.create_server(address[:2], family=family, backlog=backlog, dualstack_ipv6=both)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; asyncio sets it on other sockets only
    listener.setblocking(False)
    return listener


def scrape_of(collector: Collector) -> Scrape:
    """Return a handler that answers scrapes of what `collector` yields."""
    return Scrapes(collector).scrape


@asynccontextmanager
async def serving_probes(
    scrape: Scrape,
    obstacle: Callable[[], str | None],
    *,
    host: str,
    port: int | None,
    setting: str,
    facts: Callable[[str], Mapping[str, object]] = lambda _obstacle: {},
) -> AsyncIterator[int | None]:
    """Answer ``/healthz``, ``/readyz`` and ``/metrics`` while the block runs; yield the port, None when `port` is.

    Args:
        scrape: Answers ``/metrics``.
        obstacle: See `Probes`.
        host: The address to listen on.
        port: The port; 0 lets the system choose, None listens nowhere.
        setting: The variable that names the port, for the error message.
        facts: See `Probes`.

    Raises:
        StartError: The port is in use or not permitted.
    """
    if port is None:
        yield None
        return

    routes = [*Probes(obstacle, facts).table(), web.get("/metrics", scrape)]
    paths = "this port has /healthz, /readyz and /metrics"
    runner = web.AppRunner(build_app([routes], home=None, for_pages=False, paths=paths), shutdown_timeout=0.5)
    await runner.setup()
    try:
        try:
            listener = listening_socket(host, port)
        except OSError as error:
            raise PortUnavailable(f"{host}:{port}", error, setting=setting) from error
        strangers = Share(_CONNECTIONS)
        limits = ConnectionLimits(strangers, Share(0), _REQUEST_S)  # no request has a credential
        factory = protocol_factory(runner, limits, Turns(), keepalive_s=_KEEPALIVE_S)
        server = await asyncio.get_running_loop().create_server(factory, sock=listener)
        try:
            yield int(listener.getsockname()[1])
        finally:
            server.close()
            while strangers.shed_one():  # those whose last answer is still read, too
                pass
    finally:
        await runner.cleanup()
