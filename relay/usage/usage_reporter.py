"""Report what keys use to NATS, every few seconds, and a last time when the relay ends.

Owns when reports are made and what happens while NATS is away: the current hour is reported again later, and the last
reports of a few past hours wait. Nothing here delays a client; counting is in `relay.usage.account` and
`relay.usage.tally`. Connects when there is something to report, so that a start does not wait for it.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Final, Protocol

import msgspec
import structlog

from relay.config.admin_sections import UsageSettings
from relay.usage.account import Accounts
from relay.usage.usage_form import KeyUsage, UsageReport, hour_of, report_subject, stream_of
from roundlog.client.connection import Connection, connect
from roundlog.log_errors import LogError, NoResponders
from roundlog.log_settings import LogSettings
from roundlog.records.record_stream import RecordStream

log = structlog.get_logger()

_KEYS_PER_RECORD: Final = 2_000
"""Some 400 KB: below the 1 MB that a message may have."""
_PAST_HOURS: Final = 6
"""Finished hours that wait while NATS is away."""
_LAST_S: Final = 1.0
"""For the last report, when the relay ends."""

Settle = Callable[[], Iterator[None]]
"""Gives accounts their part of what was written to channels; yields between slices of that work."""


class AlsoReported(Protocol):
    """Something else to report on the same connection."""

    @property
    def waits(self) -> bool:
        """Whether there is something to report."""
        ...

    async def report(self, connection: Connection, nats: LogSettings, relay: str) -> None:
        """Report it in the name of a relay; must not raise `LogError`."""


class UsageReporter:
    """Reports the accounts of one relay process."""

    def __init__(
        self,
        accounts: Accounts,
        settle: Settle,
        settings: UsageSettings,
        nats: LogSettings,
        *,
        also: AlsoReported | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._accounts = accounts
        self._settle = settle
        self._settings = settings
        self._nats = nats
        self._also = also
        self._clock = clock
        self._relay = secrets.token_hex(4)
        self._hour = hour_of(clock())
        self._start: Mapping[str, KeyUsage] = {}
        self._past: deque[UsageReport] = deque(maxlen=_PAST_HOURS)
        self._failed = ""  # why the last report failed
        self._stack = AsyncExitStack()
        self._stream: RecordStream | None = None
        self._connection: Connection | None = None

    async def run(self) -> None:
        """Report until cancelled, and then a last time."""
        try:
            while True:
                await asyncio.sleep(self._settings.interval_s)
                await self._try_report()
        finally:
            try:
                async with asyncio.timeout(_LAST_S):
                    await self._try_report()
            except TimeoutError:
                log.warning("usage_not_reported", error=f"NATS did not answer within {_LAST_S:g} s")
            await self._stack.aclose()

    async def _try_report(self) -> None:
        try:
            await self.report()
        except LogError as error:
            self._accounts.reports_failed += 1
            if str(error) != self._failed:  # once for an outage: the counter has the rest
                log.warning("usage_not_reported", error=str(error))
            self._failed = str(error)
        else:
            self._failed = ""

    async def report(self) -> None:
        """Report all that was used until now.

        Raises:
            LogError: It could not be stored. The next report has it too.
        """
        for _ in self._settle():
            await asyncio.sleep(0)
        now = self._clock()
        current = self._take(now)
        if current.keys or self._past or (self._also is not None and self._also.waits):
            await self._store(current)

    def _take(self, now: float) -> UsageReport:
        """Return the report of the current hour; when another has begun, keep that of the one before."""
        figures = self._accounts.figures()
        report = self._report_of(figures, now)
        if hour_of(now) == self._hour:
            return report
        if report.keys:
            self._accounts.hours_lost += len(self._past) == self._past.maxlen
            self._past.append(report)
        # Up to an interval of the new hour was counted to the one before.
        self._hour, self._start = hour_of(now), figures
        for account in self._accounts:
            account.links_peak = account.links
        return self._report_of(self._accounts.figures(), now)

    def _report_of(self, figures: Mapping[str, KeyUsage], now: float) -> UsageReport:
        nothing = KeyUsage()
        used = {key_id: usage.since(self._start.get(key_id, nothing)) for key_id, usage in figures.items()}
        keys = {key_id: usage for key_id, usage in used.items() if not usage.is_nothing}
        return UsageReport(self._hour, self._relay, now, keys)

    async def _store(self, current: UsageReport) -> None:
        if self._connection is None:
            self._connection = await self._stack.enter_async_context(connect(self._nats, name="usage"))
            self._stream = RecordStream(
                self._connection,
                stream_of(
                    max_age_s=self._settings.max_age_s,
                    max_bytes=self._settings.max_bytes,
                    replicas=self._nats.replicas,
                ),
            )
        if self._also is not None:
            await self._also.report(self._connection, self._nats, self._relay)
        while self._past:
            await self._append(self._past[0])
            self._past.popleft()
        if current.keys:
            await self._append(current)

    async def _append(self, report: UsageReport) -> None:
        if self._stream is None:
            raise AssertionError("connected before")
        for number, part in enumerate(_parts(report)):
            data = msgspec.json.encode(part)
            try:
                await self._stream.append(report_subject(report, number), data)
            except NoResponders:  # the first report of an installation
                await self._stream.ensure(create=self._nats.create)
                await self._stream.append(report_subject(report, number), data)


def _parts(report: UsageReport) -> Iterator[UsageReport]:
    names = sorted(report.keys)
    for at in range(0, len(names), _KEYS_PER_RECORD):
        keys = {name: report.keys[name] for name in names[at : at + _KEYS_PER_RECORD]}
        yield msgspec.structs.replace(report, keys=keys)
