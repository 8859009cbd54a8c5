"""Prometheus exposition over HTTP, and a port for the probes and scrapes of a process without clients."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from aiohttp import web

from relay.errors import PortUnavailable
from relay.http.monitoring.probes import Probes

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class Collector(Protocol):
    """Yields metrics to the Prometheus client."""

    def collect(self) -> Iterator["Metric"]:
        """Yield every metric with its current value."""
        ...


def exposition(collector: Collector, request: web.Request) -> web.Response:
    """Answer a scrape in the format that it accepts. The Prometheus client is imported at the first scrape."""
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return web.Response(body=encode(registry), headers={"Content-Type": content_type})


@asynccontextmanager
async def serving_probes(
    collector: Collector, obstacle: Callable[[], str | None], *, host: str, port: int | None, setting: str
) -> AsyncIterator[int | None]:
    """Answer ``/healthz``, ``/readyz`` and ``/metrics`` while the block runs; yield the port, None when `port` is.

    Args:
        collector: The metrics.
        obstacle: See `Probes`.
        host: The address to listen on.
        port: The port; 0 lets the system choose, None listens nowhere.
        setting: The variable that names the port, for the error message.

    Raises:
        StartError: The port is in use or not permitted.
    """
    if port is None:
        yield None
        return

    async def scrape(request: web.Request) -> web.Response:
        return exposition(collector, request)

    app = web.Application()
    app.add_routes([*Probes(obstacle).table(), web.get("/metrics", scrape)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise PortUnavailable(f"{host}:{port}", error, setting=setting) from error
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
