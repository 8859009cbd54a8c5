"""The key store in a NATS KV bucket: every relay follows the bucket and answers from memory.

Owns the names of entries and their meaning: ``key.<id>`` holds a key, ``revoked.<token|subject>.<hash>`` a revocation.
Requests and following are in `roundlog.buckets`. Only tools that edit create the bucket: a relay that recreated one
that was deleted by mistake would disconnect every client.
"""

import hashlib
import re
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final, Self

from auth.key import InvalidKeys, Key
from auth.revocations import Revocation
from auth.stores.key_store import Conflict, Contents, StoreMissing, StoreReceiver, StoreUnavailable, UnreadableEntry
from auth.stores.stored_entries import StoredEntries
from auth.stores.stored_json import key_json, key_of_json, revocation_json
from roundlog.buckets.bucket import Bucket, BucketEntry, WrongRevision
from roundlog.buckets.bucket_watch import BucketWatch
from roundlog.client.connection import connect
from roundlog.log_errors import LogError
from roundlog.log_settings import LogSettings

BUCKET: Final = "keys"

_KEY: Final = "key."
_REVOKED: Final = "revoked."
_DOT: Final = "=2E"
"""A dot in an id, since NATS allows none at the end or beside another. Ids have no ``=``."""
_NAMED: Final = re.compile(r"\A[A-Za-z0-9._=/-]+\Z")
_HINT: Final = "make a first key with: stream-relay key create"


class NatsKeys:
    """Keys and revocations in a bucket of NATS KV. An `auth.stores.key_store.EditableKeyStore`."""

    name = "nats"

    def __init__(self, settings: LogSettings, *, bucket: str = BUCKET) -> None:
        """Make the store.

        Args:
            settings: The server, the credentials, and the number of replicas of a new bucket.
            bucket: The name of the bucket.
        """
        self._settings = settings
        self._bucket = bucket
        self._where = f"bucket {bucket}"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    async def load(self) -> Contents:
        """See `auth.stores.key_store.KeyStore.load`."""
        entries = _Entries(self._where)
        async with self._open() as bucket:
            state = await bucket.state()
            if state is None:
                raise StoreMissing(f"bucket {self._bucket!r} does not exist; {_HINT}")
            last = 0
            newest: dict[str, BucketEntry] = {}
            while page := await bucket.page(last, state):
                newest |= {entry.key: entry for entry in page}
                last = page[-1].revision
        return entries.contents(entry for entry in newest.values() if not entry.is_deleted)

    async def follow(self, receiver: StoreReceiver) -> None:
        """See `auth.stores.key_store.KeyStore.follow`. A purge of the stream is seen within 2 s."""
        await BucketWatch(self._settings, self._bucket, _Receiver(self._where, receiver), hint=_HINT).run()

    async def read(self, key_id: str) -> tuple[Key, int] | None:
        """See `auth.stores.key_store.EditableKeyStore.read`."""
        if _NAMED.match(key_id) is None or key_id_of(entry_name(key_id)) != key_id:  # no entry has such a name
            return None
        async with self._open() as bucket:
            entry = await bucket.get(entry_name(key_id))
        if entry is None or entry.is_deleted:
            return None
        try:
            return key_of_json(self._where, key_id, entry.data), entry.revision
        except InvalidKeys as error:
            raise UnreadableEntry(str(error), entry.revision) from error

    async def write(self, key: Key, *, revision: int) -> int:
        """See `auth.stores.key_store.EditableKeyStore.write`. Creates the bucket where there is none."""
        name = entry_name(key.id)
        async with self._open() as bucket:
            if revision == 0:
                await self._create_if_missing(bucket)
                if (entry := await bucket.get(name)) is not None and entry.is_deleted:
                    revision = entry.revision
            return await bucket.put(name, key_json(key), revision=revision)

    async def delete(self, key_id: str, *, revision: int) -> None:
        """See `auth.stores.key_store.EditableKeyStore.delete`."""
        async with self._open() as bucket:
            await bucket.delete(entry_name(key_id), revision=revision)

    async def revoke(self, revocation: Revocation) -> None:
        """See `auth.stores.key_store.EditableKeyStore.revoke`. It is removed when nothing needs it any more."""
        value = hashlib.sha256(revocation.value.encode()).hexdigest()[:32]
        ttl_s = max(1, round(revocation.until - time.time()) + 60)
        async with self._open() as bucket:
            await self._create_if_missing(bucket)
            await bucket.put(f"{_REVOKED}{revocation.what}.{value}", revocation_json(revocation), ttl_s=ttl_s)

    async def _create_if_missing(self, bucket: Bucket) -> None:
        if await bucket.state() is None:
            await bucket.create(replicas=self._settings.replicas)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[Bucket]:
        try:
            async with connect(self._settings, name="stream-relay keys", reconnect=False) as connection:
                yield Bucket(connection, self._bucket)
        except WrongRevision as error:
            raise Conflict("somebody else has changed this key meanwhile; read it again") from error
        except LogError as error:
            raise StoreUnavailable(str(error)) from error


