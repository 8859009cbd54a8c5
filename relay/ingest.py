"""``stream-relay ingest``: one backend, chosen by the settings, into the log."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog

from backends.acks import Stats
from backends.backlog import BacklogWatch
from backends.contract import Backend, BackendContext, BackendError
from backends.ingest import run_ingest
from backends.observed import Observed
from backends.registry import make_backend
from backends.rejects import RejectsStream
from backends.tasks import ended
from relay.ingest_metrics import IngestMetrics, serving_metrics
from relay.recovery import recover
from relay.serve import load_catalogue, stop_requested
from relay.settings import Settings

log = structlog.get_logger()

_MORE_S: Final = 4.0
"""Beyond what the publisher may take to leave, before it is cancelled once more."""


async def ingest(settings: Settings) -> None:
    """Run until the source is exhausted, or until SIGTERM or SIGINT.

    Raises:
        BackendError: The backend is unknown, its options are wrong, or its source cannot be read.
        LogError: The log is there but is not as configured.
    """
    context = BackendContext(catalogue=load_catalogue(settings.games_file), interactive=sys.stderr.isatty())
    backend = make_backend(settings.backend.name, settings.backend.options, context)
    async with watched_ingest(settings, backend, context) as work:
        stop = asyncio.create_task(stop_requested(), name="stop")
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()


@asynccontextmanager
async def watched_ingest(
    settings: Settings, backend: Backend[Any], context: BackendContext
) -> AsyncIterator[asyncio.Task[Stats]]:
    """Run a backend into the log, with rejects kept, and metrics and probes served, for as long as the block lasts.

    Leaving the block stops it, and raises what ended it before.
    """
    name = settings.backend.name
    backlog = BacklogWatch(backend)
    metrics = IngestMetrics(Observed(backend), name, backlog)

    def watch(stats: Callable[[], Stats]) -> None:
        metrics.stats = stats

    async def work_on(source: Backend[Any]) -> Stats:
        while True:
            metrics.observed = Observed(source)
            try:
                return await run_ingest(
                    metrics.observed,
                    settings.nats,
                    settings.publish,
                    rejects=rejects,
                    acked=metrics.observed.acked_to,
                    name=name,
                    watch=watch,
                )
            except BackendError as error:
                recovered = await recover(error, settings, context, rejects)
                if recovered is None:
                    raise
                source = recovered

    async with RejectsStream(settings.nats, name) as rejects, serving_metrics(metrics, settings.ingest) as port:
        if port is not None:
            log.info("ingest_listening", port=port)
        work = asyncio.create_task(work_on(backend), name="ingest")
        asking = [asyncio.create_task(backlog.run(), name="ingest-backlog")] if port is not None else []
        try:
            yield work
        finally:
            await ended(work, *asking, again_s=settings.publish.leave_s + _MORE_S)
        if not work.cancelled():
            work.result()
