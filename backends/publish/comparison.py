"""Which of the rounds that were read the log has already, although this publisher has no ack for them.

Owns the ids known from the log's tail, and the comparison of what is unsettled with what was stored meanwhile: after
every time without a connection, and whenever the log refuses a round because another process has stored one. The server
itself recognises ids for its duplicate window only.
Why: docs/adr/0021-late-rounds-are-refused.md
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final, Generic, TypeVar

import structlog

from backends.publish.clock import boot_s
from backends.publish.pipeline import Pipeline
from backends.publish.publisher_settings import PublisherSettings
from roundlog.client.connection import Connection
from roundlog.stream import LogInfo
from roundlog.tail import first_since, stored_ids, stored_pages

log = structlog.get_logger()

P = TypeVar("P")
OnPage = Callable[[Sequence[bytes], Sequence[str], Sequence[bytes]], None]
"""Takes the ids, the offsets and the data of some rounds of the log."""

_LAG_SLACK_S: Final = 5.0
_FOREIGN: Final = 8_192
"""How many of the log's newest rounds another process may have stored before this one read them: the most that a
process has in flight."""


class Comparison(Generic[P]):
    """Compares one publisher's rounds with the log, over any number of connections."""

    def __init__(
        self,
        settings: PublisherSettings,
        pipeline: Pipeline[P],
        *,
        on_page: OnPage = lambda _ids, _offsets, _data: None,
    ) -> None:
        """Prepare; `on_page` is called with the ids, offsets and data of the log's tail."""
        self._settings = settings
        self._on_page = on_page
        self._pipeline = pipeline
        self._tail: set[bytes] = set()
        self.known = self._tail
        """Ids of the log's tail, and of what was recalled."""
        self.met: set[bytes] = set()
        """Ids that comparisons have found since."""
        self._known_from, self._known_to = 1, 0  # the sequences between which these cover the log
        self._deleted = 0  # what the log said when these were read
        self.epoch = ""
        """Of the log that these are of."""
        self.compared_at = 0.0
        """When the last comparison began, in seconds of `boot_s`: `known` and `met` have what was in the log then."""

    def add_known(self, ids: set[bytes], first: int) -> None:
        """Recognise these ids too: `LogOffsets.recall` found them, from sequence `first` on."""
        self.known = self._tail | ids
        self._known_from = min(self._known_from, first)

    async def forget_deleted(self, connection: Connection, info: LogInfo) -> None:
        """Forget ids whose rounds were purged or deleted since they were read: they are not in the log any more.

        Raises:
            LogUnavailable: No answer in time, or the connection is lost.
        """
        if info.first <= self._known_from and info.deleted <= self._deleted:
            return
        first = max(info.first, self._known_from)
        held: set[bytes] = set()
        async for ids in stored_ids(connection, info.stream, first=first, last=info.last):
            held.update(ids)
        before = len(self.known)
        self.known = self._tail = self.known & held
        self.met &= held
        self._known_from, self._deleted = first, info.deleted
        if len(self.known) < before:
            log.warning("known_rounds_deleted", rounds=before - len(self.known))

    def floor(self) -> int:
        """Return a sequence of the log: what is read now and is neither `known` nor `met` is stored after it or not."""
        return max(self._known_to, self._pipeline.head - _FOREIGN)

    async def begin(self, connection: Connection, info: LogInfo) -> None:
        """Compare on a new connection.

        Raises:
            LogUnavailable: No answer in time, or the connection is lost.
        """
        if info.epoch != self.epoch:
            if self.epoch:
                log.error("log_rebuilt", old_epoch=self.epoch, new_epoch=info.epoch, last=info.last)
            await self._read_tail(connection, info)
            for entry in self._pipeline.window.unsettled():
                entry.floor = max(0, info.last - self._settings.tail_rounds)
            self.epoch = info.epoch
            self._pipeline.head = info.last
        await self.compare(connection, info)

    async def compare_tail(self, connection: Connection, info: LogInfo) -> None:
        """Compare with the newest rounds: those that the process which read before may have stored, and not confirmed.

        Raises:
            LogUnavailable: No answer in time, or the connection is lost.
        """
        await self.compare(connection, info, most=self._settings.tail_rounds)

    async def compare(
        self, connection: Connection, info: LogInfo, *, all_answered: bool = False, most: int | None = None
    ) -> int:
        """Settle the rounds that are in the log; return how many of them were found.

        `info` is newer than everything else that the caller knows of the log. `all_answered`: no ack was lost, so
        another process has stored what is found. `most`: how many rounds to read beside those that were read since
        what is unsettled; by default ``recall_rounds``.

        Raises:
            LogUnavailable: No answer in time, or the connection is lost.
        """
        began_at = boot_s()
        window = self._pipeline.window
        unsettled = list(window.unsettled())
        # Of a correction the id is not enough: the log may hold another change under it.
        wanted = {entry.msg_id for entry in unsettled if entry.correction is None}
        # What was not read yet may be in the log too.
        first = max(self.floor(), info.last - (self._settings.recall_rounds if most is None else most))
        first = min([first, *(entry.floor for entry in unsettled)]) + 1
        present: set[bytes] = set()
        met: set[bytes] = set()
        async for ids in stored_ids(connection, info.stream, first=first, last=info.last):
            present.update(wanted.intersection(ids))
            if len(met) < self._settings.recall_rounds:
                met.update(ids)
        found, stats = 0, self._pipeline.stats
        for entry in unsettled:
            if entry.settled:
                continue  # its ack came meanwhile
            entry.floor, entry.checked_at = info.last, began_at
            if entry.correction is None and entry.msg_id in present:
                entry.settled = True
                found += 1
                if entry.attempts and not all_answered:
                    stats.acked += 1
                else:
                    stats.duplicates += 1
        window.refresh()
        self.met = met if len(self.met) + len(met) > self._settings.recall_rounds else self.met | met
        self._known_from = min(self._known_from, first)
        self._known_to, self.compared_at = info.last, began_at
        self._pipeline.head = max(self._pipeline.head, info.last)
        return found

    async def _read_tail(self, connection: Connection, info: LogInfo) -> None:
        """Read the ids of the newest rounds: the source redelivers what was not confirmed before a crash."""
        first = max(info.first, info.last - self._settings.tail_rounds + 1)
        if self._settings.confirm_lag_s and info.last_at is not None:
            reach = timedelta(seconds=self._settings.confirm_lag_s + _LAG_SLACK_S)
            first = min(first, await first_since(connection, info.stream, info.last_at - reach) or first)
        known: set[bytes] = set()
        async for page in stored_pages(connection, info.stream, first=first, last=info.last):
            known.update(page.ids)
            self._on_page(page.ids, page.offsets, page.data)
        self.known = self._tail = known
        self.met = set()
        self._known_from, self._known_to, self._deleted = first, info.last, info.deleted