class _Entries:
    """Reads entries of the bucket by their names."""

    def __init__(self, where: str) -> None:
        self._stored = StoredEntries(where)

    def read(self, entry: BucketEntry) -> Key | Revocation | str | None:
        """Return what an entry holds; a sentence when it cannot be read; None when it is neither."""
        if entry.key.startswith(_KEY):
            return self._stored.key(key_id_of(entry.key), entry.data)
        return self._stored.revocation(entry.key, entry.data) if entry.key.startswith(_REVOKED) else None

    def contents(self, entries: Iterable[BucketEntry]) -> Contents:
        """Return the contents of a bucket that holds `entries`; forget all others."""
        found = {_shown_name(entry.key): self.read(entry) for entry in entries}
        self._stored.keep(set(found))
        return Contents(
            tuple(value for value in found.values() if isinstance(value, Key)),
            tuple(value for value in found.values() if isinstance(value, Revocation)),
            {name: value for name, value in found.items() if isinstance(value, str)},
        )


class _Receiver:
    """Hands the entries of a bucket on as keys and revocations. A `BucketReceiver`."""

    def __init__(self, where: str, receiver: StoreReceiver) -> None:
        self._entries = _Entries(where)
        self._receiver = receiver

    def page(self, entries: Iterable[BucketEntry]) -> None:
        for entry in entries:
            if not entry.is_deleted:
                self._entries.read(entry)

    def replace(self, entries: Iterable[BucketEntry]) -> None:
        self._receiver.replace(self._entries.contents(entries))

    def change(self, entries: Iterable[BucketEntry]) -> None:
        keys: dict[str, Key | None] = {}
        revocations: list[Revocation] = []
        faults: dict[str, str] = {}
        for entry in entries:
            found = None if entry.is_deleted else self._entries.read(entry)
            if isinstance(found, Revocation):
                revocations.append(found)
            elif entry.key.startswith(_KEY):
                key_id = key_id_of(entry.key)
                faults.pop(key_id, None)
                keys[key_id] = found if isinstance(found, Key) else None
            if isinstance(found, str):
                faults[_shown_name(entry.key)] = found
        self._receiver.change(keys, revocations, faults)

    def reached(self) -> None:
        self._receiver.reached()

    def lost(self, error: Exception) -> None:
        self._receiver.lost(error)


def entry_name(key_id: str) -> str:
    """Return the name of the entry that holds a key."""
    return f"{_KEY}{key_id.replace('.', _DOT)}"


def _shown_name(entry_name: str) -> str:
    return key_id_of(entry_name) if entry_name.startswith(_KEY) else entry_name


def key_id_of(entry_name: str) -> str:
    """Return the id of the key that an entry holds."""
    return entry_name.removeprefix(_KEY).replace(_DOT, ".")
