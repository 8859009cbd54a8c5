"""Watching a backend changes nothing that it yields or is told."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from backends.contract import Captured, Rejected
from backends.ingest.instrumented import Instrumented
from tests.backends.harness import make_round

Batch = Sequence[Captured[str] | Rejected[str]]


class Source:
    """Yields two batches, and records what it is told."""

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
    """Positions that look alike are told apart by their number; the backend gets its own."""
    source = Source()
    observed = Instrumented(source)
    async with observed.open():
        assert observed.is_open
        items = [item for batch in [batch async for batch in observed.read()] for item in batch]
    assert [type(item) for item in items] == [Captured, Rejected, Captured]
    assert observed.yielded == 3
    assert observed.waiting_s > 0

    observed.confirm(items[1].offset)
    assert source.confirmed == ["b"]
    assert observed.acked == 2
    assert observed.waiting_s > 0

    observed.acked_to(items[2].offset)
    assert observed.acked == 3
    assert observed.waiting_s == 0
    assert source.confirmed == ["b"]
    assert observed.status is None


async def test_closing_the_reader_closes_that_of_the_backend() -> None:
    """Whoever stops reading lets the source go at once."""
    source = Source()
    stream = Instrumented(source).read()
    await anext(stream)
    await stream.aclose()  # type: ignore[attr-defined]
    assert source.closed


async def test_only_live_rounds_count_for_latency() -> None:
    """A recording of last year says nothing of how fast we are."""
    observed = Instrumented(Source())
    async with observed.open():
        batches = [batch async for batch in observed.read()]
    observed.confirm(batches[-1][-1].offset)
    assert sum(observed.commit_to_ack.counts) == 0
