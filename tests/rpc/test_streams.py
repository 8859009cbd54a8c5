"""Streams of rounds over gRPC, with grpcio: live, filtered, resumed, bounded."""

from typing import Any

import aiohttp
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode

from rounds import datastream_pb2 as pb
from tests.rpc.caller import Caller, read, read_to_end, text_of
from tests.rpc.conftest import GrpcRelay, Publish, StartRelay

pytestmark = pytest.mark.service

NOW_MS = 1768730430000


def ids(messages: list[Any]) -> list[int]:
    return [message.round_id for message in messages]


async def test_round_has_all_fields_of_other_protocols(caller: Caller, publish: Publish) -> None:
    """The given fields, the cursor, and the time as a timestamp in nanoseconds."""
    async with caller.stream(pb.StreamByGameRequest(game_slug="crash")) as call:
        [sequence] = await publish("crash", 67890)
        round_ = await call.read()

    assert round_.cursor.endswith(f"-{sequence}")
    assert round_ == pb.Round(
        round_id=67890,
        game_slug="crash",
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30.123456789Z",
        extras='{"point":"2.50"}',
        timestamp=NOW_MS,
        cursor=round_.cursor,
        finished_time=Timestamp(seconds=1768730430, nanos=123456789),
    )


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.StreamByTypeRequest(game_type="color"), ["double"]),
        (pb.StreamByTypeRequest(game_type="multiplier"), ["crash", "dice"]),
        (pb.StreamAllRequest(), ["crash", "dice", "double"]),
    ],
)
async def test_several_games_on_one_stream(
    caller: Caller, publish: Publish, request_: Message, expected: list[str]
) -> None:
    """By type or all: only their rounds, in the order of the log."""
    async with caller.stream(request_) as call:
        for number, game in enumerate(["crash", "dice", "double"], 1):
            await publish(game, number)
        seen = [round_.game_slug for round_ in await read(call, len(expected))]

    assert seen == expected


async def test_filtered_stream_has_only_matching_rounds(caller: Caller, publish: Publish) -> None:
    """Bounds are inclusive, live as in history, and a round without the field does not match."""
    await publish("crash", 1, extras='{"point":"1.99"}')
    await publish("crash", 2, extras='{"point":"2"}')
    wanted = pb.Filter(min_point=2, max_point=3)
    request = pb.StreamByGameRequest(game_slug="crash", filter=wanted, start=pb.Start(last=2))
    async with caller.stream(request) as call:
        seen = ids(await read(call, 1))
        for number, point in enumerate(["3.00", "3.01"], 3):
            await publish("crash", number, extras=f'{{"point":"{point}"}}')
        await publish("crash", 5, extras="{}")
        await publish("crash", 6, extras='{"point":"2.5"}')
        seen += ids(await read(call, 2))

    assert seen == [2, 3, 6]


async def test_all_criteria_of_a_filter_must_match(caller: Caller, publish: Publish) -> None:
    """One match is enough within a list; all criteria must match."""
    wanted = pb.Filter(trends=["up", "down"], min_point=2)
    async with caller.stream(pb.StreamAllRequest(filter=wanted)) as call:
        for number, extras in enumerate(
            [
                '{"trend":"up","point":"1"}',
                '{"trend":"flat","point":"3"}',
                '{"point":"3"}',
                '{"trend":"down","point":"2"}',
            ]
        ):
            await publish("wall-street", number, extras=extras)
        seen = ids(await read(call, 1))

    assert seen == [3]


async def test_stream_after_a_cursor(caller: Caller, publish: Publish) -> None:
    """Every later round once and in order, from history to live; the metadata says that it is complete."""
    await publish("crash", *range(1, 6))
    async with caller.stream(pb.StreamByGameRequest(game_slug="crash", start=pb.Start(last=5))) as first:
        third = (await read(first, 3))[-1]
    request = pb.StreamByGameRequest(game_slug="crash", after=third.cursor)
    async with caller.stream(request) as call:
        metadata = text_of(await call.initial_metadata())
        await publish("crash", 6)
        seen = ids(await read(call, 3))

    epoch = third.cursor.partition("-")[0]
    assert seen == [4, 5, 6]
    assert {name: metadata[name] for name in ("complete", "oldest-cursor", "head-cursor")} == {
        "complete": "true",
        "oldest-cursor": f"{epoch}-1",
        "head-cursor": f"{epoch}-5",
    }


