"""Publish what a backend reads to the log: in order, at least once, and no round twice.

Owns what all backends share: reading into the pipeline, connections and their loss, and the check of what the log
already holds. How rounds are sent is in `backends.publish.pipeline`.
Why a pipeline of our own: docs/adr/0003-own-publish-pipeline.md
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final, Generic, TypeVar

import structlog

from backends.contract import Captured, HasOffsets, Rejected
from backends.publish.acks import Entry, Stats
from backends.publish.log_offsets import LogOffsets
from backends.publish.pipeline import RAW_BYTES, Pipeline, Rejects
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.stream_check import StreamCheck
from roundlog.backoff import Backoff
from roundlog.client.connection import Connection, connect
from roundlog.client.nats_internals import abort
from roundlog.log_errors import LogError, LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_watch import StreamWatch
from roundlog.publish.hpub import offset_header
from roundlog.stream import LogInfo
from roundlog.tail import first_since, stored_ids
from roundlog.tasks import cancel_and_wait, raise_if_cancelled
from rounds import Round, dedup_id, log_subject

log = structlog.get_logger()

P = TypeVar("P")

_SUBJECTS_KEPT: Final = 4096
_PAUSE_S: Final = (0.1, 5.0)
_LAG_SLACK_S: Final = 5.0

__all__ = ["Publisher", "PublisherSettings", "Rejects", "Stats"]


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
        """
        self._log_settings = log_settings
        self._check = StreamCheck(log_settings, streams or StreamWatch())
        self._settings = settings
        self._pipeline: Pipeline[P] = Pipeline(settings, confirm=confirm, rejects=rejects, acked=acked)
        self._with_offsets = with_offsets
        self._offsets: LogOffsets[P] = LogOffsets(
            log_settings, settings, on_ids=self._add_known, stored=lambda: self._pipeline.window.stored
        )
        if with_offsets is not None:
            with_offsets.attach(self._offsets)
        self._offset_text: bytes | None = None  # of the last round, and its header line
        self._offset_line = b""
        self._tail: set[bytes] = set()
        self._known = self._tail
        self._subjects: dict[str, bytes] = {}
        self._epoch = ""
        self._lost_at: float | None = None

    @property
    def stats(self) -> Stats:
        """A copy of the current numbers."""
        return replace(self._pipeline.stats, in_flight=len(self._pipeline.window))

    async def run(self, batches: AsyncIterator[Sequence[Captured[P] | Rejected[P]]]) -> None:
        """Publish all of `batches`; return when they are exhausted and everything is settled and confirmed.

        Waits without limit for NATS when it is unreachable, and for a stream whose settings break a promise. When
        cancelled, or when the source fails, waits at most ``leave_s`` for acks of what is in flight; what is not
        confirmed then is redelivered by the source. With ``confirm_lag_s`` the newest offsets are not confirmed at the
        end: those rounds are redelivered too, and recognised.

        Raises:
            LogError: The log cannot be used at the start until an operator acts (anything but `LogUnavailable`).
            Exception: Anything that `batches`, ``confirm`` or ``rejects`` raised.
        """
        async with self._offsets:
            await self._run(batches)

    async def _run(self, batches: AsyncIterator[Sequence[Captured[P] | Rejected[P]]]) -> None:
        start = asyncio.Event()
        reader = asyncio.create_task(self._read(batches, start), name="ingest-reader")
        reader.add_done_callback(lambda _: self._pipeline.wake())
        try:
            await self._publish(reader, start)
            await reader  # raises its exception
        finally:
            await cancel_and_wait(reader)

    async def _publish(self, reader: asyncio.Task[None], start: asyncio.Event) -> None:
        """Run the pipeline over one connection after another."""
        backoff = Backoff(*_PAUSE_S)
        while True:
            raise_if_cancelled()
            try:
                async with connect(
                    self._log_settings, name="ingest", on_disconnected=self._on_disconnected, reconnect=False
                ) as connection:
                    info = await self._check.opened(connection)
                    await self._skip_stored(connection, info)
                    self._log_restored()
                    backoff.reset()
                    start.set()
                    return await self._run_checked(connection, info, reader)
            except LogError as error:
                if not (isinstance(error, LogUnavailable) or start.is_set()):
                    raise  # at the start an operator is there; later a process waits until the log is mended
                self._log_lost(error)
            self._pipeline.lost()
            if reader.done() and reader.exception() is not None:
                return None
            await asyncio.sleep(backoff.next_s())
            self._pipeline.stats.reconnects += 1

    async def _run_checked(self, connection: Connection, info: LogInfo, reader: asyncio.Task[None]) -> None:
        """Run the pipeline until the log's settings require another connection, or none."""
        checks = self._check.keep_checking(connection, info)
        checking: asyncio.Task[None] = asyncio.create_task(checks, name="ingest-stream-check")

        def stop(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                abort(connection.client)

        checking.add_done_callback(stop)
        try:
            await self._pipeline.run(connection, info, reader)
        except LogUnavailable as error:
            if checking.done() and (reason := checking.exception()) is not None:
                raise reason from error
            raise
        finally:
            await cancel_and_wait(checking)

    async def _on_disconnected(self) -> None:
        self._pipeline.wake()

    def _log_lost(self, error: LogError) -> None:
        if self._lost_at is None:
            self._lost_at = asyncio.get_running_loop().time()
            log.warning("log_lost", error=str(error), in_flight=len(self._pipeline.window))

    def _log_restored(self) -> None:
        if self._lost_at is not None:
            after_s = asyncio.get_running_loop().time() - self._lost_at
            log.info("log_restored", after_s=round(after_s, 1), in_flight=len(self._pipeline.window))
            self._lost_at = None

    # --- what the log holds already -----------------------------------------------------------------------------

    async def _skip_stored(self, connection: Connection, info: LogInfo) -> None:
        """Find what is stored already. The server itself knows ids for its duplicate window only."""
        if info.epoch != self._epoch:
            if self._epoch:
                log.error("log_rebuilt", old_epoch=self._epoch, new_epoch=info.epoch, last=info.last)
            await self._read_tail(connection, info)
            for entry in self._pipeline.window.unsettled():
                entry.floor = max(0, info.last - self._settings.tail_rounds)
            self._epoch = info.epoch
            self._pipeline.head = info.last
        await self._settle_stored(connection, info)
        self._pipeline.head = max(self._pipeline.head, info.last)

    async def _read_tail(self, connection: Connection, info: LogInfo) -> None:
        """Read the ids of the newest rounds: the source redelivers what was not confirmed before a crash."""
        first = max(info.first, info.last - self._settings.tail_rounds + 1)
        if self._settings.confirm_lag_s and info.last_at is not None:
            reach = timedelta(seconds=self._settings.confirm_lag_s + _LAG_SLACK_S)
            first = min(first, await first_since(connection, info.stream, info.last_at - reach) or first)
        known: set[bytes] = set()
        async for ids in stored_ids(connection, info.stream, first=first, last=info.last):
            known.update(ids)
        self._known = self._tail = known

    def _add_known(self, known: set[bytes]) -> None:
        """Recognise these ids too: `LogOffsets.recall` found them for rounds that the source yields again."""
        self._known = self._tail | known

    async def _settle_stored(self, connection: Connection, info: LogInfo) -> None:
        """Find the rounds whose acks were lost with the connection."""
        sent = {entry.msg_id: entry for entry in self._pipeline.window.unsettled() if entry.attempts}
        if not sent:
            return
        first = min(entry.floor for entry in sent.values()) + 1
        async for ids in stored_ids(connection, info.stream, first=first, last=info.last):
            for entry in (sent[msg_id] for msg_id in ids if msg_id in sent):
                self._pipeline.stats.acked += not entry.settled
                entry.settled = True
        self._pipeline.window.refresh()

    # --- reading ------------------------------------------------------------------------------------------------

    async def _read(self, batches: AsyncIterator[Sequence[Captured[P] | Rejected[P]]], start: asyncio.Event) -> None:
        """Move what the backend yields into the pipeline, as room allows."""
        pipeline, stats = self._pipeline, self._pipeline.stats
        await start.wait()
        try:
            async for batch in batches:
                for item in batch:
                    entry = self._entry(item) if isinstance(item, Captured) else item
                    stats.read += 1
                    if isinstance(entry, Rejected):
                        await pipeline.reject(entry)
                        entry = _settled(entry.offset)
                    await pipeline.add(entry)
                pipeline.wake()
        finally:
            close = getattr(batches, "aclose", None)
            if close is not None:
                await close()

    def _entry(self, item: Captured[P]) -> Entry[P] | Rejected[P]:
        round_, offset = item
        try:
            subject = self._subjects.get(round_.game_slug) or self._subject(round_.game_slug)
            msg_id = _msg_id(round_)
            data = round_.to_json()
        except (ValueError, TypeError) as error:
            key = f"{round_.game_slug!s:.64}:{round_.round_id!s:.32}"
            return Rejected(key, str(error), repr(round_).encode(errors="replace")[:RAW_BYTES], offset)
        if msg_id in self._known:
            self._pipeline.stats.duplicates += 1
            return _settled(offset)
        return Entry(offset, subject, msg_id, data, b"" if self._with_offsets is None else self._line(offset))

    def _line(self, offset: P) -> bytes:
        """Return the header line of an offset; the rounds of a transaction share one."""
        text = self._with_offsets.offset_text(offset) if self._with_offsets is not None else None
        if text is not self._offset_text:
            self._offset_text = text
            self._offset_line = b"" if text is None else offset_header(text)
        return self._offset_line

    def _subject(self, slug: str) -> bytes:
        subject = log_subject(slug).encode()
        if len(self._subjects) < _SUBJECTS_KEPT:
            self._subjects[slug] = subject
        return subject


def _settled(offset: P) -> Entry[P]:
    """Return an entry for an item that is not sent, so that its offset is confirmed in its turn."""
    entry = Entry(offset, b"", b"", b"")
    entry.settled = True
    return entry


def _msg_id(round_: Round) -> bytes:
    # A round that was not validated may hold anything; a line break would start another header.
    number: object = round_.round_id
    if type(number) is not int or not 0 <= number < 1 << 63:
        raise TypeError(f"round_id {number!r:.40} is not an integer from 0 to 2^63-1")
    return dedup_id(round_.game_slug, round_.round_id).encode()
