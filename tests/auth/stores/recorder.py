"""A receiver that keeps what a store says, and lets a test wait for it."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

from auth.key import Key
from auth.revocations import Revocation
from auth.stores.key_store import Contents
from tests.waiting import WAIT_S


class Recorder:
    """What a relay would know of a store. A `StoreReceiver`."""

    def __init__(self) -> None:
        self.keys: dict[str, Key] = {}
        self.revocations: set[Revocation] = set()
        self.faults: dict[str, str] = {}
        self.error: Exception | None = None
        """Why the store is away; None while it is reached."""
        self.replaced = 0
        """How often all contents came."""
        self.times_lost = 0
        self._happened = asyncio.Event()

    def replace(self, contents: Contents) -> None:
        self.keys = {key.id: key for key in contents.keys}
        assert len(self.keys) == len(contents.keys), "a key came twice"
        self.revocations, self.faults = set(contents.revocations), dict(contents.faults)
        self.replaced += 1
        self._happened.set()

    def change(
        self,
        keys: Mapping[str, Key | None],
        revocations: Iterable[Revocation] = (),
        faults: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        assert self.replaced, "a change came before the contents"
        for key_id, key in keys.items():
            self.keys.pop(key_id, None)
            self.faults.pop(key_id, None)
            if key is not None:
                self.keys[key_id] = key
        self.revocations |= set(revocations)
        self.faults |= faults
        self._happened.set()

    def reached(self) -> None:
        assert self.replaced, "reached before the contents came"
        self.error = None
        self._happened.set()

    def lost(self, error: Exception) -> None:
        self.times_lost += self.error is None
        self.error = error
        self._happened.set()

    async def until(self, holds: Callable[[], object]) -> None:
        """Wait until `holds` is true, which something that the store says makes it."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._happened.clear()
                await self._happened.wait()

    async def until_keys(self, *keys: Key) -> None:
        """Wait until exactly these keys are known."""
        wanted = {key.id: key for key in keys}
        try:
            await self.until(lambda: self.keys == wanted)
        except TimeoutError:
            raise AssertionError(f"known are {self.keys}, not {wanted}") from None
