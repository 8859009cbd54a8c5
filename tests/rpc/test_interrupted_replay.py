"""Bulk replays that are interrupted, over gRPC and through the proxy."""

import asyncio
import shutil
from collections.abc import MutableMapping
from typing import Any, Final

import pytest
from grpc import StatusCode
from structlog.testing import capture_logs

from relay.history.reading.pages import PageSource
from relay.rpc import bulk
from rounds import Cursor
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.rpc.caller import CallStatus
from tests.rpc.conftest import GrpcRelay, Publish, Rebuild, StartRelay
from tests.rpc.replaying import TRANSPORTS, Replaying, replaying
from tests.waiting import until

pytestmark = [pytest.mark.service, pytest.mark.parametrize("transport", TRANSPORTS)]

MANY: Final = 900
LONG: Final = {"extras": '{"ballast":"' + "x" * 20_000 + '"}'}
"""Makes 18 MB of rounds, more than buffers hold, so that most are not sent while a client does not read."""

Logs = list[MutableMapping[str, Any]]


def rounds(*batches: pb.RoundBatch) -> list[pb.Round]:
    return [round_ for batch in batches for round_ in batch.rounds]


def ids(*batches: pb.RoundBatch) -> list[int]:
    return [round_.round_id for round_ in rounds(*batches)]


async def first_of(replay: Replaying) -> pb.RoundBatch:
    batch = await replay.batch()
    assert isinstance(batch, pb.RoundBatch)
    return batch


async def logged(logs: Logs, event: str) -> None:
    """Wait until the relay has logged an event."""
    await until(lambda: any(entry["event"] == event for entry in logs))


async def test_log_that_is_unavailable_for_a_while(
    start_relay: StartRelay, publish: Publish, nats: NatsServer, transport: str
) -> None:
    """A replay waits for the log as streams do: every round once and in order, and OK."""
    await publish("crash", *range(1, MANY + 1), **LONG)
    async with start_relay() as relay, replaying(transport, relay, pb.ReplayRequest()) as replay:
        first = await first_of(replay)
        await nats.kill()
        with capture_logs() as logs:
            reading = asyncio.create_task(replay.rest())
            await logged(logs, "replay_waits")
        await nats.start()
        rest, end = await reading

    assert ids(first, *rest) == list(range(1, MANY + 1))
    assert end.code is StatusCode.OK


