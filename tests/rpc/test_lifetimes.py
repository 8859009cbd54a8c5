"""How streams end: by drain, by age, by a client that stops reading or leaves; nothing of them remains."""

import asyncio
import gc
from typing import Any, Final

import pytest
from grpc import StatusCode, aio

from auth.key_secret import DEMO_KEY
from rounds import datastream_pb2 as pb
from tests.rpc.caller import Caller, CallStatus, read_to_end, status_of
from tests.rpc.conftest import GrpcRelay, Outliving, Publish, StartRelay
from tests.waiting import until

pytestmark = pytest.mark.service

MANY: Final = 1000


async def test_drain_ends_a_stream_with_its_cursor(
    start_relay: StartRelay, publish: Publish, outliving: Outliving
) -> None:
    """UNAVAILABLE, with a delay for this client and the resume cursor."""
    async with start_relay() as relay:
        call = outliving(relay).call(pb.StreamAllRequest())
        await call.initial_metadata()
        await publish("crash", 1)
        round_ = await call.read()
    rest, end = await read_to_end(call)

    assert rest == []
    assert end is not None
    assert end.code is StatusCode.UNAVAILABLE
    assert int(end.trailers["retry-after-ms"]) >= 0
    assert end.trailers["resume-cursor"] == round_.cursor


async def test_client_that_reconnects_after_drains_misses_nothing(
    start_relay: StartRelay, publish: Publish, outliving: Outliving
) -> None:
    """From relay to relay with the cursor of each disconnect: every round once, also those published in between."""
    seen: list[int] = []
    cursor = ""
    number = 0
    for _ in range(4):
        async with start_relay(links={"retry_ms": 10}) as relay:
            call = outliving(relay).call(pb.StreamAllRequest(after=cursor))
            await call.initial_metadata()
            for _ in range(20):
                number += 1
                await publish("crash", number)
        messages, end = await read_to_end(call)
        assert end is not None
        assert end.code is StatusCode.UNAVAILABLE
        seen += [round_.round_id for round_ in messages]
        cursor = end.trailers["resume-cursor"]
        number += 1
        await publish("crash", number)  # while there is no relay
    async with start_relay() as relay:
        call = outliving(relay).call(pb.StreamAllRequest(after=cursor))
        while seen[-1] != number:
            seen.append((await call.read()).round_id)
        call.cancel()

    assert seen == list(range(1, number + 1))


async def test_draining_relay_takes_no_new_stream(start_relay: StartRelay, outliving: Outliving) -> None:
    """While streams are being ended, new ones are refused, with a delay."""

    async def knock(relay: GrpcRelay) -> CallStatus:
        await relay.metric_becomes("relay_ready", 0)
        refusal = await calling.failure(pb.StreamAllRequest())
        for call in calls:
            call.cancel()
        return refusal

    async with start_relay(drain={"grace_s": 3, "margin_s": 0}) as relay:
        calling = outliving(relay)
        calls = [calling.call(pb.StreamAllRequest()) for _ in range(3)]
        for call in calls:
            await call.initial_metadata()
        knocking = asyncio.create_task(knock(relay))
    refusal = await knocking

    assert refusal.code is StatusCode.UNAVAILABLE
    assert "draining" in refusal.message
    assert int(refusal.trailers["retry-after-ms"]) > 0


async def test_stream_that_has_reached_its_age(start_relay: StartRelay) -> None:
    """It ends as by a drain, before a proxy would cut it."""
    async with start_relay(links={"max_age_s": 1, "heartbeat_s": 0.1}) as relay, relay.caller() as calling:
        _, end = await read_to_end(calling.call(pb.StreamAllRequest()))

    assert end is not None
    assert end.code is StatusCode.UNAVAILABLE
    assert "max_age" in end.message
    assert end.trailers.keys() >= {"retry-after-ms", "resume-cursor"}


async def test_client_that_stops_reading(start_relay: StartRelay, publish: Publish) -> None:
    """Unsent bytes are bounded; it is ended as slow with its cursor, and another client does not notice."""
    async with (
        start_relay(links={"unsent_bytes": 64 << 10, "linger_s": 60}) as relay,
        relay.caller() as reader,
        relay.caller() as sleeper,
        reader.stream(pb.StreamAllRequest()) as reading,
    ):
        unread = sleeper.call(pb.StreamAllRequest())
        await unread.initial_metadata()
        ballast = '{"ballast":"' + "x" * 50_000 + '"}'
        sent = 0
        while await relay.metric("relay_links_slow_total") == 0:
            sent += 1
            await publish("crash", sent, extras=ballast)
            assert (await reading.read()).round_id == sent
            assert sent < 200, "nothing bounds what waits for a client"
        messages, end = await read_to_end(unread)

        assert end is not None
        assert end.code is StatusCode.UNAVAILABLE
        assert "slow" in end.message
        assert end.trailers["resume-cursor"] == messages[-1].cursor
        assert [message.round_id for message in messages] == list(range(1, len(messages) + 1))
        await relay.metric_becomes("relay_links", 1)


