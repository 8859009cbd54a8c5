"""The offsets of a source that the log holds: those that its rounds carry, and those in the stream ``POSITIONS``.

Owns that stream, and how far back the log is read when a source starts. Implements `SourceOffsets`. Knows nothing of
what an offset means: that belongs to the backend. Why: docs/adr/0011-the-log-is-the-checkpoint.md
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from datetime import datetime
from itertools import groupby
from typing import Any, Final, Generic, Self, TypeVar

import msgspec
import structlog

from backends.contract import KeptOffset, OffsetTaken
from backends.publish.comparison import OnPage
from backends.publish.publisher_settings import PublisherSettings
from roundlog.backoff import Backoff
from roundlog.client.codes import ErrorCode
from roundlog.client.connection import Connection, connect
from roundlog.leader import ask_leader
from roundlog.log_errors import LogError, LogUnavailable, LogUnsuitable, NoResponders
from roundlog.log_settings import LogSettings
from roundlog.publish.store import store
from roundlog.stream import LogInfo, ensure_stream, read_log
from roundlog.tail import first_since, newest_ids, stored_pages
from rounds.subjects import LOG_SUBJECTS

log = structlog.get_logger()

P = TypeVar("P")

STREAM: Final = "POSITIONS"
WANTED: Final[Mapping[str, Any]] = {
    "name": STREAM,
    "subjects": ["positions.*"],
    "retention": "limits",
    "storage": "file",
    "discard": "old",
    "max_msgs_per_subject": 1,
}
_PAUSE_S: Final = (0.1, 5.0)
_STEP: Final = 10_000
_PUBLISH_S: Final = 2.0
_PUBLISH_TRIES: Final = 3
_PUBLISH_PAUSE_S: Final = 0.5
_IN_ORDER: Final = 1_000
_OUT_OF_ORDER: Final = 8_192
"""In a replicated log a round may be stored before up to so many that were read before it: the most in flight."""

_NOT_TOKEN: Final = re.compile(r"[^A-Za-z0-9_-]")


class _Record(msgspec.Struct):
    """A message of ``POSITIONS``; there is one per source."""

    source: str
    offset: str = msgspec.field(name="place")  # the name in existing records
    note: str = ""
    epoch: str = ""
    last: int = 0
    kept_at: int = 0
    writer: str = ""


class LogOffsets(Generic[P]):
    """Implements `backends.contract.SourceOffsets` over a connection of its own, which the first request makes."""

    def __init__(
        self,
        log_settings: LogSettings,
        settings: PublisherSettings | None = None,
        *,
        on_ids: Callable[[set[bytes], int], None] = lambda _ids, _first: None,
        on_page: OnPage = lambda _ids, _offsets, _data: None,
        stored: Callable[[], P | None] = lambda: None,
    ) -> None:
        """Prepare.

        Args:
            log_settings: The log.
            settings: How far back `recall` reads; None: the defaults.
            on_ids: Called with the ids that `recall` found, and the sequence from which on it has read.
            on_page: Called with the ids, offsets and data of each page that it reads.
            stored: Returns the property `stored`.
        """
        self._log_settings = log_settings
        self._settings = settings or PublisherSettings()
        self._on_ids = on_ids
        self._on_page = on_page
        self._stored = stored
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None
        self._writer = secrets.token_hex(8)
        self._sequences: dict[str, int] = {}  # of the newest record of each source, as far as known
        self._can_keep = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self._connection = None

    @property
    def stored(self) -> P | None:
        return self._stored()

    async def kept(self, source: str) -> KeptOffset | None:
        await self._await_publishing()
        return await self._retried(lambda connection: self._kept(connection, source))  # type: ignore[no-any-return]

    async def recall(
        self,
        source: str,
        comes_again: Callable[[str], bool],
        *,
        since: KeptOffset | None = None,
        stored_since: datetime | None = None,
    ) -> None:
        async def look(connection: Connection) -> tuple[set[bytes], int]:
            info = await read_log(connection, self._log_settings)
            reach = await self._first_since(connection, info, stored_since)
            return await self._look_back(connection, info, f"{source}:", comes_again, since, reach)

        self._on_ids(*await self._retried(look))

    async def keep(self, source: str, offset: str, note: str = "") -> bool:
        while self._can_keep:
            if await self._retried(lambda connection: self._write(connection, source, offset, note)):
                return True
        return False

    async def newest(self) -> Mapping[str, int]:
        async def look(connection: Connection) -> dict[str, int]:
            return await newest_ids(connection, (await read_log(connection, self._log_settings)).stream)

        found: dict[str, int] = await self._retried(look)
        return found

    # --- whether rounds can be published ------------------------------------------------------------------------

    async def _await_publishing(self) -> None:
        """Wait until the log answers a publish of ours: a process that cannot publish must not become the reader.

        Bounded, once the log can be read, since a user may lack the right for the subject that is tried.
        """
        reason: str | None = None
        for _ in range(_PUBLISH_TRIES):
            reason = await self._retried(self._try_publish)
            if reason is None:
                return
            await asyncio.sleep(_PUBLISH_PAUSE_S)
        log.warning("publishing_not_proven", reason=reason)

    async def _try_publish(self, connection: Connection) -> str | None:
        """Publish to a game of the log in a way that is refused; return why there was no answer, None: there was."""
        newest = await ask_leader(connection, self._log_settings.stream, {"last_by_subj": LOG_SUBJECTS})
        if newest.message is None:
            if newest.error.err_code in (ErrorCode.MESSAGE_NOT_FOUND, ErrorCode.STREAM_NOT_FOUND):
                return None  # no round was ever published
            raise LogUnavailable(f"the log cannot be read: {newest.error.description}")
        try:
            async with asyncio.timeout(_PUBLISH_S):
                headers = {"Nats-Expected-Stream": f"not-{self._log_settings.stream}"}
                reply = await store(connection, newest.message.subject, b"", headers=headers)
        except (TimeoutError, LogUnavailable) as error:
            return str(error) or "no answer to a publish"
        is_refused = reply.error is not None and reply.error.err_code == ErrorCode.STREAM_NOT_MATCH
        return None if is_refused else f"an unexpected answer to a publish: {reply}"

    # --- looking back -------------------------------------------------------------------------------------------

    async def _look_back(
        self,
        connection: Connection,
        info: LogInfo,
        prefix: str,
        comes_again: Callable[[str], bool],
        since: KeptOffset | None,
        reach: int,
    ) -> tuple[set[bytes], int]:
        """Read ids from the log's end backwards, until the source does not yield the rounds found there again, and at
        least to the sequence `reach`.

        Return them, and the sequence at which the reading ended.
        """
        settings = self._settings
        floor = max(info.first, info.last + 1 - max(settings.recall_rounds, settings.tail_rounds))
        enough = max(info.first, info.last + 1 - settings.tail_rounds)
        if since is not None and since.epoch == info.epoch:
            enough = max(info.first, since.last + 1 - _OUT_OF_ORDER)
        step = _IN_ORDER if info.replicas == 1 else _OUT_OF_ORDER
        known: set[bytes] = set()
        found = False
        upper = info.last
        while upper >= floor:
            lower = max(floor, upper + 1 - step)
            own = again = False
            async for page in stored_pages(connection, info.stream, first=lower, last=upper):
                known.update(page.ids)
                self._on_page(page.ids, page.offsets, page.data)
                for offset, _ in groupby(page.offsets):
                    if offset.startswith(prefix):
                        own = True
                        again |= comes_again(offset[len(prefix) :])
            found |= own
            is_end = (own and not again) or (lower <= enough and (since is not None or not found))
            if is_end and lower <= reach:
                return known, lower
            upper, step = lower - 1, _STEP
        if floor > info.first:
            log.warning("tail_not_covered", rounds=len(known), until=floor, hint="raise RELAY_PUBLISH_RECALL_ROUNDS")
        return known, floor

    async def _first_since(self, connection: Connection, info: LogInfo, moment: datetime | None) -> int:
        """Return the sequence of the first round stored since then; of the next one if none was."""
        first = 0 if moment is None else await first_since(connection, info.stream, moment)
        return first or info.last + 1

    async def _kept(self, connection: Connection, source: str) -> KeptOffset | None:
        record = await self._read(connection, source)
        if record is None:
            return None
        info = await read_log(connection, self._log_settings)
        lost = False
        if info.epoch == record.epoch and info.last > record.last:
            newest = await ask_leader(connection, info.stream, {"last_by_subj": LOG_SUBJECTS})
            if newest.message is None and newest.error.err_code != ErrorCode.MESSAGE_NOT_FOUND:
                raise LogUnavailable(f"the log cannot be read: {newest.error.description}")
            lost = info.first > record.last + 1 or newest.message is None or newest.message.seq < info.last
        return KeptOffset(record.offset, record.note, record.epoch, record.last, lost)

    # --- keeping ------------------------------------------------------------------------------------------------

    async def _read(self, connection: Connection, source: str) -> _Record | None:
        try:
            reply = await ask_leader(connection, STREAM, {"last_by_subj": _subject(source)})
        except NoResponders:
            return None  # no JetStream: opening the log raises that
        self._sequences[source] = 0
        if reply.message is not None:
            self._sequences[source] = reply.message.seq
            return msgspec.json.decode(reply.message.data, type=_Record)
        if reply.error.err_code in (ErrorCode.MESSAGE_NOT_FOUND, ErrorCode.STREAM_NOT_FOUND):
            return None
        raise LogUnavailable(f"stream {STREAM} cannot be read: {reply.error.description}")

    async def _write(self, connection: Connection, source: str, offset: str, note: str) -> bool:
        """Store an offset unless another process has stored one since. False: it has to be tried again."""
        if source not in self._sequences:
            await self._read(connection, source)
        info = await read_log(connection, self._log_settings)
        now_ms = int(time.time() * 1000)
        body = msgspec.json.encode(_Record(source, offset, note, info.epoch, info.last, now_ms, self._writer))
        headers = {"Nats-Expected-Last-Subject-Sequence": str(self._sequences.get(source, 0))}
        try:
            reply = await store(connection, _subject(source), body, headers=headers)
        except NoResponders:
            if not await self._has_stream(connection):
                return False
            reply = await store(connection, _subject(source), body, headers=headers)
        if reply.error is None:
            self._sequences[source] = reply.seq
            return True
        if reply.error.err_code != ErrorCode.WRONG_LAST_SEQUENCE:
            raise LogUnavailable(f"stream {STREAM} takes nothing: {reply.error.description}")
        record = await self._read(connection, source)
        if record is not None and record.writer != self._writer:
            raise OffsetTaken(f"another process reads {source}")
        return False  # our own, whose ack was lost

    async def _has_stream(self, connection: Connection) -> bool:
        """Create the stream if it is missing; False: that is not allowed, and no offset is kept from now on."""
        if not self._log_settings.create:
            self._cannot_keep("it does not exist, and RELAY_NATS_CREATE is off")
            return False
        try:
            await ensure_stream(connection, {**WANTED, "num_replicas": self._log_settings.replicas})
        except LogUnsuitable as error:
            self._cannot_keep(str(error))
            return False
        return True

    def _cannot_keep(self, reason: str) -> None:
        self._can_keep = False
        log.error("positions_not_kept", stream=STREAM, error=reason)

    # --- the connection -----------------------------------------------------------------------------------------

    async def _retried(self, ask: Callable[[Connection], Any]) -> Any:
        """Ask the log until it answers."""
        backoff, is_logged = Backoff(*_PAUSE_S), False
        while True:
            try:
                if self._connection is None:
                    self._connection = await self._stack.enter_async_context(
                        connect(self._log_settings, name="offsets")
                    )
                return await ask(self._connection)
            except LogError as error:  # the process has worked, so an operator can mend it while we wait
                if not is_logged:
                    log.warning("offsets_awaited", error=str(error))
                is_logged = True
            await asyncio.sleep(backoff.next_s())


def _subject(source: str) -> str:
    return f"positions.{_NOT_TOKEN.sub('_', source)}"
