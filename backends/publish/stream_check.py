"""Look at the settings of all streams of ingest while it works, since an operator may edit them at any time.

Owns when they are looked at, and what makes a working publisher stop: settings with which a round would be lost, and a
number of replicas for which another order of publishing is needed. Which settings these are: `roundlog.promises`.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, NoReturn

from backends.publish import log_offsets, rejects_stream
from roundlog.backoff import jittered
from roundlog.client.connection import Connection
from roundlog.log_errors import LogMismatch, LogUnavailable, LogUnsuitable
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_watch import StreamWatch
from roundlog.stream import LogInfo, check_stream, open_log, read_log

EVERY_S: Final = 10.0
"""How long an edit may go unnoticed: three small requests by one process are no load."""
OTHER_STREAMS: Final[tuple[tuple[Mapping[str, Any], frozenset[str]], ...]] = (
    (rejects_stream.WANTED, frozenset({"max_age", "max_bytes", "max_msgs", "duplicate_window", "discard"})),
    (
        {**log_offsets.WANTED, "max_age": 0, "max_bytes": -1, "max_msgs": -1},  # an offset stays until it is replaced
        frozenset({"max_msgs_per_subject", "discard"}),
    ),
)
"""What the streams beside the log are compared with, and which of these settings promise nothing."""


class StreamCheck:
    """Checks the streams of one ingest."""

    def __init__(self, settings: LogSettings, watch: StreamWatch) -> None:
        self._settings = settings
        self._watch = watch
        self._has_begun = False

    async def opened(self, connection: Connection) -> LogInfo:
        """Return the state of the log for publishing over a new connection.

        Raises:
            LogMismatch: Settings break a promise: any, when nothing was published yet; later, those with which a round
                would be lost.
            LogUnavailable, LogUnsuitable: See `open_log`.
        """
        if not self._has_begun:
            info = await open_log(connection, self._settings, self._watch)
            self._has_begun = True
            return self._as_planned(info)
        info = await read_log(connection, self._settings, self._watch)
        if info.differences.losing:
            raise LogMismatch(info.stream, info.differences.losing)
        return self._as_planned(info)

    async def keep_checking(self, connection: Connection, opened: LogInfo) -> NoReturn:
        """Check all streams at intervals.

        Raises:
            LogUnavailable: Publishing over this connection has to stop; `opened` says what another can do.
        """
        while True:
            await self._check_others(connection)
            await asyncio.sleep(jittered(EVERY_S))
            try:
                info = self._as_planned(await read_log(connection, self._settings, self._watch))
            except (LogUnavailable, LogUnsuitable):
                continue  # acks show whether the log works
            if info.differences.losing:
                raise LogMismatch(info.stream, info.differences.losing)
            if info.epoch != opened.epoch:
                raise LogUnavailable("the stream was made again")
            if (info.replicas > 1) != (opened.replicas > 1):
                raise LogUnavailable(f"the log has {info.replicas} replicas now, and had {opened.replicas}")
            if info.replicas > 1 and info.allows_batches and not opened.allows_batches:
                raise LogUnavailable("the log allows batches now")

    def _as_planned(self, info: LogInfo) -> LogInfo:
        """Count the replicas that the settings ask for, so that a stream may be edited to have them at any time.

        The condition of a log of one replica stops a replicated stream for good when it fails.
        """
        return replace(info, replicas=max(info.replicas, self._settings.replicas))

    async def _check_others(self, connection: Connection) -> None:
        for wanted, harmless in OTHER_STREAMS:
            try:
                self._watch.note(wanted["name"], await check_stream(connection, wanted, harmless=harmless))
            except (LogUnavailable, LogUnsuitable):
                continue
