"""The audit log in NATS: who changed what and when, and which credentials were refused.

Owns two streams. ``AUDIT`` has the changes, none of which can be deleted by who writes them. ``AUDIT_REFUSED`` has the
refused credentials, which strangers cause: however many there are, they displace no change. No entry has a secret or a
hash.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any, Final, Protocol

import msgspec

from relay.audit.audit_entry import AuditEntry, time_of
from relay.config.admin_sections import AuditSettings
from roundlog.client.connection import Connection
from roundlog.log_errors import NoResponders
from roundlog.records.record_stream import Record, RecordStream

CHANGES: Final = "AUDIT"
REFUSED: Final = "AUDIT_REFUSED"
CHANGE_SUBJECTS: Final = "audit.change.*"
REFUSED_SUBJECT: Final = "audit.refused"


class AuditTrail(Protocol):
    """Where the entries of changes are written."""

    async def record(self, entry: AuditEntry) -> None:
        """Store an entry durably.

        Raises:
            LogError: It may not have been stored.
        """
        ...


class NatsAuditTrail:
    """Both streams: an `AuditTrail` that can be read as well. Methods raise `LogError` when NATS does not answer."""

    def __init__(self, connection: Connection, settings: AuditSettings, *, replicas: int, create: bool) -> None:
        """Use the streams; `create`: make them when they are missing."""
        self._changes = RecordStream(connection, changes_stream(settings, replicas=replicas))
        self._refused = RecordStream(connection, refused_stream(settings, replicas=replicas))
        self._create = create

    async def make_streams(self) -> None:
        """Make both streams if they are missing."""
        for stream in (self._changes, self._refused):
            await stream.ensure(create=self._create)

    async def record(self, entry: AuditEntry) -> None:
        """Store the entry of a change."""
        subject = f"audit.change.{entry.action.partition('.')[0]}"
        await _append(self._changes, subject, entry, create=self._create)

    async def record_refused(self, entry: AuditEntry) -> None:
        """Store the entry of a refused credential."""
        await _append(self._refused, REFUSED_SUBJECT, entry, create=self._create)

    async def newest(self, count: int, *, refused: bool) -> list[AuditEntry]:
        """Return the newest entries of changes, oldest first; with `refused` also those of refused credentials."""
        entries = []
        for stream, subjects in ((self._changes, CHANGE_SUBJECTS), (self._refused, REFUSED_SUBJECT)):
            if stream is self._changes or refused:
                await stream.ensure(create=self._create)
                entries += [_entry_of(record) for record in await stream.newest(subjects, count)]
        return sorted(entries, key=lambda entry: entry.at)[-count:]

    async def changes_after(self, sequence: int) -> AsyncIterator[tuple[int, AuditEntry]]:
        """Yield the changes after a sequence of their stream, each with its own sequence."""
        async for record in self._changes.read(CHANGE_SUBJECTS, first=sequence + 1):
            yield record.sequence, _entry_of(record)

    async def last_change(self) -> int:
        """Return the sequence of the newest change; 0: none."""
        await self._changes.ensure(create=self._create)
        return await self._changes.last_sequence()


def changes_stream(settings: AuditSettings, *, replicas: int) -> Mapping[str, Any]:
    """Return the configuration of the stream of changes."""
    return _stream(CHANGES, CHANGE_SUBJECTS, settings.max_age_s, settings.max_bytes, replicas)


def refused_stream(settings: AuditSettings, *, replicas: int) -> Mapping[str, Any]:
    """Return the configuration of the stream of refused credentials."""
    return _stream(REFUSED, REFUSED_SUBJECT, settings.refused_max_age_s, settings.refused_max_bytes, replicas)


def _stream(name: str, subjects: str, max_age_s: float, max_bytes: int, replicas: int) -> Mapping[str, Any]:
    return {
        "name": name,
        "subjects": [subjects],
        "retention": "limits",
        "storage": "file",
        "discard": "old",
        "max_age": round(max_age_s * 1_000_000_000),
        "max_bytes": max_bytes,
        "num_replicas": replicas,
        "allow_direct": True,
        "deny_delete": True,
        "deny_purge": True,
    }


async def _append(stream: RecordStream, subject: str, entry: AuditEntry, *, create: bool) -> None:
    data = msgspec.json.encode(entry)
    try:
        await stream.append(subject, data)
    except NoResponders:  # the first entry of an installation
        await stream.ensure(create=create)
        await stream.append(subject, data)


def _entry_of(record: Record) -> AuditEntry:
    try:
        return msgspec.json.decode(record.data, type=AuditEntry)
    except msgspec.MsgspecError:  # another program wrote it: shown, so that it is seen
        actor = f"unknown:{record.subject}"
        return AuditEntry("", time_of(record.stored_at), actor, "unreadable", target=str(record.sequence))
