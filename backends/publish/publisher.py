"""Publish what a backend reads to the log: in order, at least once, and no round twice.

Owns what all backends share: reading into the pipeline, connections and their loss, and the check of what the log
already holds. How rounds are sent is in `backends.publish.pipeline`.
Why a pipeline of our own: docs/adr/0003-own-publish-pipeline.md
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final, Generic, TypeVar

import structlog

from backends.contract import Captured, HasOffsets, HasStandby, Rejected
from backends.publish.clock import boot_s
from backends.publish.comparison import Comparison
from backends.publish.corrections.stored_corrections import StoredCorrections
from backends.publish.duplicates import held_of
from backends.publish.entries import Entries, settled
from backends.publish.hand_over import HandedOver, why_hand_over
from backends.publish.log_offsets import LogOffsets
from backends.publish.pipeline import Carried, Pipeline, Rejects
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.stream_check import StreamCheck
from backends.publish.window.acks import Stats
from roundlog.backoff import Backoff
from roundlog.client.connection import Connection, connect
from roundlog.client.nats_internals import abort
from roundlog.log_errors import LogError, LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_watch import StreamWatch
from roundlog.stream import LogInfo, read_log
from roundlog.tail import newest_sequences
from roundlog.tasks import cancel_and_wait, raise_if_cancelled
from rounds import Round

log = structlog.get_logger()

P = TypeVar("P")

_PAUSE_S: Final = (0.1, 5.0)
_WATCH_S: Final = 0.25

__all__ = ["HandedOver", "Publisher", "PublisherSettings", "Rejects", "Stats"]


class Publisher(Generic[P]):
    """Publishes one backend's rounds over connections of its own. Used once: make it in a running loop, `run` it."""

    def __init__(
        self,
        log_settings: LogSettings,
        settings: PublisherSettings,
        *,
        confirm: Callable[[P], None],
        rejects: Rejects,
        acked: Callable[[P], None] | None = None,
        with_offsets: HasOffsets[P] | None = None,
        streams: StreamWatch | None = None,
        standby: HasStandby | None = None,
        carried: Carried | None = None,
    ) -> None:
        """Prepare a publisher.

        Args:
            log_settings: The log.
            settings: Bounds and timeouts.
            confirm: `Backend.confirm`.
            rejects: Takes what cannot become a round.
            acked: Called as `confirm` is, without the delay of ``confirm_lag_s``.
            with_offsets: The backend, when it has offsets; it is given those that the log holds.
            streams: Learns how the streams differ from what is needed.
            standby: The backend, when other processes may read its source instead of this one.
            carried: What is continued of the publisher before it; see `successor`.
        """
        self._log_settings = log_settings
        self._check = StreamCheck(log_settings, streams or StreamWatch())
        self._settings = settings
        self._pipeline: Pipeline[P] = Pipeline(settings, confirm=confirm, rejects=rejects, acked=acked, carried=carried)
        self._corrections = StoredCorrections(settings.correction_rounds, self._pipeline.stats)
        self._comparison: Comparison[P] = Comparison(
            settings, self._pipeline, on_page=self._corrections.revisions.load_origins
        )
        self._standby = standby
        self._make = partial(
            Publisher[P],
            log_settings,
            settings,
            confirm=confirm,
            rejects=rejects,
            acked=acked,
            with_offsets=with_offsets,
            streams=streams,
            standby=standby,
        )
        self._entries: Entries[P] = Entries(self._pipeline, self._comparison, self._corrections, with_offsets)
        self._offsets: LogOffsets[P] = LogOffsets(
            log_settings,
            settings,
            on_ids=self._comparison.add_known,
            on_page=self._corrections.revisions.load_origins,
            stored=lambda: self._pipeline.window.stored,
        )
        if with_offsets is not None:
            with_offsets.attach(self._offsets)
        self._lost_at: float | None = None  # the same clock
        self._open_log: Connection | None = None

    @property
    def stats(self) -> Stats:
        """A copy of the current numbers."""
        return replace(self._pipeline.stats, in_flight=len(self._pipeline.window))

    @property
    def has_log(self) -> bool:
        """Whether the log is connected and takes rounds."""
        return self._lost_at is None and self._comparison.compared_at > 0

    def successor(self) -> "Publisher[P]":
        """Make the publisher for the next turn, after `run` has raised `HandedOver`."""
        return self._make(carried=self._pipeline.carried)

    async def run(self, batches: AsyncIterator[Sequence[Captured[P] | Rejected[P]]]) -> None:
        """Publish all of `batches`; return when they are exhausted and everything is settled and confirmed.

        Waits without limit for NATS when it is unreachable, and for a stream whose settings break a promise. When
        cancelled, or when the source fails, waits at most ``leave_s`` for acks of what is in flight; what is not
        confirmed then is redelivered by the source. With ``confirm_lag_s`` the newest offsets are not confirmed at the
        end: those rounds are redelivered too, and recognised.

        Raises:
            LogError: The log cannot be used at the start until an operator acts (anything but `LogUnavailable`).
            HandedOver: Nothing could be stored for ``hand_over_s``, or another process reads the source: with `standby`
                only. What is unsettled was discarded; the source yields it again.
            Exception: Anything that `batches`, ``confirm`` or ``rejects`` raised.
        """
        async with self._offsets:
            await self._run(batches)

    async def _run(self, batches: AsyncIterator[Sequence[Captured[P] | Rejected[P]]]) -> None:
        start = asyncio.Event()
        reader = asyncio.create_task(self._read(batches, start), name="ingest-reader")
        reader.add_done_callback(lambda _: self._pipeline.wake())
        limit = asyncio.timeout(None)
        watch = asyncio.create_task(self._watch(limit), name="ingest-watch")
        try:
            async with limit:
                await self._publish(reader, start)
            await reader  # raises its exception
        except TimeoutError:
            if not limit.expired():
                raise
            raise HandedOver(watch.result()) from None
        finally:
            await cancel_and_wait(watch, reader)

    async def _publish(self, reader: asyncio.Task[None], start: asyncio.Event) -> None:
        """Run the pipeline over one connection after another."""
        backoff = Backoff(*_PAUSE_S)
        while True:
            raise_if_cancelled()
            try:
                async with connect(
                    self._log_settings, name="ingest", on_disconnected=self._on_disconnected, reconnect=False
                ) as connection:
                    info, newest = await self._open(connection)
                    await self._corrections.load(connection, info)
                    self._settle_corrections()
                    await self._comparison.begin(connection, info)
                    self._log_restored()
                    backoff.reset()
                    self._open_log = connection
                    start.set()
                    return await self._run_checked(connection, info, newest, reader)
            except LogError as error:
                if not (isinstance(error, LogUnavailable) or start.is_set()):
                    raise  # at the start an operator is there; later a process waits until the log is mended
                self._log_lost(error)
            self._open_log = None
            self._pipeline.lost()
            if reader.done() and reader.exception() is not None:
                return None
            await asyncio.sleep(backoff.next_s())
            self._pipeline.stats.reconnects += 1

    async def _run_checked(
        self, connection: Connection, info: LogInfo, newest: Mapping[bytes, int] | None, reader: asyncio.Task[None]
    ) -> None:
        """Run the pipeline until the log's settings require another connection, or none."""
        checks = self._check.keep_checking(connection, info)
        checking: asyncio.Task[None] = asyncio.create_task(checks, name="ingest-stream-check")

        def stop(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                abort(connection.client)

        checking.add_done_callback(stop)
        try:
            await self._pipeline.run(
                connection,
                info,
                reader,
                newest=newest,
                compare=partial(self._compare, connection),
                held_of=partial(held_of, connection, self._log_settings),
                compared_at=self._comparison.compared_at,
            )
        except LogUnavailable as error:
            if checking.done() and (reason := checking.exception()) is not None:
                raise reason from error
            raise
        finally:
            await cancel_and_wait(checking)

    async def _on_disconnected(self) -> None:
        self._pipeline.wake()

    async def _watch(self, limit: asyncio.Timeout) -> str:
        """Notice that this process stood still, or that it cannot publish; then end `limit`, and return why."""
        reason = self._why_end()
        while reason is None:
            await asyncio.sleep(_WATCH_S)
            reason = self._why_end()
        self._pipeline.abandon()
        with suppress(RuntimeError):  # it has ended meanwhile
            limit.reschedule(asyncio.get_running_loop().time())
        return reason

    def _why_end(self) -> str | None:
        """Return why another process should read the source, or does; None: there is no reason."""
        pipeline, now = self._pipeline, boot_s()
        stood_still = pipeline.lease.show_alive(now)
        if stood_still:
            pipeline.wake()
        if self._standby is None:
            return None
        if stood_still:
            # Another one may have read since, and what is unread in our sockets would not be known as old.
            return f"this process stood still for {pipeline.lease.stood_still_s:.1f} s"
        return why_hand_over(
            self._settings.hand_over_s,
            now,
            lost_at=self._lost_at,
            leads=self._standby.leads,
            waiting_since=pipeline.moved_at if len(pipeline.window) else None,
        )

    def _log_lost(self, error: LogError) -> None:
        if self._lost_at is None:
            self._lost_at = boot_s()
            log.warning("log_lost", error=str(error), in_flight=len(self._pipeline.window))

    def _log_restored(self) -> None:
        if self._lost_at is not None:
            after_s = boot_s() - self._lost_at
            log.info("log_restored", after_s=round(after_s, 1), in_flight=len(self._pipeline.window))
            self._lost_at = None

    # --- what the log holds already -----------------------------------------------------------------------------

    async def _open(self, connection: Connection) -> tuple[LogInfo, Mapping[bytes, int] | None]:
        """Open the log. Return it, and the sequence of each subject's newest round if it is replicated."""
        info = await self._check.opened(connection)
        newest = None
        if info.replicas > 1:
            # What is stored after these were read is refused, and what was stored before is found by the comparison.
            newest = await newest_sequences(connection, info.stream)
            info = await self._check.opened(connection)
        return info, newest

    async def _compare(self, connection: Connection, all_answered: bool) -> Mapping[bytes, int] | None:
        """Compare again: the log refused a round since it has others, or did not answer clearly."""
        info, newest = await self._open(connection)
        await self._corrections.load(connection, info)
        found = self._settle_corrections()
        found += await self._comparison.compare(connection, info, all_answered=all_answered)
        if found and all_answered and self._standby is not None:
            raise HandedOver(f"another process has stored {found} rounds that were read here")
        return newest

    async def _compare_at_start(self) -> None:
        """Compare when the source yields its first rounds: the process that read before may have stored them.

        It may have done so at any time since this one connected, and longer ago than the log recognises ids.
        """
        connection = self._open_log
        if self._standby is None or connection is None:
            return
        with suppress(LogUnavailable):  # then the next connection begins with a comparison
            info = await self._check.opened(connection)
            await self._corrections.load(connection, info)
            self._settle_corrections()
            await self._comparison.compare_tail(connection, info)

    def _settle_corrections(self) -> int:
        """Number the unsettled corrections again, after those of the log were loaded; return how many it has."""
        window = self._pipeline.window
        found = self._corrections.renumber(window.unsettled())
        window.refresh()
        return found

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read(self, batches: AsyncIterator[Sequence[Captured[P] | Rejected[P]]], start: asyncio.Event) -> None:
        """Move what the backend yields into the pipeline, as room allows."""
        pipeline, stats = self._pipeline, self._pipeline.stats
        window, entries = pipeline.window, self._entries
        await start.wait()
        is_first = True
        try:
            async for batch in batches:
                if is_first:
                    is_first = False
                    await self._compare_at_start()
                read_at = boot_s()
                pipeline.begin_batch(read_at)
                entries.begin_batch(read_at)
                for item in batch:
                    if not window.has_room:
                        await pipeline.room()
                        entries.compared()
                    if isinstance(item, Captured):
                        entry = entries.make(item)
                        while entry is None:
                            await self._ask_log(item.round)
                            entry = entries.make(item)
                    else:
                        entry = item
                    stats.read += 1
                    if isinstance(entry, Rejected):
                        await pipeline.reject(entry)
                        entry = settled(entry.offset)
                    window.add(entry)
                pipeline.wake()
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                await close()

    async def _ask_log(self, round_: Round) -> None:
        """Ask the log what it has now, for an entry that depends on it; wait until it answers."""
        backoff = Backoff(*_PAUSE_S)
        while True:
            if (connection := self._open_log) is not None:
                with suppress(LogError):
                    info = await read_log(connection, self._log_settings)
                    if info.epoch != self._comparison.epoch:
                        abort(connection.client)  # the next connection begins with the new stream
                        raise LogUnavailable("the stream was made again")
                    await self._comparison.forget_deleted(connection, info)
                    await self._corrections.refresh(connection, info, round_)
                    return self._entries.asked()
            await asyncio.sleep(backoff.next_s())
