"""Keep what could not become a round, where an operator can look at it later: a stream of its own, ``REJECTS``.

A rejected row must neither stop the flow nor vanish. It is logged with its key, and stored before its offset is
confirmed, so a crash in between stores it again at worst. Knows nothing of why items are rejected.
"""

import asyncio
import hashlib
import re
import time
from contextlib import AsyncExitStack
from typing import Any, Final, Self

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from backends.contract import Rejected
from roundlog.backoff import Backoff
from roundlog.connection import connect, sentence
from roundlog.errors import LogUnavailable
from roundlog.settings import LogSettings

log = structlog.get_logger()

STREAM: Final = "REJECTS"
_NANO: Final = 1_000_000_000
_WANTED: Final = {
    "name": STREAM,
    "subjects": ["rejects.*"],
    "retention": "limits",
    "storage": "file",
    "discard": "old",
    "max_age": 30 * 86_400 * _NANO,
    "max_bytes": 256 << 20,  # a source that is wrong throughout must not fill the disk
    "duplicate_window": 120 * _NANO,
}
_ANSWER_S: Final = 5.0
_PAUSE_S: Final = (0.1, 5.0)
_EXISTS: Final = 10058
_UNAVAILABLE: Final = 503
_NOT_TOKEN: Final = re.compile(r"[^A-Za-z0-9_-]")


class RejectsStream:
    """Takes rejected items, as a publisher wants it. Entered with ``async with``; NATS need not be there yet."""

    def __init__(self, settings: LogSettings, name: str) -> None:
        """Take the rejects of the backend called `name`, on the subject ``rejects.<name>``."""
        self.subject = f"rejects.{_NOT_TOKEN.sub('_', name)[:64] or 'unnamed'}"
        self._settings = settings
        self._stack = AsyncExitStack()
        self._nc: Client | None = None
        self._is_kept = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def __call__(self, item: Rejected[Any]) -> None:
        """Log the item and store it; waits for NATS while it is away, as rounds do.

        Raises:
            LogRefused: NATS does not let us in.
        """
        log.warning("round_rejected", key=item.key, reason=item.reason, raw_bytes=len(item.raw), subject=self.subject)
        backoff = Backoff(*_PAUSE_S)
        while self._is_kept:
            try:
                return await self._store(item)
            except (NatsError, LogUnavailable, OSError) as error:  # TimeoutError is an OSError
                log.warning("reject_not_stored", key=item.key, error=sentence(error))
            await asyncio.sleep(backoff.next_s())
        return None

    async def _store(self, item: Rejected[Any]) -> None:
        if self._nc is None:
            # Not before there is something to keep: most sources never reject anything.
            self._nc = await self._stack.enter_async_context(connect(self._settings, name="rejects"))
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
            answer = await self._nc.request(self.subject, body, _ANSWER_S, headers=headers)
        except NoRespondersError:
            await self._make_stream(self._nc)
            answer = await self._nc.request(self.subject, body, _ANSWER_S, headers=headers)
        if error := msgspec.json.decode(answer.data).get("error"):
            log.error("reject_refused", key=item.key, error=error.get("description"))

    async def _make_stream(self, nc: Client) -> None:
        """Make the stream that is missing; where that is not allowed, the log lines have to do from now on."""
        answer = await nc.request(f"$JS.API.STREAM.CREATE.{STREAM}", msgspec.json.encode(_WANTED), _ANSWER_S)
        error = msgspec.json.decode(answer.data).get("error")
        if error and error.get("err_code") != _EXISTS:
            self._is_kept = error.get("code") == _UNAVAILABLE
            log.error("rejects_not_kept", stream=STREAM, error=error.get("description"))


def _reject_id(subject: str, item: Rejected[Any]) -> str:
    """Name an item the same whenever it comes again. By its content too: what cannot become a round has often no key
    of its own, such as a row whose id is NULL."""
    content = hashlib.blake2b(item.raw, digest_size=16).hexdigest()
    return f"{_printable(f'{subject}:{item.key}')}:{content}"


def _printable(text: str) -> str:
    """Make of `text` what may stand in a header: no line breaks, and not too long."""
    return "".join(char if char.isprintable() and char.isascii() else "?" for char in text)[:256]
