"""Read what keys have used, over all relays."""

import time
from collections.abc import Mapping

import msgspec

from relay.config.admin_sections import UsageSettings
from relay.usage.usage_form import SUBJECTS, KeyUsage, UsageReport, merged, stream_of
from roundlog.client.connection import Connection
from roundlog.records.record_stream import RecordStream

_MISSED: float = 3.0
"""Reports that a relay may miss before its links count as closed."""

UsageByHour = Mapping[str, Mapping[int, KeyUsage]]
"""The figures of each key, by the start of the hour in Unix seconds."""


class UsageReader:
    """Reads the reports of all relays."""

    def __init__(self, connection: Connection, settings: UsageSettings, *, replicas: int, create: bool) -> None:
        self._settings = settings
        config = stream_of(max_age_s=settings.max_age_s, max_bytes=settings.max_bytes, replicas=replicas)
        self._stream = RecordStream(connection, config)
        self._create = create

    async def make_stream(self) -> None:
        """Make the stream if it is missing."""
        await self._stream.ensure(create=self._create)

    async def since(self, moment: float) -> UsageByHour:
        """Return the figures of the hours from that of `moment` (Unix seconds) on; raise `LogError`."""
        await self.make_stream()
        reports = []
        async for record in self._stream.read(SUBJECTS, since=moment):
            try:
                report = msgspec.json.decode(record.data, type=UsageReport)
            except msgspec.MsgspecError:
                continue  # of a newer version, or another program
            if report.hour + 3600 > moment:
                reports.append(report)
        return merged(reports, now=time.time(), fresh_s=_MISSED * self._settings.interval_s)
