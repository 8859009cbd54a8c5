"""The ingest process: one backend into the log, with rejects kept, metrics exposed, lost slots recovered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from typing import Any, Final

import structlog

from backends.backlog import BacklogWatch
from backends.contract import Backend, BackendContext, BackendError
from backends.ingest.ingest_metrics import IngestMetrics
from backends.ingest.ingest_settings import IngestSections
from backends.ingest.instrumented import Instrumented
from backends.ingest.recovery import recover
from backends.ingest.run_ingest import run_ingest
from backends.publish.rejects_stream import RejectsStream
from backends.publish.window.acks import Stats
from roundlog.tasks import cancel_and_wait

log = structlog.get_logger()

_MORE_S: Final = 4.0
"""Added to the time that the publisher may take to end, before it is cancelled again."""


Expose = Callable[[IngestMetrics], AbstractAsyncContextManager[int | None]]
"""Answers probes and scrapes for as long as its block runs; yields the port, None when there is none."""


@asynccontextmanager
async def watched_ingest(
    settings: IngestSections, backend: Backend[Any], context: BackendContext, *, expose: Expose | None = None
) -> AsyncIterator[asyncio.Task[Stats]]:
    """Run a backend into the log, store its rejects, and expose metrics and probes, for as long as the block runs.

    Leaving the block stops it, and raises the error that ended it, if one did.
    """
    name = settings.backend.name
    backlog = BacklogWatch(backend)
    metrics = IngestMetrics(Instrumented(backend), name, backlog)

    def watch(stats: Callable[[], Stats], has_log: Callable[[], bool]) -> None:
        metrics.stats, metrics.has_log = stats, has_log

    async def work_on(source: Backend[Any]) -> Stats:
        while True:
            metrics.instrumented = Instrumented(source)
            try:
                return await run_ingest(
                    metrics.instrumented,
                    settings.nats,
                    settings.publish,
                    rejects=rejects,
                    acked=metrics.instrumented.acked_to,
                    name=name,
                    watch=watch,
                    streams=metrics.streams,
                    awaited=metrics.set_awaited,
                )
            except BackendError as error:
                recovered = await recover(error, settings, context, rejects, awaited=metrics.set_awaited)
                if recovered is None:
                    raise
                source = recovered

    async with (
        RejectsStream(settings.nats, name) as rejects,
        nullcontext() if expose is None else expose(metrics) as port,
    ):
        if port is not None:
            log.info("ingest_listening", port=port)
        work = asyncio.create_task(work_on(backend), name="ingest")
        asking = [asyncio.create_task(backlog.run(), name="ingest-backlog")] if port is not None else []
        try:
            yield work
        finally:
            await cancel_and_wait(work, *asking, again_s=settings.publish.leave_s + _MORE_S)
        if not work.cancelled():
            work.result()
