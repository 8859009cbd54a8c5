"""The key store in a TOML file: looked at a few times a second, and at once on request.

Owns when the file is read again. A file that cannot be read as a whole changes nothing: it may be half written. An
entry that is wrong is no key, and the others are not affected. Watching needs no inotify, which does not see changes on
network file systems or through the symbolic links of Kubernetes' volumes.
"""

import asyncio
import os
from pathlib import Path
from typing import Final, NamedTuple, Self

from auth.key import InvalidKeys
from auth.key_forms import read_file_entries
from auth.stores.key_store import Contents, StoreReceiver, StoreUnavailable

_LOOK_S: Final = 0.2
"""Between two looks. A change is taken when the file was the same in two looks, so that no half is read."""
_WHOLE: Final = "(the file)"
_MOST_BYTES: Final = 16 << 20


class _Version(NamedTuple):
    """What differs between two versions of a file, also of one that replaced another."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class FileKeys:
    """Keys in a TOML file. An `auth.stores.key_store.KeyStore`."""

    name = "file"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._wake = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        pass

    def reload(self) -> None:
        """Read the file now, changed or not; `follow` does it."""
        self._wake.set()

    async def load(self) -> Contents:
        """See `auth.stores.key_store.KeyStore.load`."""
        return self._contents(self._read())

    async def follow(self, receiver: StoreReceiver) -> None:
        """See `auth.stores.key_store.KeyStore.follow`."""
        taken: _Version | None = None
        seen: _Version | None = None
        held = Contents()
        is_first = True
        while True:
            is_requested = self._wake.is_set()
            self._wake.clear()
            try:
                version = self._version()
                if is_first or is_requested or (version == seen and version != taken):
                    taken, held = version, self._changed(held)
                    is_first = False
                    receiver.replace(held)
                seen = version
                if version == taken:
                    receiver.reached()
            except StoreUnavailable as error:
                taken = None  # after an outage it is read again
                receiver.lost(error)
            try:
                async with asyncio.timeout(_LOOK_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _changed(self, held: Contents) -> Contents:
        """Return what the file holds now; what it held before, with a fault, where it cannot be read as a whole."""
        content = self._read()
        try:
            if not content.strip() and held.keys:
                raise InvalidKeys("keys file is empty; to remove all keys, leave the line [keys] in it")
            return self._contents(content)
        except InvalidKeys as error:
            return Contents(held.keys, faults={_WHOLE: f"{error}; the keys that were read before stay in force"})

    def _contents(self, content: bytes) -> Contents:
        try:
            entries = read_file_entries(content.decode())
        except UnicodeDecodeError as error:
            raise InvalidKeys(f"keys file is not UTF-8: {error.reason} at byte {error.start}") from None
        keys = tuple(entry for entry in entries.values() if not isinstance(entry, str))
        return Contents(keys, faults={key_id: entry for key_id, entry in entries.items() if isinstance(entry, str)})

    def _version(self) -> _Version:
        try:
            found = os.stat(self._path)  # noqa: PTH116 - Path.stat is slower
        except OSError as error:
            raise self._unavailable(error) from error
        return _Version(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)

    def _read(self) -> bytes:
        try:
            with self._path.open("rb") as file:
                return file.read(_MOST_BYTES)
        except OSError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(f"keys file {str(self._path)!r} cannot be read: {error.strerror}")
