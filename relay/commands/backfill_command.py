"""``stream-relay backend backfill``: publish rounds that are already in the table, with a bar on a terminal."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from backends.contract import BackendContext
from backends.ingest.backfill import Backfill
from backends.postgres.backfill.table_backfill import Range
from relay.config.catalogue import load_catalogue
from relay.config.settings import Settings
from relay.signals import stop_requested

if TYPE_CHECKING:
    from rich.progress import TaskID

log = structlog.get_logger()


async def backfill(
    settings: Settings,
    *,
    table: str | None = None,
    first: int | None,
    last: int | None,
    rate: float,
    interactive: bool,
) -> None:
    """Run until the range is in the log, or until SIGTERM or SIGINT. Another run resumes where this one stopped.

    Raises:
        BackendError: The backend has no table, its options are wrong, or the table cannot be read.
        LogError: The log exists but is not as configured.
    """
    bar = _Bar(interactive)
    context = BackendContext(catalogue=load_catalogue(settings.games_file), interactive=interactive)
    filling = Backfill(settings, context, table=table, first=first, last=last, rate=rate, on_progress=bar.show)
    work = asyncio.create_task(filling.run(), name="backfill")
    stop = asyncio.create_task(stop_requested(), name="stop")
    with bar.progress:
        await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not work.done():
            work.cancel()
        with suppress(asyncio.CancelledError):
            stats = await work
            log.info("backfill_finished", stored=stats.acked, left_out=filling.left_out, rejected=stats.rejected)


class _Bar:
    """A progress bar in ids: counting the rows would cost as much as reading them."""

    def __init__(self, interactive: bool) -> None:
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("ids"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not interactive,
        )
        self._tasks: dict[str, TaskID] = {}

    def show(self, span: Range, last_id: int) -> None:
        if span.table not in self._tasks:
            name = f"backfill {span.table}".rstrip()
            self._tasks[span.table] = self.progress.add_task(name, total=span.last - span.first + 1)
        self.progress.update(self._tasks[span.table], completed=last_id - span.first + 1)
