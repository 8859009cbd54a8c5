"""Unary calls: the newest round, pages of history, the games."""

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from rounds import datastream_pb2 as pb
from tests.rpc.caller import Caller, text_of
from tests.rpc.conftest import Publish

pytestmark = pytest.mark.service


async def test_latest_round_of_a_game(caller: Caller, publish: Publish) -> None:
    """The newest one, with its cursor."""
    await publish("crash", 1, 2)
    await publish("dice", 3)

    round_ = await caller.ask(pb.GetLatestRequest(game_slug="crash"))

    assert round_.round_id == 2
    assert round_.cursor


async def test_history_pages_to_the_oldest_round(caller: Caller, publish: Publish) -> None:
    """Newest first, page by page with `next_before`, until it is empty."""
    await publish("crash", *range(1, 8))
    await publish("dice", 100)
    seen, before = [], ""
    while True:
        page = await caller.ask(pb.GetHistoryRequest(game_slug="crash", limit=3, before=before))
        seen += [round_.round_id for round_ in page.rounds]
        before = page.next_before
        if not before:
            break

    assert seen == [7, 6, 5, 4, 3, 2, 1]


async def test_history_has_only_matching_rounds(caller: Caller, publish: Publish) -> None:
    """The filter of streams applies to history too."""
    for number, point in enumerate(["1.99", "2", "3.00", "3.01"], 1):
        await publish("crash", number, extras=f'{{"point":"{point}"}}')
    await publish("crash", 5, extras="{}")

    page = await caller.ask(pb.GetHistoryRequest(game_type="multiplier", filter=pb.Filter(min_point=2, max_point=3)))

    assert [round_.round_id for round_ in page.rounds] == [3, 2]


async def test_history_after_a_cursor(caller: Caller, publish: Publish) -> None:
    """Only later rounds, and whether all of them still exist."""
    await publish("crash", 1, 2, 3)
    newest = await caller.ask(pb.GetHistoryRequest(limit=2))

    page = await caller.ask(pb.GetHistoryRequest(after=newest.rounds[-1].cursor))

    assert [round_.round_id for round_ in page.rounds] == [3]
    assert page.complete


@pytest.mark.parametrize("seconds", [253402300799, 10**12, 2**62, 2**63 - 1], ids=["year_9999", "later", "far", "last"])
async def test_latest_possible_time(caller: Caller, publish: Publish, seconds: int) -> None:
    """Up to it are all rounds; from it on there is none."""
    await publish("crash", 1, 2)
    never = Timestamp(seconds=seconds)

    until = await caller.ask(pb.GetHistoryRequest(to_time=never))
    since = await caller.ask(pb.GetHistoryRequest(from_time=never))
    async with caller.stream(pb.StreamAllRequest(start=pb.Start(last=2, to_time=never))) as call:
        seen = [(await call.read()).round_id for _ in range(2)]
    async with caller.stream(pb.StreamAllRequest(start=pb.Start(from_time=never))) as call:
        metadata = text_of(await call.initial_metadata())

    assert [round_.round_id for round_ in until.rounds] == [2, 1]
    assert list(since.rounds) == []
    assert seen == [1, 2]
    assert metadata["complete"] == "true"


async def test_time_before_1970(caller: Caller, publish: Publish) -> None:
    """It is the same as 1970."""
    await publish("crash", 1)
    page = await caller.ask(pb.GetHistoryRequest(from_time=Timestamp(seconds=-(2**62))))

    assert [round_.round_id for round_ in page.rounds] == [1]


async def test_history_of_long_rounds(caller: Caller, publish: Publish) -> None:
    """A page ends before it exceeds the default message size of clients (4 MB), and the next one continues it."""
    await publish("crash", *range(1, 301), extras='{"ballast":"' + "x" * 40_000 + '"}')
    seen: list[int] = []
    before, sizes = "", []
    while before or not seen:
        page = await caller.ask(pb.GetHistoryRequest(before=before))
        seen += [round_.round_id for round_ in page.rounds]
        sizes.append(page.ByteSize())
        before = page.next_before

    assert seen == list(range(300, 0, -1))
    assert max(sizes) < 4 << 20
    assert len(sizes) < 6


async def test_games_and_their_newest_rounds(caller: Caller, publish: Publish) -> None:
    """In the order of the catalogue; a game without a round has no such fields."""
    await publish("crash", 7)

    answer = await caller.ask(pb.ListGamesRequest())

    games = {game.slug: game for game in answer.games}
    assert len(games) == 14
    assert (games["crash"].last_round, games["crash"].last_update) == (7, "2026-01-18T10:00:30.123456789Z")
    assert games["double"].type == "color"
    assert not games["double"].HasField("last_round")
