"""Instrumenting a backend changes neither what it yields nor what is confirmed to it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from backends.contract import Captured, Rejected
from backends.ingest.instrumented import Instrumented
from tests.backends.harness import make_round

Batch = Sequence[Captured[str] | Rejected[str]]


class Source:
    """Yields two batches, and records the confirmations."""

    def __init__(self) -> None:
        self.confirmed: list[str] = []
        self.closed = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        yield

    async def read(self) -> AsyncIterator[Batch]:
        try:
            yield [Captured(make_round(1), "a"), Rejected("k", "why", b"raw", "b")]
            yield [Captured(make_round(2), "b")]
        finally:
            self.closed = True

    def confirm(self, offset: str) -> None:
        self.confirmed.append(offset)


async def test_items_pass_as_they_are_and_positions_come_back_to_the_backend() -> None:
    """Equal offsets are distinguished by their number; the backend gets back its own."""
    source = Source()
    instrumented = Instrumented(source)
    async with instrumented.open():
        assert instrumented.is_open
        items = [item for batch in [batch async for batch in instrumented.read()] for item in batch]
    assert [type(item) for item in items] == [Captured, Rejected, Captured]
    assert instrumented.yielded == 3
    assert instrumented.waiting_s > 0

    instrumented.confirm(items[1].offset)
    assert source.confirmed == ["b"]
    assert instrumented.acked == 2
    assert instrumented.waiting_s > 0

    instrumented.acked_to(items[2].offset)
    assert instrumented.acked == 3
    assert instrumented.waiting_s == 0
    assert source.confirmed == ["b"]
    assert instrumented.status is None


async def test_closing_the_reader_closes_that_of_the_backend() -> None:
    """When the caller stops reading, the source is closed at once."""
    source = Source()
    stream = Instrumented(source).read()
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert source.closed


async def test_only_live_rounds_count_for_latency() -> None:
    """A recording of last year says nothing of how fast we are."""
    instrumented = Instrumented(Source())
    async with instrumented.open():
        batches = [batch async for batch in instrumented.read()]
    instrumented.confirm(batches[-1][-1].offset)
    assert sum(instrumented.commit_to_ack.counts) == 0
