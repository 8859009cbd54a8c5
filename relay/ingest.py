"""``stream-relay ingest``: one backend, chosen by the settings, into the log."""

import asyncio
import sys
from contextlib import suppress

from backends.contract import BackendContext
from backends.ingest import run_ingest
from backends.registry import make_backend
from relay.serve import load_catalogue, stop_requested
from relay.settings import Settings


async def ingest(settings: Settings) -> None:
    """Run until the source is exhausted, or until SIGTERM or SIGINT.

    Raises:
        BackendError: The backend is unknown, its options are wrong, or its source cannot be read.
        LogError: The log is there but is not as configured.
    """
    context = BackendContext(catalogue=load_catalogue(settings.games_file), interactive=sys.stderr.isatty())
    backend = make_backend(settings.backend.name, settings.backend.options, context)
    work = asyncio.create_task(run_ingest(backend, settings.nats, name=settings.backend.name), name="ingest")
    stop = asyncio.create_task(stop_requested(), name="stop")
    await asyncio.wait({work, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not work.done():
        work.cancel()
    with suppress(asyncio.CancelledError):
        await work