async def test_log_that_stays_unavailable(
    start_relay: StartRelay, publish: Publish, nats: NatsServer, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After `PATIENCE_S` the client gets a retry delay and a resume cursor; with it, no round is lost."""
    monkeypatch.setattr(bulk, "PATIENCE_S", 0.5)
    await publish("crash", *range(1, MANY + 1), **LONG)
    async with start_relay() as relay:
        async with replaying(transport, relay, pb.ReplayRequest()) as replay:
            first = await first_of(replay)
            await nats.kill()
            rest, end = await replay.rest()
        await relay.metric_becomes("relay_links", 0)
        await nats.start()
        await relay.metric_becomes("relay_ready", 1)
        again = pb.ReplayRequest(after=end.trailers["resume-cursor"])
        async with replaying(transport, relay, again) as replay:
            later, well = await replay.rest()

    assert end.code is StatusCode.UNAVAILABLE
    assert "log_unavailable" in end.message
    assert int(end.trailers["retry-after-ms"]) >= 0
    assert (
        end.trailers["resume-cursor"]
        == [*first.rounds, *(round_ for batch in rest for round_ in batch.rounds)][-1].cursor
    )
    assert ids(first, *rest, *later) == list(range(1, MANY + 1))
    assert well.code is StatusCode.OK


@pytest.mark.parametrize("returns", [True, False], ids=["returns", "stays away"])
async def test_log_that_becomes_unavailable_before_the_first_round(
    start_relay: StartRelay,
    publish: Publish,
    nats: NatsServer,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
    returns: bool,
) -> None:
    """A replay that looks for its start waits as one that runs: as long as the schema says."""
    locate = bulk.BulkReplay.locate

    async def locate_without_log(self: bulk.BulkReplay, after: Cursor | None) -> None:
        await nats.kill()
        await locate(self, after)

    monkeypatch.setattr(bulk.BulkReplay, "locate", locate_without_log)
    if not returns:
        monkeypatch.setattr(bulk, "PATIENCE_S", 0.1)
    await publish("crash", 1, 2, 3)
    async with start_relay() as relay:
        with capture_logs() as logs:
            replaying_ = asyncio.create_task(whole(transport, relay))
            await logged(logs, "replay_waits")
        if returns:
            await nats.start()
        batches, end = await replaying_

    assert end.code is (StatusCode.OK if returns else StatusCode.UNAVAILABLE)
    assert ids(*batches) == ([1, 2, 3] if returns else [])


async def whole(transport: str, relay: GrpcRelay) -> tuple[list[pb.RoundBatch], CallStatus]:
    """Read a replay of everything."""
    async with replaying(transport, relay, pb.ReplayRequest()) as replay:
        return await replay.rest()


@pytest.mark.parametrize("count", [10, MANY + 100], ids=["shorter", "longer"])
async def test_log_that_is_rebuilt(
    start_relay: StartRelay, publish: Publish, rebuild: Rebuild, transport: str, count: int
) -> None:
    """OUT_OF_RANGE: the remaining rounds are gone; with its resume cursor all of the new log is replayed."""
    await publish("crash", *range(1, MANY + 1), **LONG)
    async with start_relay() as relay:
        async with replaying(transport, relay, pb.ReplayRequest()) as replay:
            first = await first_of(replay)
            await rebuild()
            await publish("dice", *range(1, count + 1))
            await relay.metric_becomes("relay_head_sequence", count)
            rest, end = await replay.rest()
        again = pb.ReplayRequest(after=end.trailers["resume-cursor"])
        async with replaying(transport, relay, again) as replay:
            new, well = await replay.rest()

    old = rounds(first, *rest)
    assert [round_.round_id for round_ in old] == list(range(1, len(old) + 1))
    assert len({round_.cursor.partition("-")[0] for round_ in old}) == 1
    assert end.code is StatusCode.OUT_OF_RANGE
    assert "rebuilt" in end.message
    assert end.trailers["first-cursor"] == new[0].rounds[0].cursor
    assert ids(*new) == list(range(1, count + 1))
    assert well.code is StatusCode.OK


async def test_log_that_loses_its_tail(
    start_relay: StartRelay, publish: Publish, nats: NatsServer, transport: str
) -> None:
    """OUT_OF_RANGE: the log now ends before the cursor; with its resume cursor new rounds are replayed."""
    await publish("crash", *range(1, 21), **LONG)
    await nats.stop()
    shutil.copytree(nats.store / "jetstream", nats.store / "copy")
    await nats.start()
    await publish("crash", *range(21, MANY + 1), **LONG)
    async with start_relay() as relay:
        async with replaying(transport, relay, pb.ReplayRequest()) as replay:
            first = await first_of(replay)
            await nats.kill()
            shutil.rmtree(nats.store / "jetstream")
            shutil.copytree(nats.store / "copy", nats.store / "jetstream")
            await nats.start()
            await relay.metric_becomes("relay_head_sequence", 20)
            rest, end = await replay.rest()
        await publish("dice", 1, 2, 3)
        async with replaying(transport, relay, pb.ReplayRequest(after=end.trailers["resume-cursor"])) as replay:
            new, well = await replay.rest()

    assert ids(first, *rest) == list(range(1, len(ids(first, *rest)) + 1))
    assert end.code is StatusCode.OUT_OF_RANGE
    assert "ahead" in end.message
    assert end.trailers["resume-cursor"].endswith("-20")
    assert ids(*new) == [1, 2, 3]
    assert well.code is StatusCode.OK


async def test_bug_during_a_replay(
    start_relay: StartRelay, publish: Publish, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """INTERNAL, logged, with a resume cursor; a client that uses it loses no round."""
    await publish("crash", *range(1, MANY + 1), **LONG)
    async with start_relay() as relay:
        async with replaying(transport, relay, pb.ReplayRequest()) as replay:
            first = await first_of(replay)
            with monkeypatch.context() as patch, capture_logs() as logs:
                patch.setattr(PageSource, "read", _failing)
                rest, end = await replay.rest()
        async with replaying(transport, relay, pb.ReplayRequest(after=end.trailers["resume-cursor"])) as replay:
            later, _ = await replay.rest()
        await relay.metric_becomes("relay_links", 0)

    assert end.code is StatusCode.INTERNAL
    assert [entry["event"] for entry in logs].count("call_failed") == 1
    assert ids(first, *rest, *later) == list(range(1, MANY + 1))


async def _failing(*_: object, **__: object) -> None:
    raise RuntimeError("made by the test")


async def test_drain_while_the_log_is_unavailable(
    start_relay: StartRelay, publish: Publish, nats: NatsServer, transport: str
) -> None:
    """A waiting replay is ended at once, with its cursor."""
    await publish("crash", *range(1, MANY + 1), **LONG)
    async with start_relay(drain={"grace_s": 20, "margin_s": 20}) as relay:
        stack = replaying(transport, relay, pb.ReplayRequest())
        replay = await stack.__aenter__()
        first = await first_of(replay)
        await nats.kill()
        with capture_logs() as logs:
            reading = asyncio.create_task(replay.rest())
            await logged(logs, "replay_waits")
    rest, end = await reading
    await stack.__aexit__(None, None, None)

    assert end.code is StatusCode.UNAVAILABLE
    assert "draining" in end.message
    assert end.trailers["resume-cursor"].endswith(f"-{len(ids(first, *rest))}")