async def test_live_stream_has_a_cursor_before_its_first_round(caller: Caller, publish: Publish) -> None:
    """Initial metadata has it: a client that disconnects before a round matches can resume without loss."""
    await publish("crash", 1)
    async with caller.stream(pb.StreamAllRequest(filter=pb.Filter(min_point=100))) as call:
        metadata = text_of(await call.initial_metadata())
        await publish("crash", 2, extras='{"point":"1.00"}')
        await publish("crash", 3, extras='{"point":"200.00"}')
        assert ids(await read(call, 1)) == [3]
    async with caller.stream(pb.StreamAllRequest(after=metadata["head-cursor"])) as again:
        seen = ids(await read(again, 2))

    assert not metadata.keys() & {"complete", "oldest-cursor"}
    assert seen == [2, 3]


async def test_stream_from_the_past_without_a_cursor_has_no_metadata(caller: Caller, publish: Publish) -> None:
    """Its first rounds have cursors."""
    await publish("crash", 1)
    async with caller.stream(pb.StreamAllRequest(start=pb.Start(last=1))) as call:
        metadata = text_of(await call.initial_metadata())

    assert not metadata.keys() & {"complete", "oldest-cursor", "head-cursor"}


async def test_cursor_of_another_log(caller: Caller, publish: Publish) -> None:
    """OUT_OF_RANGE: rounds are gone; it has the first cursor, and the one to resume with to get all rounds."""
    await publish("crash", 1, 2)
    call = caller.call(pb.StreamAllRequest(after="k3f9a2-1042"))
    messages, end = await read_to_end(call)
    metadata = text_of(await call.initial_metadata())

    assert messages == []
    assert end is not None
    assert end.code is StatusCode.OUT_OF_RANGE
    assert "k3f9a2-1042" in end.message
    assert metadata["complete"] == "false"
    assert end.trailers["first-cursor"] == metadata["oldest-cursor"]
    assert not end.trailers.keys() & metadata.keys(), "Connect clients join the values of both"
    async with caller.stream(pb.StreamAllRequest(after=end.trailers["resume-cursor"])) as again:
        seen = await read(again, 2)
    assert ids(seen) == [1, 2]
    assert seen[0].cursor == end.trailers["first-cursor"]


async def test_cursor_after_the_end_of_the_log(caller: Caller, publish: Publish) -> None:
    """The log has lost its tail: OUT_OF_RANGE, and the resume cursor continues with new rounds."""
    await publish("crash", 1)
    async with caller.stream(pb.StreamAllRequest(start=pb.Start(last=1))) as call:
        epoch = (await call.read()).cursor.partition("-")[0]
    _, end = await read_to_end(caller.call(pb.StreamAllRequest(after=f"{epoch}-900")))
    assert end is not None
    async with caller.stream(pb.StreamAllRequest(after=end.trailers["resume-cursor"])) as again:
        await publish("crash", 2)
        seen = ids(await read(again, 1))

    assert end.code is StatusCode.OUT_OF_RANGE
    assert seen == [2]


async def test_gap_of_a_client_that_allows_gaps(caller: Caller, publish: Publish) -> None:
    """With `allow_gap` the gap is a message in the stream, and all existing rounds follow it."""
    await publish("crash", 1)
    async with caller.stream(pb.StreamAllRequest(start=pb.Start(after="k3f9a2-1042", allow_gap=True))) as call:
        gap, round_ = await read(call, 2)

    assert gap == pb.Round(
        gap=pb.Gap(from_cursor="k3f9a2-1042", to_cursor=f"{round_.cursor.partition('-')[0]}-0", reason="rebuilt")
    )
    assert round_.round_id == 1


