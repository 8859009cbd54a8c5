"""``stream-relay ingest``: run the configured backend and publish its rounds to the log."""

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

from backends.contract import Backend, BackendContext
from backends.ingest.ingest_metrics import IngestMetrics
from backends.ingest.ingest_settings import IngestSettings
from backends.ingest.process import Expose, watched_ingest
from backends.registry import make_backend
from relay.config.catalogue import load_catalogue
from relay.config.log_output import dropped_lines
from relay.config.settings import Settings
from relay.http.monitoring.exposition import scrape_of, serving_probes
from relay.signals import Reloads, stop_requested


async def ingest(settings: Settings) -> None:
    """Run until the source is exhausted, or until SIGTERM or SIGINT.

    Raises:
        BackendError: The backend is unknown, its options are wrong, or its source cannot be read.
        LogError: The log exists but is not as configured.
    """
    context = BackendContext(catalogue=load_catalogue(settings.games_file), interactive=sys.stderr.isatty())
    backend = make_backend(settings.backend.name, settings.backend.options, context)

    # Nothing is read again: SIGHUP, which other programs take for that, only must not end the process.
    with Reloads().listening():
        await _run(settings, backend, context)


async def _run(settings: Settings, backend: Backend[Any], context: BackendContext) -> None:
    async with watched_ingest(settings, backend, context, expose=exposing(settings.ingest)) as work:
        stop = asyncio.create_task(stop_requested(), name="stop")
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()


def exposing(settings: IngestSettings) -> Expose:
    """Return a function that serves probes and metrics at the address in the section ``ingest``."""

    def expose(metrics: IngestMetrics) -> AbstractAsyncContextManager[int | None]:
        metrics.dropped_lines = dropped_lines
        return serving_probes(
            scrape_of(metrics),
            metrics.obstacle,
            host=settings.host,
            port=settings.port,
            setting="RELAY_INGEST_PORT",
            facts=metrics.facts,
        )

    return expose
