"""Bulk replay: the whole log in batches, once, in order, as fast as the client reads."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
from grpc import StatusCode

from auth.key_secret import DEMO_KEY
from relay.history.reading import pages, shared_pages
from relay.rpc.bulk import BulkReplay
from rounds import datastream_pb2 as pb
from tests.rpc.caller import Caller, read_to_end, text_of
from tests.rpc.conftest import GrpcRelay, Publish

pytestmark = pytest.mark.service


def ids(batches: list[pb.RoundBatch]) -> list[int]:
    return [round_.round_id for batch in batches for round_ in batch.rounds]


async def test_whole_log_in_batches(caller: Caller, publish: Publish) -> None:
    """Every round of every game once and in order, several per message, over more than one page of the log."""
    await publish("crash", *range(1, 601))
    await publish("dice", *range(601, 1201))

    batches, end = await read_to_end(caller.call(pb.ReplayRequest()))

    assert end is None
    assert ids(batches) == list(range(1, 1201))
    assert len(batches) < 20


async def test_replay_of_some_games_after_a_cursor(caller: Caller, publish: Publish) -> None:
    """Only later, matching rounds of those games; the metadata says that the replay is complete."""
    await publish("crash", 1, 2)
    await publish("double", 3, extras='{"color":"red"}')
    cursor = (await caller.ask(pb.GetHistoryRequest(game_slug="crash", limit=1))).rounds[0].cursor
    await publish("crash", 4, extras='{"point":"1"}')
    await publish("dice", 5)
    await publish("crash", 6)

    wanted = pb.Filter(min_point=2)
    call = caller.call(pb.ReplayRequest(game_slugs=["crash", "double"], filter=wanted, after=cursor))
    metadata = text_of(await call.initial_metadata())
    batches, end = await read_to_end(call)

    assert end is None
    assert ids(batches) == [6]
    assert metadata["complete"] == "true"


async def test_replay_of_an_empty_log(caller: Caller) -> None:
    """It ends at once, with OK."""
    assert await read_to_end(caller.call(pb.ReplayRequest())) == ([], None)


async def test_replay_after_a_cursor_of_another_log(caller: Caller, publish: Publish) -> None:
    """OUT_OF_RANGE; with its resume cursor the whole log is replayed."""
    await publish("crash", 1, 2)

    batches, end = await read_to_end(caller.call(pb.ReplayRequest(after="k3f9a2-7")))

    assert batches == []
    assert end is not None
    assert end.code is StatusCode.OUT_OF_RANGE
    again, _ = await read_to_end(caller.call(pb.ReplayRequest(after=end.trailers["resume-cursor"])))
    assert ids(again) == [1, 2]


async def test_replay_then_stream(caller: Caller, publish: Publish) -> None:
    """A client catches up in bulk and then streams from its last cursor, without losing a round in between."""
    await publish("crash", 1, 2, 3)
    batches, _ = await read_to_end(caller.call(pb.ReplayRequest()))
    await publish("crash", 4)

    async with caller.stream(pb.StreamAllRequest(after=batches[-1].rounds[-1].cursor)) as call:
        await publish("crash", 5)
        seen = [(await call.read()).round_id for _ in range(2)]

    assert seen == [4, 5]


async def test_replay_that_is_cancelled_in_the_middle(relay: GrpcRelay, caller: Caller, publish: Publish) -> None:
    """A client that leaves frees its permit and its pages of the log."""
    await publish("crash", *range(1, 300), extras='{"ballast":"' + "x" * 20_000 + '"}')
    call = caller.call(pb.ReplayRequest())
    await call.read()
    call.cancel()

    await relay.metric_becomes("relay_links", 0)


async def test_unread_replays_do_not_block_others(relay: GrpcRelay, publish: Publish) -> None:
    """They hold none of the shared pages: one that is read completes, and the others complete later."""
    count = 300
    await publish("crash", *range(1, count + 1), extras='{"ballast":"' + "x" * 20_000 + '"}')
    small: dict[str, Any] = {"http2.bdp_probe": 0, "use_local_subchannel_pool": 1}
    async with AsyncExitStack() as stack:
        unread = []
        for _ in range(40):  # more than there are shared pages
            calling = await stack.enter_async_context(Caller(relay.address, DEMO_KEY, **small))
            unread.append(calling.call(pb.ReplayRequest()))
            await unread[-1].initial_metadata()
        reader = await stack.enter_async_context(relay.caller())
        batches, end = await read_to_end(reader.call(pb.ReplayRequest()))
        late, late_end = await read_to_end(unread[0])
        for call in unread:
            call.cancel()

    assert end is None
    assert late_end is None
    assert ids(batches) == ids(late) == list(range(1, count + 1))


async def test_page_that_a_client_does_not_take_stays_whole_for_others(
    relay: GrpcRelay, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds none of its rounds any more; another one that gets the same page does."""
    monkeypatch.setattr(pages, "_is_shared", lambda _limit: True)
    monkeypatch.setattr(shared_pages, "_FRESH_S", 60.0)
    dropped, drop = asyncio.Event(), BulkReplay._drop

    def noted(replay: BulkReplay) -> None:
        drop(replay)
        dropped.set()

    monkeypatch.setattr(BulkReplay, "_drop", noted)
    count = 300
    await publish("crash", *range(1, count + 1), extras='{"ballast":"' + "x" * 20_000 + '"}')
    small: dict[str, Any] = {"http2.bdp_probe": 0, "use_local_subchannel_pool": 1}
    async with Caller(relay.address, DEMO_KEY, **small) as calling, relay.caller() as reader:
        unread = calling.call(pb.ReplayRequest())
        await asyncio.wait_for(dropped.wait(), 20)
        batches, end = await read_to_end(reader.call(pb.ReplayRequest()))
        late, late_end = await read_to_end(unread)

    assert (end, late_end) == (None, None)
    assert ids(batches) == ids(late) == list(range(1, count + 1))
