"""Ingest runs a backend into the log, logs events, and ends quickly when cancelled."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import stream_relay
from backends.backlog import HasBacklog
from backends.contract import BackendContext, Captured, HasOffsets, Rejected, SourceError, SourceOffsets
from backends.ingest.instrumented import HasStatus
from backends.ingest.run_ingest import run_ingest
from backends.publish.publisher_settings import PublisherSettings
from roundlog.log_settings import LogSettings
from rounds import Catalogue, Round
from tests.backends.harness import DeadLetters, Source, assert_log_is, captured_events, make_round, stored
from tests.backends.own_backend import Lines
from tests.docs.pages import blocks
from tests.nats import NatsServer

pytestmark = pytest.mark.service

DOCS = Path(__file__).parents[3] / "docs"


class Opened(Source):
    """A source as a whole backend."""

    is_open = False
    fault: SourceError | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False

    async def read(self) -> AsyncIterator[Sequence[Captured[int] | Rejected[int]]]:
        assert self.is_open
        async for batch in super().read():
            yield batch
        if self.fault is not None:
            raise self.fault


async def test_backend_of_ones_own_runs_and_goes_on_where_it_was(nats: NatsServer) -> None:
    """The documented example: good lines are stored, bad ones handed over, everything is confirmed."""
    rounds = [make_round(number, "crash") for number in range(4)]
    lines = [round_.to_json().decode() for round_ in rounds]
    unknown = make_round(9, "no-such-game").to_json().decode()
    backend = Lines(
        {"text": "\n".join([*lines[:2], "not json", unknown, *lines[2:]])}, BackendContext(Catalogue.load())
    )
    rejects = DeadLetters()

    stats = await run_ingest(backend, LogSettings(url=nats.url), rejects=rejects)

    assert_log_is(await stored(nats), rounds)
    assert [item.key for item in rejects.items] == ["line 3", "line 4"]
    assert "unknown game 'no-such-game'" in rejects.items[1].reason
    assert backend.confirmed == 6
    assert (stats.read, stats.acked, stats.rejected) == (6, 4, 2)


def test_documentation_shows_the_example_as_it_runs() -> None:
    """docs/backends.md cannot drift from the code."""
    example = (Path(__file__).parents[1] / "own_backend.py").read_text()
    assert example.split('"""', 2)[2].strip() in (DOCS / "backends.md").read_text()


def test_documented_making_of_a_round_runs() -> None:
    """The example of `Round.make` gives a round of the catalogue, with the extras that its comment shows."""
    page = (DOCS / "backends.md").read_text("utf-8")
    [example] = [block for block in blocks(page, "python") if "Round.make(" in block]
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102 - the example is our own

    made = names["round_"]
    assert made == Round.parse(made.to_json())
    assert made.game_type == Catalogue.load().game(made.game_slug).type
    assert f"numbers as strings: {made.extras}\n" in example
    assert 0 < made.timestamp - made.finished.timestamp() * 1000 < 1000
    assert all(f"    {field}=" in example for field in Round.__struct_fields__[:6])


@pytest.mark.parametrize("name", stream_relay.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    """A writer of a backend finds each name of the public face on the page."""
    assert re.search(rf"\b{name}\b", (DOCS / "backends.md").read_text("utf-8"))


@pytest.mark.parametrize("protocol", [HasStatus, HasBacklog, HasOffsets, SourceOffsets])
def test_every_member_of_an_optional_protocol_is_documented(protocol: type) -> None:
    """Its tables name all methods and properties."""
    page = (DOCS / "backends.md").read_text("utf-8")
    members = [name for name in vars(protocol) if not name.startswith("_")]

    assert members
    assert all(re.search(rf"`{name}\b", page) for name in members)


async def test_run_logs_events_with_counts(nats: NatsServer) -> None:
    """Started, lost, restored, finished: what an operator searches the logs for."""
    source = Opened(300, pause_after=100)
    with captured_events() as events:
        running = asyncio.create_task(run_ingest(source, LogSettings(url=nats.url, connect_timeout_s=1), name="test"))
        await source.confirmed_to(100)
        await nats.kill()
        source.resume()
        await nats.start()
        stats = await running

    assert [name for name in events if name != "nats_error"] == [
        "ingest_started",
        "log_lost",
        "log_restored",
        "ingest_finished",
    ]
    finished = events.details[-1]
    assert (finished["outcome"], finished["acked"], finished["backend"]) == ("exhausted", 300, "test")
    assert stats.reconnects >= 1
    assert all("exc_info" not in event for event in events.details)


async def test_rejected_item_is_logged_without_its_content(nats: NatsServer) -> None:
    """Where it is and why; what it holds may be nobody's business."""
    backend = Lines({"text": "secret content"}, BackendContext(Catalogue.load()))
    with captured_events() as events:
        await run_ingest(backend, LogSettings(url=nats.url))

    (rejected,) = [event for event in events.details if event["event"] == "round_rejected"]
    assert rejected["key"] == "line 1"
    assert "secret content" not in str(events.details)


async def test_failing_source_is_left_in_order(nats: NatsServer) -> None:
    """Its sentence comes out and is in the log, what it yielded is stored, and it is closed."""
    source = Opened(100)
    source.fault = SourceError("the slot is gone; make it again")
    with captured_events() as events, pytest.raises(SourceError, match="the slot is gone"):
        await run_ingest(source, LogSettings(url=nats.url))

    assert not source.is_open
    assert source.confirmed[-1] == 100
    assert (events.details[-1]["event"], events.details[-1]["level"]) == ("ingest_failed", "error")
    assert events.details[-1]["error"] == "the slot is gone; make it again"
    assert "ingest_finished" not in events


async def test_stopped_ingest_leaves_quickly_while_nats_is_away(nats: NatsServer) -> None:
    """Ctrl-C does not wait for a server that is not there."""
    source = Opened(100)
    await nats.stop()
    with captured_events() as events:
        running = asyncio.create_task(run_ingest(source, LogSettings(url=nats.url, connect_timeout_s=0.5)))
        await events.seen("log_lost")
        running.cancel()
        async with asyncio.timeout(3):
            await asyncio.wait([running])

    assert running.cancelled()
    assert not source.is_open
    assert events.details[-1]["outcome"] == "stopped"
    assert source.confirmed == []


async def test_progress_is_logged_while_there_is_some(nats: NatsServer) -> None:
    """Numbers now and then, and silence while nothing is read."""
    source = Opened(200, pause_after=100)
    with captured_events() as events:
        running = asyncio.create_task(
            run_ingest(source, LogSettings(url=nats.url), PublisherSettings(), progress_s=0.01)
        )
        await events.seen("ingest_progress")
        source.resume()
        await running

    assert events.details[events.index("ingest_progress")]["read"] == 100