async def test_client_that_does_not_read_its_end_is_aborted(start_relay: StartRelay, publish: Publish) -> None:
    """Its permit is free after `linger_s`. When it reads again it gets the status, and can resume without loss."""
    small: dict[str, Any] = {"http2.bdp_probe": 0}  # otherwise all of it would fit into the buffers
    async with (
        start_relay(links={"unsent_bytes": 64 << 10, "linger_s": 0.1}) as relay,
        Caller(relay.address, DEMO_KEY, **small) as sleeper,
    ):
        unread = sleeper.call(pb.StreamAllRequest())
        await unread.initial_metadata()
        sent = 0
        while await relay.metric("relay_links_slow_total") == 0:
            sent += 1
            await publish("crash", sent, extras='{"ballast":"' + "x" * 300_000 + '"}')
        sent += 1
        await publish("crash", sent)
        await relay.metric_becomes("relay_links", 0)
        messages, end = await read_to_end(unread)
        async with sleeper.stream(pb.StreamAllRequest(after=messages[-1].cursor)) as again:
            rest = [await again.read() for _ in range(sent - len(messages))]

    assert end is not None
    assert end.code is StatusCode.UNAVAILABLE
    assert "slow" in end.message
    assert "resume-cursor" not in end.trailers
    assert len(messages) < sent
    assert [message.round_id for message in [*messages, *rest]] == list(range(1, sent + 1))


async def test_replay_whose_client_does_not_read_its_end(start_relay: StartRelay, publish: Publish) -> None:
    """It gets the status when it reads again, with a cursor after which no round was lost."""
    count = 200
    await publish("crash", *range(1, count + 1), extras='{"ballast":"' + "x" * 50_000 + '"}')
    small: dict[str, Any] = {"http2.bdp_probe": 0}
    async with (
        start_relay(links={"linger_s": 0.1, "max_age_s": 1, "heartbeat_s": 0.1}) as relay,
        Caller(relay.address, DEMO_KEY, **small) as sleeper,
    ):
        call = sleeper.call(pb.ReplayRequest())
        first = await call.read()
        await relay.metric_becomes("relay_links", 0)
        batches, end = await read_to_end(call)
    assert end is not None
    async with start_relay() as relay, relay.caller() as calling:
        later, _ = await read_to_end(calling.call(pb.ReplayRequest(after=end.trailers["resume-cursor"])))

    assert end.code is StatusCode.UNAVAILABLE
    assert "max_age" in end.message
    numbers = [round_.round_id for batch in [first, *batches, *later] for round_ in batch.rounds]
    assert numbers == list(range(1, count + 1))
    assert later


async def test_thousand_streams_that_are_opened_and_cancelled(relay: GrpcRelay) -> None:
    """Nothing of them remains: no permit, no subscription, no task."""
    async with relay.caller() as calling:
        await calling.failure(pb.GetLatestRequest(game_slug="nope"))  # the connection is up
        before = len(asyncio.all_tasks())
        for _ in range(MANY // 100):
            calls = [calling.call(pb.StreamAllRequest()) for _ in range(100)]
            for call in calls:
                await call.initial_metadata()
            assert await relay.metric("relay_links") == 100
            for call in calls:
                call.cancel()
            await relay.metric_becomes("relay_links", 0)
            del call, calls
        gc.collect()
        await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_streams_that_are_cancelled_before_they_begin(relay: GrpcRelay) -> None:
    """A client may cancel at any moment."""
    async with relay.caller() as calling:
        for number in range(200):
            call = calling.call(pb.StreamAllRequest(start=pb.Start(last=1 + number % 3)))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call.read()
        await relay.metric_becomes("relay_links", 0)
        answer = await calling.ask(pb.ListGamesRequest())

    assert answer.games


async def test_call_to_a_stopped_relay(start_relay: StartRelay) -> None:
    """It fails at once on the old connection."""
    async with start_relay() as relay:
        address = relay.address
    async with Caller(address, None, enable_retries=0) as calling:
        call = calling.call(pb.StreamAllRequest(), timeout_s=5)
        with pytest.raises(aio.AioRpcError) as failed:
            await call.read()

    assert status_of(failed.value).code in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED)
