"""Follow a bucket: all of it, then every change, through lost messages, restarts of NATS and replaced buckets.

Owns when to read. A message on a subject of the bucket is only a hint that it may have changed: the entries themselves
are read from the stream, by their sequence, so a hint that was lost, refused or forged has no other effect than a
later or a needless read. Does not know what entries mean.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Final, Protocol

from nats.aio.msg import Msg

from roundlog.backoff import Backoff, jittered
from roundlog.buckets.bucket import Bucket, BucketEntry, BucketState
from roundlog.client.connection import Connection, connect
from roundlog.log_errors import LogError, LogUnavailable
from roundlog.log_settings import LogSettings
from roundlog.tasks import raise_if_cancelled

_POLL_S: Final = 0.45
"""How often the bucket is asked for what is new, which any replica answers. Hints do not cross accounts when the change
came through an import of a service, and others may be lost."""
_STATE_S: Final = 2.0
"""How often the leader is asked for the state of the bucket, which also shows purges and a replaced bucket."""
_AFTER_HINT_S: Final = (0.01, 0.03, 0.1, 0.25)
"""Pauses between looks after a hint until something new is stored: in a cluster, a hint comes first."""
_PAUSE_S: Final = (0.1, 2.0)
_TTL_SLACK_S: Final = (5.0, 120.0)
"""How much earlier and later than by our clock an entry may be gone by its time to live."""
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600}


class _NoBucket(LogUnavailable):
    """There is no such bucket yet."""


class BucketReceiver(Protocol):
    """Takes the entries of a bucket, in the order of their changes. Its methods must not raise."""

    def page(self, entries: Iterable[BucketEntry]) -> None:
        """Prepare for entries that will be among those of `replace`: called page by page while the bucket is read."""

    def replace(self, entries: Iterable[BucketEntry]) -> None:
        """Take all entries that are not deleted, in place of all that were known."""

    def change(self, entries: Iterable[BucketEntry]) -> None:
        """Take changed entries; some may be deleted."""

    def reached(self) -> None:
        """Note that all that is stored has been received."""

    def lost(self, error: Exception) -> None:
        """Note that the bucket cannot be read now. After that, `replace` is called first."""


class BucketWatch:
    """Follows one bucket while `run` does, on a connection of its own."""

    def __init__(self, settings: LogSettings, name: str, receiver: BucketReceiver, *, hint: str) -> None:
        """Prepare to follow a bucket.

        Args:
            settings: The server and the credentials.
            name: Of the bucket.
            receiver: Takes its entries.
            hint: What an operator has to do when there is no such bucket.
        """
        self._settings = settings
        self._name = name
        self._receiver = receiver
        self._hint = hint
        self._wake = asyncio.Event()
        self._pauses: Iterator[float] = iter(())
        self._created: str | None = None  # None: all of it has to be read
        self._state_at = 0.0  # when the state is asked for next, by the clock of the loop
        self._last = 0
        self._known: dict[str, float | None] = {}  # entries with their markers, and when they are gone by themselves
        self._is_closing = False
        self._until_lost: asyncio.Timeout | None = None

    async def run(self) -> None:
        """Follow the bucket until cancelled. Connects again by itself, however long that takes."""
        backoff = Backoff(*_PAUSE_S)
        while True:
            self._is_closing = False
            try:
                async with connect(
                    self._settings,
                    name="stream-relay bucket",
                    on_disconnected=self._on_disconnected,
                    on_reconnected=self._on_reconnected,
                ) as connection:
                    try:
                        await self._follow(connection)
                    finally:
                        self._is_closing = True
            except LogError as error:  # refused credentials too: an operator can correct them in the server
                self._lost(error)
                await asyncio.sleep(backoff.next_s())

    async def _follow(self, connection: Connection) -> None:
        bucket = Bucket(connection, self._name)
        await connection.subscribe(bucket.subjects, self._on_hint)
        backoff = Backoff(*_PAUSE_S)
        while True:
            raise_if_cancelled()  # nats-py may have swallowed it
            self._wake.clear()
            try:
                if not connection.is_connected:
                    raise self._no_connection()
                async with asyncio.timeout(None) as self._until_lost:  # nats-py waits for answers that cannot come
                    await self._look(bucket)
                backoff.reset()
                pause_s = next(self._pauses, jittered(_POLL_S))
            except (LogError, TimeoutError) as error:
                self._lost(error if isinstance(error, LogError) else self._no_connection())
                # The first key is seen as soon as every other one. NATS answers, so that costs it little.
                pause_s = jittered(_POLL_S) if isinstance(error, _NoBucket) else backoff.next_s()
            self._until_lost = None
            try:
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _look(self, bucket: Bucket) -> None:
        """Read what has changed; all of it where that is not enough."""
        now = asyncio.get_running_loop().time()
        if self._created is not None and now < self._state_at and not await bucket.has_newer(self._last):
            self._receiver.reached()
            return
        self._state_at = now + jittered(_STATE_S)
        state = await bucket.state()
        if state is None:
            raise _NoBucket(f"bucket {self._name!r} does not exist; {self._hint}")
        if state.created != self._created or state.last < self._last:
            await self._read_all(bucket, state)
        elif state.last > self._last:
            await self._read_changes(bucket, state)
        if self._last == state.last and not self._fits(state):  # something was purged
            await self._read_all(bucket, state)
        self._receiver.reached()

    async def _read_all(self, bucket: Bucket, state: BucketState) -> None:
        self._pauses = iter(())
        newest: dict[str, BucketEntry] = {}
        last = 0
        while page := await bucket.page(last, state):
            self._receiver.page(page)
            for entry in page:
                newest[entry.key] = entry
            last = page[-1].revision
            await asyncio.sleep(0)  # others have a turn
        self._known = {}
        self._note(newest.values())
        self._created, self._last = state.created, max(last, state.last)
        self._receiver.replace([entry for entry in newest.values() if not entry.is_deleted])

    async def _read_changes(self, bucket: Bucket, state: BucketState) -> None:
        self._pauses = iter(())
        while page := await bucket.page(self._last, state):
            self._last = page[-1].revision
            self._note(page)
            self._receiver.change(page)
            await asyncio.sleep(0)
        self._last = max(self._last, state.last)  # the newest may be gone already

    def _note(self, entries: Iterable[BucketEntry]) -> None:
        now = time.monotonic()
        for entry in entries:
            ttl_s = _seconds(entry.ttl)
            self._known[entry.key] = None if ttl_s is None else now + ttl_s

    def _fits(self, state: BucketState) -> bool:
        """Whether the bucket has as many entries as we know; it could only have fewer."""
        early, late = _TTL_SLACK_S
        now = time.monotonic()
        mortal = {key: at for key, at in self._known.items() if at is not None}
        for key, at in mortal.items():
            if at < now - late:
                del self._known[key]
        surely = len(self._known) - sum(now - late <= at < now + early for at in mortal.values())
        return surely <= state.keys <= len(self._known)

    async def _on_hint(self, _message: Msg) -> None:
        self._pauses = iter(_AFTER_HINT_S)
        self._wake.set()

    async def _on_disconnected(self) -> None:
        if not self._is_closing:
            self._lost(self._no_connection())
            if self._until_lost is not None and not self._until_lost.expired():
                self._until_lost.reschedule(asyncio.get_running_loop().time())

    async def _on_reconnected(self) -> None:
        self._created = None
        self._wake.set()

    def _no_connection(self) -> LogUnavailable:
        return LogUnavailable(f"the connection to NATS at {self._settings.shown_url} was lost")

    def _lost(self, error: LogError) -> None:
        self._created = None
        self._receiver.lost(error)


def _seconds(ttl: str) -> float | None:
    """Read a time to live as NATS writes it; None for none, or another form."""
    if ttl.isdigit():
        return float(ttl)
    number, unit = ttl[:-1], ttl[-1:]
    return float(number) * _UNITS_S[unit] if number.isdigit() and unit in _UNITS_S else None
