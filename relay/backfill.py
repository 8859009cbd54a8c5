"""``stream-relay backend backfill``: rounds that are already in the table, into the log, with a bar if one watches."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backends.acks import Stats
from backends.contract import BackendContext
from backends.ingest import run_ingest
from backends.log_settings import LogSettings
from backends.postgres.backfill import Range, TableBackfill
from backends.postgres.care import care_of
from backends.postgres.proof import accepting
from backends.postgres.slot import ReplicationOptions
from backends.rejects import RejectsStream
from relay.serve import load_catalogue, stop_requested
from relay.settings import Settings

if TYPE_CHECKING:
    from rich.progress import TaskID

log = structlog.get_logger()


async def backfill(settings: Settings, *, first: int | None, last: int | None, rate: float, interactive: bool) -> None:
    """Run until the range is in the log, or until SIGTERM or SIGINT; running again goes on from there.

    Raises:
        BackendError: The backend has no table, its options are wrong, or the table cannot be read.
        LogError: The log is there but is not as configured.
    """
    name = settings.backend.name
    options = care_of(name, settings.backend.options).options
    bar = _Bar(interactive)
    backend = TableBackfill(
        options,
        BackendContext(catalogue=load_catalogue(settings.games_file), interactive=interactive),
        settings.nats,
        first=first,
        last=last,
        rate=rate,
        on_progress=bar.show,
    )
    publish = settings.publish.holding_nothing_back()  # what we confirm is only shown
    async with RejectsStream(settings.nats, name) as rejects:
        ingest = run_ingest(backend, settings.nats, publish, rejects=rejects, name="backfill")
        if last is None and isinstance(options, ReplicationOptions):
            ingest = _accepted(ingest, options, settings.nats)
        work = asyncio.create_task(ingest, name="backfill")
        stop = asyncio.create_task(stop_requested(), name="stop")
        with bar.progress:
            await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not work.done():
                work.cancel()
            with suppress(asyncio.CancelledError):
                stats = await work
                log.info("backfill_finished", stored=stats.acked, left_out=backend.left_out, rejected=stats.rejected)


async def _accepted(ingest: Coroutine[Any, Any, Stats], options: ReplicationOptions, nats: LogSettings) -> Stats:
    """Let a slot that was moved or made anew be gone on with, once what it does not hold has been filled in."""
    async with accepting(options, nats):
        return await ingest


class _Bar:
    """How far a backfill is, in ids: counting rows first would cost as much as reading them."""

    def __init__(self, interactive: bool) -> None:
        self.progress = Progress(
            TextColumn("backfill"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ids"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not interactive,
        )
        self._task: TaskID | None = None

    def show(self, span: Range, place: int) -> None:
        if self._task is None:
            self._task = self.progress.add_task("backfill", total=span.last - span.first + 1)
        self.progress.update(self._task, completed=place - span.first + 1)
