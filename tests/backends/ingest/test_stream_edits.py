"""The streams are edited while ingest works, and before it starts: nothing ends, and what matters is named."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest

from backends.backlog import BacklogWatch
from backends.contract import Rejected
from backends.ingest.ingest_metrics import IngestMetrics
from backends.ingest.instrumented import Instrumented
from backends.publish import publisher, stream_check
from backends.publish.log_offsets import LogOffsets
from backends.publish.publisher import Publisher
from backends.publish.publisher_settings import PublisherSettings
from backends.publish.rejects_stream import RejectsStream
from roundlog.log_settings import LogSettings
from roundlog.promises.stream_watch import StreamWatch
from tests.backends.harness import DeadLetters, Events, Source, assert_log_is, captured_events, stored
from tests.edits import BREAKING, HARMLESS, SILENT, edit
from tests.nats import NatsServer, nats_client
from tests.waiting import until

pytestmark = pytest.mark.service


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_check, "EVERY_S", 0.1)
    monkeypatch.setattr(publisher, "_PAUSE_S", (0.02, 0.1))


@asynccontextmanager
async def publishing(nats: NatsServer, source: Source, streams: StreamWatch) -> AsyncIterator[asyncio.Task[None]]:
    """Publish a source in the background."""

    async def refuse(item: Rejected[Any]) -> None:
        raise AssertionError(item)

    work = Publisher[int](
        LogSettings(url=nats.url),
        PublisherSettings(ack_timeout_s=0.5),
        confirm=source.confirm,
        rejects=refuse,
        streams=streams,
    )
    task = asyncio.create_task(work.run(source.read()))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def settled(streams: StreamWatch) -> None:
    await until(lambda: streams.sentence is None)


def named(streams: StreamWatch, setting: str) -> bool:
    return f"{setting} is " in (streams.sentence or "")


def warned(events: Events, name: str) -> bool:
    return any(event["event"] == "stream_differs" and f"{name} is " in event["settings"] for event in events.details)


async def test_edits_do_not_end_ingest_and_those_that_break_a_promise_are_named(nats: NatsServer) -> None:
    """With settings that would lose a round it holds its rounds; with all others it stores them."""
    source, streams = Source(100 * (len(BREAKING) + 2), pause_after=100), StreamWatch()
    source._gate = Steps()
    metrics = IngestMetrics(Instrumented(object()), "test", BacklogWatch(None))  # type: ignore[arg-type]
    metrics.streams = streams
    with captured_events() as events:
        async with publishing(nats, source, streams) as task:
            await source.confirmed_to(100)
            for number, (name, changes) in enumerate(BREAKING.items(), 1):
                setting = name.partition(" ")[0]
                back = await edit(nats, changes)
                await until(partial(named, streams, setting))
                assert metrics.obstacle() == "log_mismatch"
                assert metrics.detail() == streams.sentence
                source._pause_after = 100 * (number + 1)
                source._gate.set()
                await edit(nats, back)
                await settled(streams)
                await source.confirmed_to(100 * (number + 1))
            for name, changes in {**HARMLESS, **SILENT}.items():
                back = await edit(nats, changes)
                if name in HARMLESS:
                    await until(partial(warned, events, name))
                assert streams.sentence is None
                await edit(nats, back)
            assert not task.done()

    assert events.count("stream_mismatch") == events.count("stream_restored") == len(BREAKING)
    newest = [number for _, number in await stored(nats)][-100:]  # some edits have deleted earlier rounds
    assert newest == [round_.round_id for round_ in source.rounds[-200:-100]]


class Steps(asyncio.Event):
    """An event that lets one waiter pass each time that it is set."""

    async def wait(self) -> bool:  # type: ignore[override]
        await super().wait()
        self.clear()
        return True


@pytest.mark.parametrize("name", ["republish", "subject_transform"])
async def test_restart_onto_an_edited_stream_waits_until_it_is_edited_back(nats: NatsServer, name: str) -> None:
    """Ingest starts, stores nothing, names the setting, and works once it can."""
    async with publishing(nats, Source(1), StreamWatch()) as task:
        await task
    back = await edit(nats, BREAKING[name])
    source, streams = Source(50, start=2), StreamWatch()
    async with publishing(nats, source, streams) as task:
        await until(lambda: f"{name} is " in (streams.sentence or ""))
        assert source.yielded == 0
        await edit(nats, back)
        await task

    assert len(await stored(nats)) == 51


async def test_restart_onto_a_stream_with_other_limits_is_a_warning(nats: NatsServer) -> None:
    """A fail-over works while the settings are not changed yet."""
    async with publishing(nats, Source(1), StreamWatch()) as task:
        await task
    for name in ("max_age_s", "max_bytes", "max_msgs", "duplicate_window_s"):
        await edit(nats, HARMLESS[name])
    with captured_events() as events:
        async with publishing(nats, Source(50, start=2), StreamWatch()) as task:
            await task

    assert all(warned(events, name) for name in ("max_age_s", "max_bytes", "max_msgs", "duplicate_window_s"))


async def test_round_is_not_stored_under_another_game(nats: NatsServer) -> None:
    """A subject transform is noticed before, or soon after; rounds wait in the source meanwhile."""
    source, streams = Source(200, pause_after=100), StreamWatch()
    with captured_events() as events:
        async with publishing(nats, source, streams) as task:
            await source.confirmed_to(100)
            back = await edit(nats, BREAKING["subject_transform"])
            await events.seen("log_lost")
            source.resume()
            await until(lambda: source.yielded == 200)
            assert len(await stored(nats)) == 100
            await edit(nats, back)
            await task

    assert_log_is(await stored(nats), source.rounds)


async def test_stream_that_is_to_get_replicas_gets_no_condition_that_stops_it_then(nats: NatsServer) -> None:
    """The settings ask for replicas before the stream is edited to have them, which nobody notices at once."""
    settings = LogSettings(url=nats.url)
    async with publishing(nats, Source(1), StreamWatch()) as task:
        await task
    source, rejects = Source(300, start=2, pause_after=200), DeadLetters()
    planned = settings.model_copy(update={"replicas": 3})
    work = Publisher[int](planned, PublisherSettings(), confirm=source.confirm, rejects=rejects)
    running = asyncio.create_task(work.run(source.read()))
    await source.confirmed_to(200)
    source.resume()
    await running

    assert work.stats.reconnects == 0
    async with nats_client(settings) as nc:
        for sequence in range(2, 302):
            headers = (await nc.jetstream().get_msg("ROUNDS", sequence, direct=True)).headers or {}
            assert "Nats-Expected-Last-Msg-Id" not in headers
            assert "Nats-Expected-Last-Subject-Sequence" in headers


@pytest.mark.parametrize(
    ("stream", "changes", "setting"),
    [
        ("POSITIONS", {"max_age": 3600 * 10**9}, "max_age_s"),
        ("POSITIONS", {"max_msgs": 1}, "max_msgs"),
        ("POSITIONS", {"subjects": ["positions.only.this"]}, "subjects"),
        ("REJECTS", {"retention": "interest"}, "retention"),
        ("REJECTS", {"subjects": ["rejected.*"]}, "subjects"),
    ],
)
async def test_edit_of_another_stream_is_named(
    nats: NatsServer, stream: str, changes: dict[str, Any], setting: str
) -> None:
    """An offset must stay until it is replaced, and a reject until an operator has seen it."""
    settings, streams = LogSettings(url=nats.url), StreamWatch()
    async with RejectsStream(settings, "test") as rejects, LogOffsets[int](settings) as offsets:
        await rejects(Rejected("key", "reason", b"raw", 1))
        assert await offsets.keep("pg:1", "A")
    async with publishing(nats, Source(200, pause_after=100), streams) as task:
        back = await edit(nats, changes, stream)
        await until(lambda: f"{setting} is " in (streams.sentence or "") and stream in (streams.sentence or ""))
        await edit(nats, back, stream)
        await settled(streams)
        assert not task.done()


async def test_limits_of_the_stream_of_rejects_are_the_operators(nats: NatsServer) -> None:
    """An edit of its age or size is one warning."""
    settings, streams = LogSettings(url=nats.url), StreamWatch()
    async with RejectsStream(settings, "test") as rejects:
        await rejects(Rejected("key", "reason", b"raw", 1))
    with captured_events() as events:
        async with publishing(nats, Source(200, pause_after=100), streams):
            await edit(nats, {"max_age": 3600 * 10**9, "max_bytes": 1 << 20}, "REJECTS")
            await until(lambda: warned(events, "max_age_s"))
            assert streams.sentence is None
