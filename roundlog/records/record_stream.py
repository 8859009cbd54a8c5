"""One stream of small records: append, replace the record of a subject, and read in order.

Owns requests and answers. Does not know what records say; what a stream must look like is given by its user. Records
are few: tens in a second at most. Rounds are in the log, which has its own reader and publisher.
"""

import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from roundlog.client.codes import ErrorCode
from roundlog.client.connection import Connection
from roundlog.direct_get import get_batch
from roundlog.log_errors import LogUnavailable, LogUnsuitable
from roundlog.publish.store import store
from roundlog.stream import StreamInfo, ensure_stream

_PAGE: Final = 1_000
_PAGE_BYTES: Final = 4 << 20
_ANSWER_S: Final = 10.0
_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_CHANGED: Final = (ErrorCode.WRONG_LAST_SEQUENCE, ErrorCode.WRONG_LAST_SEQUENCE_IN_PROCESS)
_NOT_IN_TOKEN: Final = re.compile(r"[^A-Za-z0-9_-]")


class RecordChanged(Exception):
    """The newest record of the subject is another one. Nothing was stored."""


class Record(NamedTuple):
    """One stored record."""

    sequence: int
    subject: str
    stored_at: float
    """Unix seconds, by the server's clock."""
    data: bytes


def subject_token(text: str) -> str:
    """Return `text` as one token of a subject; different texts give different tokens.

    A dot would separate tokens, and ``*`` and ``>`` would be patterns: such characters become ``=`` and their number.
    """
    return _NOT_IN_TOKEN.sub(lambda found: f"={ord(found[0]):x}=", text)


class RecordStream:
    """Reads and writes one stream. Any number of processes may do so."""

    def __init__(self, connection: Connection, wanted: Mapping[str, Any]) -> None:
        """Use a stream; `wanted` is its configuration as the JetStream API has it, with direct get allowed."""
        self._connection = connection
        self._wanted = wanted
        self.name = str(wanted["name"])

    async def ensure(self, *, create: bool) -> StreamInfo:
        """Create the stream if it is missing; one that exists is not changed. Raises as `ensure_stream` does."""
        return await ensure_stream(self._connection, self._wanted, create=create)

    async def append(self, subject: str, data: bytes, *, revision: int | None = None) -> int:
        """Store a record and return its sequence.

        Args:
            subject: One of the stream's subjects.
            data: The record.
            revision: The sequence that the newest record of the subject must have, 0 for none; None: any.

        Raises:
            RecordChanged: The newest record of the subject is another one. Nothing was stored.
            NoResponders: There is no such stream, or it has no leader now. Nothing was stored.
            LogUnavailable: No answer in time; the record may have been stored.
            LogUnsuitable: The server refuses the record.
        """
        headers = None if revision is None else {_EXPECTED: str(revision)}
        reply = await store(self._connection, subject, data, headers=headers)
        if reply.error is not None:
            if reply.error.err_code in _CHANGED:
                raise RecordChanged
            raise LogUnsuitable(f"stream {self.name!r} refused a record: {reply.error.description}")
        return reply.seq

    async def last_sequence(self) -> int:
        """Return the sequence of the newest record ever stored; 0: none.

        Raises:
            LogUnavailable: No answer in time, or no such stream.
        """
        return int((await self.ensure(create=False)).state["last_seq"])

    async def read(
        self, subjects: str, *, first: int = 1, since: float | None = None, page: int = _PAGE
    ) -> AsyncIterator[Record]:
        """Yield the stored records of `subjects` in order, from a sequence or from a time (Unix seconds) on.

        Raises:
            LogUnavailable: No answer in time, no such stream, or the connection is lost.
        """
        start: dict[str, Any] = {"seq": first}
        if since is not None:
            start = {"start_time": datetime.fromtimestamp(since, UTC).isoformat()}
        while True:
            records, remaining = await self._page({**start, "next_by_subj": subjects, "batch": page})
            for record in records:
                yield record
            if not records or not remaining:
                return
            start = {"seq": records[-1].sequence + 1}

    async def newest(self, subjects: str, count: int) -> list[Record]:
        """Return the newest `count` records of `subjects`, oldest first; raise as `read` does."""
        found: list[Record] = []
        last = await self.last_sequence()
        while last > 0 and len(found) < count:
            first = max(1, last - _PAGE + 1)
            records, _ = await self._page({"seq": first, "next_by_subj": subjects, "batch": _PAGE})
            found = [record for record in records if record.sequence <= last] + found
            last = first - 1
        return found[-count:]

    async def _page(self, request: Mapping[str, Any]) -> tuple[list[Record], int]:
        records: list[Record] = []
        end = await get_batch(
            self._connection,
            self.name,
            {**request, "max_bytes": _PAGE_BYTES},
            lambda headers, data: records.append(_record_of(headers, data)),
            within_s=_ANSWER_S,
            failure=f"stream {self.name!r} cannot be read",
        )
        if end.error is not None:
            raise LogUnavailable(f"stream {self.name!r} cannot be read: {end.error}")
        return records, end.remaining


def _record_of(headers: Mapping[str, str], data: bytes) -> Record:
    stored_at = datetime.fromisoformat(headers["Nats-Time-Stamp"])
    return Record(int(headers["Nats-Sequence"]), headers["Nats-Subject"], stored_at.timestamp(), data)
