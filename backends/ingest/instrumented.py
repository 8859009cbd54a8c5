"""Instrument a backend: count what it yields and what is acknowledged, and measure the time from commit to ack.

Pure counting around any backend. Knows nothing of how metrics are exposed.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar, runtime_checkable

from backends.contract import Backend, Captured, HasOffsets, HasStandby, KeptOffset, Rejected, SourceOffsets

P = TypeVar("P")

BOUNDS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_LIVE_S: Final = 3600.0
"""Rounds committed longer ago than this were not live when they were read; they do not count as latency."""


@runtime_checkable
class HasStatus(Protocol):
    """What a backend may also implement: the status of its source."""

    @property
    def status(self) -> Any:
        """Return an object with ``state`` (a word), optionally ``reconnects`` (a count), and anything else."""
        ...


class Numbered(NamedTuple, Generic[P]):
    """An offset of the backend, and how many items were yielded up to it."""

    number: int
    offset: P


class Histogram:
    """Latencies in seconds, counted by the buckets of `BOUNDS_S`."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_S) + 1)
        self.sum_s = 0.0

    def add(self, latency_s: float) -> None:
        self.counts[bisect_left(BOUNDS_S, latency_s)] += 1
        self.sum_s += latency_s


class Instrumented(Generic[P]):
    """A backend with counters around it. Implements `backends.contract.Backend` with `Numbered` offsets."""

    def __init__(self, backend: Backend[P]) -> None:
        self._backend = backend
        self._waiting: deque[tuple[int, float, int]] = deque()  # last number, read at, committed at (Unix ms; 0: none)
        self.yielded = 0
        self.acked = 0
        """Number of items up to which everything is stored in the log, or need not be."""
        self.is_open = False
        self.commit_to_ack = Histogram()
        """Time from the commit of a round to the ack of all rounds up to it."""

    @property
    def status(self) -> Any:
        """The backend's status; None when it has none."""
        return self._backend.status if isinstance(self._backend, HasStatus) else None

    @property
    def with_offsets(self) -> HasOffsets[Numbered[P]] | None:
        """The backend's offsets, numbered; None when it does not implement `HasOffsets`."""
        return _NumberedOffsets(self._backend) if isinstance(self._backend, HasOffsets) else None

    @property
    def standby(self) -> HasStandby | None:
        """The backend's leadership, with the counters reset when it is given up; None: it does not implement it."""
        return _CountedStandby(self._backend, self.forget_waiting) if isinstance(self._backend, HasStandby) else None

    def forget_waiting(self) -> None:
        """Record that what was read and is not acknowledged was discarded."""
        self._waiting.clear()
        self.acked = self.yielded

    @property
    def waiting_s(self) -> float:
        """Age in seconds of the oldest round that was read and is not acknowledged; 0 when there is none."""
        return time.monotonic() - self._waiting[0][1] if self._waiting else 0.0

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        async with self._backend.open():
            self.is_open = True
            try:
                yield
            finally:
                self.is_open = False

    async def read(self) -> AsyncIterator[Sequence[Captured[Numbered[P]] | Rejected[Numbered[P]]]]:
        stream = self._backend.read()
        try:
            async for batch in stream:
                yield [self._numbered(item, time.monotonic()) for item in batch]
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    def acked_to(self, offset: Numbered[P]) -> None:
        """Record acks as they arrive. Confirmations may be delayed on purpose, so they do not measure the log."""
        now_ms = time.time() * 1000
        while self._waiting and self._waiting[0][0] <= offset.number:
            _, _, committed_ms = self._waiting.popleft()
            if committed_ms and 0 <= (latency_s := (now_ms - committed_ms) / 1000) < _LIVE_S:
                self.commit_to_ack.add(latency_s)
        self.acked = max(self.acked, offset.number)

    def confirm(self, offset: Numbered[P]) -> None:
        self.acked_to(offset)
        self._backend.confirm(offset.offset)

    def _numbered(self, item: Captured[P] | Rejected[P], now: float) -> Captured[Numbered[P]] | Rejected[Numbered[P]]:
        self.yielded += 1
        offset = Numbered(self.yielded, item.offset)
        if isinstance(item, Captured):
            self._waiting.append((self.yielded, now, item.round.timestamp))
            return Captured(item.round, offset, item.is_correction)
        self._waiting.append((self.yielded, now, 0))
        return Rejected(item.key, item.reason, item.raw, offset)


class _CountedStandby:
    """Adapts a backend's `HasStandby`."""

    def __init__(self, backend: HasStandby, on_step_down: Callable[[], None]) -> None:
        self._backend = backend
        self._on_step_down = on_step_down

    @property
    def leads(self) -> bool:
        return self._backend.leads

    async def step_down(self) -> None:
        await self._backend.step_down()
        self._on_step_down()


class _NumberedOffsets(Generic[P]):
    """Adapts a backend's `HasOffsets` to `Numbered` offsets."""

    def __init__(self, backend: HasOffsets[P]) -> None:
        self._backend = backend

    def offset_text(self, offset: Numbered[P]) -> bytes | None:
        return self._backend.offset_text(offset.offset)

    def attach(self, offsets: SourceOffsets[Numbered[P]]) -> None:
        plain: _PlainOffsets[P] = _PlainOffsets(offsets)
        self._backend.attach(plain)


class _PlainOffsets(Generic[P]):
    """Adapts the `SourceOffsets` of `Numbered` offsets to the backend's own offsets."""

    def __init__(self, offsets: SourceOffsets[Numbered[P]]) -> None:
        self._offsets = offsets

    @property
    def stored(self) -> P | None:
        stored = self._offsets.stored
        return None if stored is None else stored.offset

    async def kept(self, source: str) -> KeptOffset | None:
        return await self._offsets.kept(source)

    async def recall(
        self,
        source: str,
        comes_again: Callable[[str], bool],
        *,
        since: KeptOffset | None = None,
        stored_since: datetime | None = None,
    ) -> None:
        await self._offsets.recall(source, comes_again, since=since, stored_since=stored_since)

    async def keep(self, source: str, offset: str, note: str = "") -> bool:
        return await self._offsets.keep(source, offset, note)

    async def newest(self) -> Mapping[str, int]:
        return await self._offsets.newest()
