"""Run one backend into the log, without settings, signals and metrics: those are in `backends.ingest.process`."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import structlog

from backends.contract import Backend, HasOffsets, HasStandby, Rejected, SourceUnavailable
from backends.ingest.instrumented import Instrumented
from backends.publish.publisher import HandedOver, Publisher, Rejects
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.window.acks import Stats
from roundlog.backoff import Backoff
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_watch import StreamWatch

log = structlog.get_logger()

_PROGRESS_S = 60.0
_PAUSE_S = (0.5, 5.0)
_HOLD_OFF_S: Final = (2.0, 30.0)
"""After a process has let another one read; longer each time in a row that it stored nothing."""


async def log_reject(item: Rejected[Any]) -> None:
    """Handle a rejected item by logging where it is and why. Its content stays in the source alone."""
    log.warning("round_rejected", key=item.key, reason=item.reason, raw_bytes=len(item.raw))


async def run_ingest(
    backend: Backend[Any],
    log_settings: LogSettings,
    settings: PublisherSettings | None = None,
    *,
    rejects: Rejects = log_reject,
    acked: Callable[[Any], None] | None = None,
    name: str = "backend",
    watch: Callable[[Callable[[], Stats], Callable[[], bool]], None] | None = None,
    streams: StreamWatch | None = None,
    awaited: Callable[[str | None], None] | None = None,
    progress_s: float = _PROGRESS_S,
) -> Stats:
    """Publish what `backend` reads until it is exhausted; return the publisher's counters.

    Waits for NATS while it is unavailable (``log_lost``, ``log_restored``). When cancelled, ends within ``leave_s``.

    Args:
        backend: The source of rounds; opened and closed here.
        log_settings: The log to publish to; created when it is missing.
        settings: The pipeline's bounds; None: the defaults.
        rejects: Handles items that cannot become a round; an exception from it ends the run.
        acked: Called with offsets up to which the log has everything, at once even when ``confirm_lag_s`` delays
            their confirmation.
        name: The backend's name, for log events.
        watch: Called once with two functions: one returns the current counters, one whether the log is connected.
        streams: Learns how the streams differ from what is needed.
        awaited: Called with a sentence while the source cannot be reached at the start, and then with None. Without
            it, that is an error.
        progress_s: Seconds between ``ingest_progress`` events; none is logged while nothing is read.

    Raises:
        BackendError: The source cannot be read until an operator acts.
        LogError: The log cannot be used until an operator acts.
    """
    bound = log.bind(backend=name)
    started = time.monotonic()
    outcome, failure = "exhausted", None
    standby = _standby(backend)
    publisher: Publisher[Any] = Publisher(
        log_settings,
        settings or PublisherSettings(),
        confirm=backend.confirm,
        rejects=rejects,
        acked=acked,
        with_offsets=_with_offsets(backend),
        streams=streams,
        standby=standby,
    )
    turns = _Turns(publisher, standby, bound)
    if watch is not None:
        watch(turns.stats, turns.has_log)
    progress = asyncio.create_task(_log_progress(turns.stats, bound, progress_s), name="ingest-progress")
    try:
        async with _opened(backend, awaited, bound):
            bound.info("ingest_started", nats=log_settings.shown_url, stream=log_settings.stream)
            await turns.run(backend)
    except asyncio.CancelledError:
        outcome = "stopped"
        raise
    except Exception as error:
        failure = error
        raise
    finally:
        progress.cancel()
        stats = turns.stats()
        bound = bound.bind(after_s=round(time.monotonic() - started, 1), **counts(stats))
        if failure is None:
            bound.info("ingest_finished", outcome=outcome)
        else:
            bound.error("ingest_failed", error=str(failure), **_state_of(failure))
    return stats


@asynccontextmanager
async def _opened(
    backend: Backend[Any],
    awaited: Callable[[str | None], None] | None,
    bound: structlog.typing.FilteringBoundLogger,
) -> AsyncIterator[None]:
    """Hold the backend open while the block runs; wait for its source if `awaited` is given."""
    backoff, is_logged = Backoff(*_PAUSE_S), False
    async with AsyncExitStack() as stack:
        while True:
            try:
                await stack.enter_async_context(backend.open())
                break
            except SourceUnavailable as error:
                if awaited is None:
                    raise
                awaited(str(error))
                if not is_logged:
                    is_logged = True
                    bound.warning("source_awaited", error=str(error))
            await asyncio.sleep(backoff.next_s())
        if awaited is not None:
            awaited(None)
        yield


class _Turns:
    """The turns in which this process reads: one, unless it has to let standbys read in between."""

    def __init__(
        self, publisher: Publisher[Any], standby: HasStandby | None, bound: structlog.typing.FilteringBoundLogger
    ) -> None:
        self._publisher = publisher
        self._standby = standby
        self._log = bound

    def stats(self) -> Stats:
        """Return the counters of all turns."""
        return self._publisher.stats

    def has_log(self) -> bool:
        """Whether the log is connected and takes rounds."""
        return self._publisher.has_log

    async def run(self, backend: Backend[Any]) -> None:
        """Publish until the backend is exhausted."""
        backoff, settled_before = Backoff(*_HOLD_OFF_S), 0
        while True:
            try:
                return await self._publisher.run(backend.read())
            except HandedOver as error:
                if self._standby is None:
                    raise
                await self._standby.step_down()
                stats = self._publisher.stats
                self._log.warning("reading_handed_over", reason=str(error), unacked=stats.in_flight)
                self._publisher = self._publisher.successor()
            settled = stats.acked + stats.duplicates
            if settled > settled_before:
                backoff.reset()
            settled_before = settled
            # A standby notices within a fraction of a second that nobody reads.
            await asyncio.sleep(backoff.next_s())


def _state_of(failure: Exception) -> dict[str, str]:
    """Return the source's state as a log field, in the word that its status uses; nothing when it has none."""
    state = getattr(failure, "state", None)
    return {} if state is None else {"state": str(state)}


def _with_offsets(backend: Backend[Any]) -> HasOffsets[Any] | None:
    if isinstance(backend, Instrumented):
        return backend.with_offsets
    return backend if isinstance(backend, HasOffsets) else None


def _standby(backend: Backend[Any]) -> HasStandby | None:
    if isinstance(backend, Instrumented):
        return backend.standby
    return backend if isinstance(backend, HasStandby) else None


def counts(stats: Stats) -> dict[str, int]:
    """Return the counters as fields of a log event."""
    return {name: getattr(stats, name) for name in Stats.__dataclass_fields__}


async def _log_progress(
    newest_stats: Callable[[], Stats], bound: structlog.typing.FilteringBoundLogger, every_s: float
) -> None:
    logged = 0
    while True:
        await asyncio.sleep(every_s)
        stats = newest_stats()
        if stats.read != logged:
            logged = stats.read
            bound.info("ingest_progress", **counts(stats))
