"""Store rejected items, which cannot become rounds, in a stream of their own for an operator: ``REJECTS``.

A rejected row must neither stop ingest nor be lost. It is logged with its key, and stored before its offset is
confirmed, so after a crash in between it is stored again at worst. Knows nothing of why items are rejected.
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Final, Self

import msgspec
import structlog

from backends.contract import Rejected
from roundlog.backoff import Backoff
from roundlog.client.connection import Connection, connect
from roundlog.log_errors import LogError, LogUnsuitable, NoResponders
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_settings import NANO
from roundlog.publish.store import store
from roundlog.stream import ensure_stream

log = structlog.get_logger()

STREAM: Final = "REJECTS"
WANTED: Final[Mapping[str, Any]] = {
    "name": STREAM,
    "subjects": ["rejects.*"],
    "retention": "limits",
    "storage": "file",
    "discard": "old",
    "max_age": 30 * 86_400 * NANO,
    "max_bytes": 256 << 20,  # bounds the disk when a source yields nothing but rejects
    "duplicate_window": 120 * NANO,
}
_PAUSE_S: Final = (0.1, 5.0)
_NOT_TOKEN: Final = re.compile(r"[^A-Za-z0-9_-]")


class RejectsStream:
    """Stores rejected items: a `Rejects`. Entered with ``async with``; connects when there is one to store."""

    def __init__(self, settings: LogSettings, name: str) -> None:
        """Take the rejects of the backend called `name`, on the subject ``rejects.<name>``."""
        self.subject = f"rejects.{_NOT_TOKEN.sub('_', name)[:64] or 'unnamed'}"
        self._settings = settings
        self._stack = AsyncExitStack()
        self._connection: Connection | None = None
        self._is_enabled = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def __call__(self, item: Rejected[Any]) -> None:
        """Log the item and store it; wait for NATS while it is unreachable, or accepts nothing."""
        log.warning("round_rejected", key=item.key, reason=item.reason, raw_bytes=len(item.raw), subject=self.subject)
        backoff = Backoff(*_PAUSE_S)
        while self._is_enabled:
            try:
                return await self._store(item)
            except LogError as error:  # the process has worked, so an operator can mend it while we wait
                log.warning("reject_not_stored", key=item.key, error=str(error))
            await asyncio.sleep(backoff.next_s())
        return None

    async def _store(self, item: Rejected[Any]) -> None:
        if self._connection is None:
            # Not before there is something to store: most sources never reject anything.
            self._connection = await self._stack.enter_async_context(connect(self._settings, name="rejects"))
        body = msgspec.json.encode(
            {
                "key": item.key,
                "reason": item.reason,
                "raw": item.raw.decode("utf-8", "replace"),
                "rejected_at": int(time.time() * 1000),
            }
        )
        headers = {"Nats-Msg-Id": _reject_id(self.subject, item)}
        try:
            reply = await store(self._connection, self.subject, body, headers=headers)
        except NoResponders:
            if not await self._has_stream(self._connection):
                return
            reply = await store(self._connection, self.subject, body, headers=headers)
        if reply.error is not None:
            log.error("reject_refused", key=item.key, error=reply.error.description)

    async def _has_stream(self, connection: Connection) -> bool:
        """Create the stream if it is missing; False: the server refuses it, and items are only logged from now on."""
        try:
            await ensure_stream(connection, WANTED)
        except LogUnsuitable as error:
            self._is_enabled = False
            log.error("rejects_not_kept", stream=STREAM, error=str(error))
        return self._is_enabled


def _reject_id(subject: str, item: Rejected[Any]) -> str:
    """Return the same id for the same item. It includes the content, since such items often lack a key of their own:
    a row whose id is NULL, for example."""
    content = hashlib.blake2b(item.raw, digest_size=16).hexdigest()
    return f"{_printable(f'{subject}:{item.key}')}:{content}"


def _printable(text: str) -> str:
    """Return `text` as a header may contain it: without line breaks, and not too long."""
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in text)[:256]
