"""A key-value bucket: entries by key, each with a revision, in the form of NATS KV.

Owns the requests. Entries are read by batched direct get, which keeps no state in the server, so a reader needs few
permissions: the subjects of the bucket, ``STREAM.INFO`` and ``DIRECT.GET`` of its stream. What entries mean is up to
the caller. The form: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-8.md
"""

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from roundlog.client.api import ApiError, ask_api, decoded
from roundlog.client.codes import ErrorCode, NatsStatus
from roundlog.client.connection import Connection
from roundlog.direct_get import get_batch
from roundlog.log_errors import LogError, LogUnavailable, NoResponders
from roundlog.stream import StreamInfo, ensure_stream

_ANSWER_S: Final = 5.0
_PAGE: Final = 100
"""Entries that are read at once. nats-py hands them on within one turn of the event loop: about 2 ms."""
_BEHIND_TRIES: Final = 20
_BEHIND_PAUSE_S: Final = 0.05
_ENTRY_BYTES: Final = 64 << 10
_OPERATION: Final = "KV-Operation"
_REASON: Final = "Nats-Marker-Reason"
_TTL: Final = "Nats-TTL"
_TTL_DISABLED: Final = 10166
"""``err_code``: the stream does not allow messages a time to live of their own."""
_MARKER_S: Final = 86_400
"""Readers that follow the bucket see a deletion at once; those that begin to follow read all entries anyway."""
_KEY: Final = re.compile(r"\A[A-Za-z0-9_=/-]+(?:\.[A-Za-z0-9_=/-]+)*\Z")
"""With a wildcard in it, a request would be about other entries: a deletion of ``*`` would remove all."""
_HEADER: Final = re.compile(rb"\r\n([A-Za-z-]+): ?([^\r]*)")


class BucketEntry(NamedTuple):
    """An entry as it was stored last."""

    key: str
    revision: int
    """Sequence in the stream of the bucket: grows with each change of any entry."""
    data: bytes
    is_deleted: bool = False
    ttl: str = ""
    """Its time to live in the form of NATS, such as ``30s``; empty: none."""


class BucketState(NamedTuple):
    """The state of a bucket by its leader."""

    created: str  # differs for a bucket that was deleted and created again
    last: int  # the newest revision ever
    keys: int  # how many entries there are, deleted ones included as long as their marker is stored
    replicas: int


class WrongRevision(LogError):
    """The entry has another revision than the one that the change was conditional on. Nothing was stored."""


class _Stored(msgspec.Struct):
    seq: int
    hdrs: bytes = b""
    data: bytes = b""


class _Found(msgspec.Struct):
    message: _Stored | None = None
    error: ApiError = ApiError()


class _Ack(msgspec.Struct):
    seq: int = 0
    error: ApiError | None = None


