"""The parts of administration for a process that starts without NATS, and works when it is there."""

import asyncio
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self

from auth.stores.key_store import EditableKeyStore
from relay.admin.administration import Administration, administering
from relay.config.settings import Settings
from roundlog.log_errors import LogError


class Connected:
    """Connects at the first request, and again at the next one if that failed. Entered once with ``async with``."""

    def __init__(self, settings: Settings, store: EditableKeyStore) -> None:
        self._settings = settings
        self._store = store
        self._stack = AsyncExitStack()
        self._parts: Administration | None = None
        self._connecting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def parts(self) -> Administration:
        """Return the parts; raise as `administering` does."""
        async with self._connecting:
            if self._parts is None:
                self._parts = await self._stack.enter_async_context(administering(self._settings, self._store))
                with suppress(LogError):  # commands may have made them; what is missing shows when it is used
                    await self._parts.make_streams()
            return self._parts
