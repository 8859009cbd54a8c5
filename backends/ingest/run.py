"""Run one backend into the log: the whole of the ingest process but its settings and signals."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import structlog

from backends.contract import Backend, HasOffsets, Rejected
from backends.ingest.instrumented import Instrumented
from backends.publish.acks import Stats
from backends.publish.publisher import Publisher, Rejects
from backends.publish.settings import PublisherSettings
from roundlog.settings import LogSettings

log = structlog.get_logger()

_PROGRESS_S = 60.0


async def log_reject(item: Rejected[Any]) -> None:
    """Take a rejected item by logging where it is and why; its content is left in the source."""
    log.warning("round_rejected", key=item.key, reason=item.reason, raw_bytes=len(item.raw))


async def run_ingest(
    backend: Backend[Any],
    log_settings: LogSettings,
    settings: PublisherSettings | None = None,
    *,
    rejects: Rejects = log_reject,
    acked: Callable[[Any], None] | None = None,
    name: str = "backend",
    watch: Callable[[Callable[[], Stats]], None] | None = None,
    progress_s: float = _PROGRESS_S,
) -> Stats:
    """Publish what `backend` reads until it is exhausted; return the numbers.

    Waits for NATS when it is not there (``log_lost``, ``log_restored``). When cancelled, leaves within ``leave_s``.

    Args:
        backend: Where rounds come from; opened and left here.
        log_settings: The log to publish to; made when it is missing.
        settings: The pipeline's bounds; None: the defaults.
        rejects: Takes what cannot become a round; what it raises ends the run.
        acked: Told positions up to which the log has everything; what ``confirm_lag_s`` holds back comes here at once.
        name: The backend's name, for the logs.
        watch: Called once with a function that returns the numbers as they are then.
        progress_s: Seconds between ``ingest_progress`` events; none while nothing is read.

    Raises:
        BackendError: The source cannot be read (any further).
        LogError: The log cannot be used until an operator acts.
    """
    bound = log.bind(backend=name)
    started = time.monotonic()
    outcome, failure = "exhausted", None
    publisher: Publisher[Any] = Publisher(
        log_settings,
        settings or PublisherSettings(),
        confirm=backend.confirm,
        rejects=rejects,
        acked=acked,
        with_offsets=_with_offsets(backend),
    )
    if watch is not None:
        watch(lambda: publisher.stats)
    progress = asyncio.create_task(_tell_progress(publisher, bound, progress_s), name="ingest-progress")
    try:
        async with backend.open():
            bound.info("ingest_started", nats=log_settings.shown_url, stream=log_settings.stream)
            await publisher.run(backend.read())
    except asyncio.CancelledError:
        outcome = "stopped"
        raise
    except Exception as error:
        failure = error
        raise
    finally:
        progress.cancel()
        stats = publisher.stats
        bound = bound.bind(after_s=round(time.monotonic() - started, 1), **counts(stats))
        if failure is None:
            bound.info("ingest_finished", outcome=outcome)
        else:
            bound.error("ingest_failed", error=str(failure), **_state_of(failure))
    return stats


def _state_of(failure: Exception) -> dict[str, str]:
    """Name what is the matter with the source in the word that its status has for it, if it has one."""
    state = getattr(failure, "state", None)
    return {} if state is None else {"state": str(state)}


def _with_offsets(backend: Backend[Any]) -> HasOffsets[Any] | None:
    if isinstance(backend, Instrumented):
        return backend.with_offsets
    return backend if isinstance(backend, HasOffsets) else None


def counts(stats: Stats) -> dict[str, int]:
    """Render the numbers as fields of a log event."""
    return {name: getattr(stats, name) for name in Stats.__dataclass_fields__}


async def _tell_progress(
    publisher: Publisher[Any], bound: structlog.typing.FilteringBoundLogger, every_s: float
) -> None:
    told = 0
    while True:
        await asyncio.sleep(every_s)
        stats = publisher.stats
        if stats.read != told:
            told = stats.read
            bound.info("ingest_progress", **counts(stats))