class Bucket:
    """A bucket of NATS KV, on one connection. Its methods raise `LogUnavailable` when NATS does not answer."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self.name = name
        self._stream = f"KV_{name}"

    @property
    def subjects(self) -> str:
        """The subjects of all entries. A message there is an attempt to change one, which may be refused."""
        return f"$KV.{self.name}.>"

    async def create(self, *, replicas: int, history: int = 5) -> None:
        """Create the bucket; do nothing when there is one.

        Raises:
            LogUnsuitable: The server refuses such a bucket.
        """
        await ensure_stream(
            self._connection,
            {
                "name": self._stream,
                "subjects": [self.subjects],
                "retention": "limits",
                "storage": "file",
                "discard": "new",
                "max_msgs_per_subject": history,
                "max_msg_size": _ENTRY_BYTES,
                "num_replicas": replicas,
                "allow_rollup_hdrs": True,
                "allow_direct": True,
                "allow_msg_ttl": True,
                "deny_delete": True,
            },
        )

    async def state(self) -> BucketState | None:
        """Return the state of the bucket; None when there is none."""
        info = await ask_api(self._connection, f"STREAM.INFO.{self._stream}", None, StreamInfo)
        if info.error is None:
            state, replicas = info.state, info.config.get("num_replicas", 1)
            return BucketState(info.created, state["last_seq"], state.get("num_subjects", 0), replicas)
        if info.error.err_code == ErrorCode.STREAM_NOT_FOUND:
            return None
        raise LogUnavailable(f"bucket {self.name!r} cannot be read: {info.error.description}")

    async def page(self, after: int, state: BucketState) -> list[BucketEntry]:
        """Read about 100 entries that were changed after a revision, in the order of their changes.

        An entry may come several times, since earlier values are kept. Empty: there are none up to ``state.last``.
        """
        for _ in range(_BEHIND_TRIES):
            page = await self._direct_get(after + 1)
            if page or after >= state.last or state.replicas == 1:
                return page
            # The replica that answered may be behind. Or the rest was deleted: then all replicas answer so.
            await asyncio.sleep(_BEHIND_PAUSE_S)
        return []

    async def has_newer(self, revision: int) -> bool:
        """Say whether an entry may have been changed after a revision. A replica that is behind may not know yet."""
        try:
            return bool(await self._direct_get(revision + 1, limit=1))
        except NoResponders:  # `state` says why
            return True

    async def get(self, key: str) -> BucketEntry | None:
        """Ask the leader for an entry, which may be deleted; None when there never was one, or no bucket."""
        request = {"last_by_subj": self._subject(key)}
        found = await ask_api(self._connection, f"STREAM.MSG.GET.{self._stream}", request, _Found)
        if found.message is not None:
            headers = _headers(found.message.hdrs)
            return _entry(key, found.message.seq, found.message.data, headers)
        if found.error.code == NatsStatus.NOT_FOUND:
            return None
        raise LogUnavailable(f"bucket {self.name!r} cannot be read: {found.error.description}")

    async def put(self, key: str, data: bytes, *, revision: int | None = None, ttl_s: int | None = None) -> int:
        """Store an entry; return its revision.

        Args:
            key: Letters, digits, and ``-/_=.`` between them.
            data: The value, at most 64 KB.
            revision: The revision that the entry has now, 0 for one that does not exist; None: any.
            ttl_s: After so many seconds the server removes it. Where the bucket does not allow that, it stays.

        Raises:
            WrongRevision: The entry has another revision.
            LogUnavailable: The outcome is unknown, or there is no such bucket.
        """
        return await self._store(key, data, {}, revision, ttl_s)

    async def delete(self, key: str, *, revision: int) -> None:
        """Delete an entry and its earlier values; raise as `put` does. A marker of the deletion stays for a day."""
        await self._store(key, b"", {_OPERATION: "PURGE", "Nats-Rollup": "sub"}, revision, _MARKER_S)

    async def _store(
        self, key: str, data: bytes, headers: dict[str, str], revision: int | None, ttl_s: int | None
    ) -> int:
        if revision is not None:
            headers = headers | {"Nats-Expected-Last-Subject-Sequence": str(revision)}
        mortal = headers if ttl_s is None else headers | {_TTL: f"{max(1, ttl_s)}s"}
        ack = decoded(await self._connection.request(self._subject(key), data, headers=mortal), _Ack)
        if ack.error is not None and ack.error.err_code == _TTL_DISABLED:
            ack = decoded(await self._connection.request(self._subject(key), data, headers=headers), _Ack)
        if ack.error is None:
            return ack.seq
        wrong = (ErrorCode.WRONG_LAST_SEQUENCE, ErrorCode.WRONG_LAST_SEQUENCE_IN_PROCESS)
        kind = WrongRevision if ack.error.err_code in wrong else LogUnavailable
        raise kind(f"entry {key!r} of bucket {self.name!r} was not stored: {ack.error.description}")

    def _subject(self, key: str) -> str:
        if _KEY.match(key) is None:
            raise ValueError(f"{key[:80]!r} is no key of a bucket; it has letters, digits, and -/_=. between them")
        return f"$KV.{self.name}.{key}"

    async def _direct_get(self, start: int, *, limit: int = _PAGE) -> list[BucketEntry]:
        prefix = self.subjects.removesuffix(">")
        entries: list[BucketEntry] = []

        def take(headers: Mapping[str, str], data: bytes) -> None:
            key = headers.get("Nats-Subject", "").removeprefix(prefix)
            entries.append(_entry(key, int(headers["Nats-Sequence"]), data, headers))

        request = {"seq": start, "batch": limit, "max_bytes": _PAGE * _ENTRY_BYTES, "next_by_subj": self.subjects}
        failure = f"bucket {self.name!r} cannot be read"
        end = await get_batch(self._connection, self._stream, request, take, within_s=_ANSWER_S, failure=failure)
        if end.status == NatsStatus.UNAVAILABLE:
            raise NoResponders(f"bucket {self.name!r} does not answer")
        if end.error is not None:
            raise end.error
        return entries


def _entry(key: str, revision: int, data: bytes, headers: Mapping[str, Any]) -> BucketEntry:
    is_deleted = headers.get(_OPERATION) in ("DEL", "PURGE") or _REASON in headers
    return BucketEntry(key, revision, data, is_deleted, headers.get(_TTL, ""))


def _headers(block: bytes) -> dict[str, Any]:
    return {name.decode(): value.decode(errors="replace") for name, value in _HEADER.findall(block)}