async def test_stream_between_two_times(caller: Caller, publish: Publish) -> None:
    """Both are inclusive, and the stream ends with OK."""
    for number in range(1, 6):
        await publish("crash", number, timestamp=NOW_MS + 1000 * number)
    start = pb.Start(from_time=Timestamp(seconds=NOW_MS // 1000 + 2), to_time=Timestamp(seconds=NOW_MS // 1000 + 4))
    messages, end = await read_to_end(caller.call(pb.StreamByGameRequest(game_slug="crash", start=start)))

    assert end is None
    assert ids(messages) == [2, 3, 4]


async def test_same_rounds_over_grpc_and_sse(relay: GrpcRelay, caller: Caller, publish: Publish) -> None:
    """One log, one cursor: a stream resumes with the cursor of another protocol."""
    await publish("crash", 1, 2)
    async with (
        aiohttp.ClientSession(headers=dict(caller.metadata)) as http,
        http.get(f"{relay.url}/sse/crash?last=2") as response,
    ):
        cursor, line = "", ""
        while not line.startswith("data: "):  # a heartbeat before it has an id too: that of the place before the round
            line = (await response.content.readline()).decode().strip()
            cursor = line.removeprefix("id: ") if line.startswith("id: ") else cursor
    async with caller.stream(pb.StreamAllRequest(after=cursor)) as call:
        assert ids(await read(call, 1)) == [2]


async def test_stream_of_several_games(caller: Caller, publish: Publish) -> None:
    """One stream has the rounds of all games that the request names, and no others."""
    async with caller.stream(pb.StreamAllRequest(game_slugs=["crash", "dice"], start=pb.Start(last=1))) as call:
        await call.initial_metadata()
        for number, game in enumerate(["double", "crash", "plinko", "dice"], 1):
            await publish(game, number)
        seen = [(round_.game_slug, round_.round_id) for round_ in await read(call, 2)]

    assert seen == [("crash", 2), ("dice", 4)]


@pytest.mark.parametrize(
    ("slugs", "code"), [(["crash", "nope"], StatusCode.NOT_FOUND), ([""], StatusCode.INVALID_ARGUMENT)]
)
async def test_stream_of_a_game_that_does_not_exist(caller: Caller, slugs: list[str], code: StatusCode) -> None:
    """The status is that of a stream of one game."""
    _, end = await read_to_end(caller.call(pb.StreamAllRequest(game_slugs=slugs)))

    assert end is not None
    assert end.code is code


async def test_quiet_stream_with_heartbeats(start_relay: StartRelay, publish: Publish) -> None:
    """Each is a message with only a cursor; it moves with rounds that do not match, and resumes without loss."""
    async with start_relay(links={"heartbeat_s": 0.2}) as relay, relay.caller() as caller:
        [_] = await publish("dice", 1)
        request = pb.StreamByGameRequest(game_slug="crash", start=pb.Start(heartbeat_s=1))
        async with caller.stream(request) as call:
            first = await call.read()
            [moved] = await publish("dice", 2)
            while (last := await call.read()) == first:
                pass
        await publish("crash", 3)
        async with caller.stream(pb.StreamAllRequest(after=last.cursor)) as again:
            seen = ids(await read(again, 1))

    assert first == pb.Round(cursor=first.cursor)
    assert last == pb.Round(cursor=last.cursor)
    assert last.cursor.endswith(f"-{moved}")
    assert seen == [3]


async def test_stream_has_no_heartbeats_unless_asked(start_relay: StartRelay, publish: Publish) -> None:
    """Clients of the given fields would take one for a round."""
    async with (
        start_relay(links={"heartbeat_s": 0.1}) as relay,
        relay.caller() as caller,
        caller.stream(pb.StreamAllRequest()) as call,
        caller.stream(pb.StreamAllRequest(start=pb.Start(heartbeat_s=1))) as beating,
    ):
        for _ in range(3):
            assert (await beating.read()).cursor
        await publish("crash", 1)
        assert ids(await read(call, 1)) == [1]


async def test_interval_of_heartbeats_is_bounded(caller: Caller) -> None:
    """A longer one would not keep a proxy from closing the stream."""
    _, end = await read_to_end(caller.call(pb.StreamAllRequest(start=pb.Start(heartbeat_s=61))))

    assert end is not None
    assert (end.code, "heartbeat_s 61" in end.message) == (StatusCode.INVALID_ARGUMENT, True)
