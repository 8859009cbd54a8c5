"""Part of history, requested by time and by count: where it begins, where it ends, and how fast it is sent."""

import re
import time
from typing import Any

import aiohttp
import pytest

from auth.key_secret import DEMO_KEY
from rounds.times import utc_text
from tests.resume.conftest import StartRelay
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_round
from tests.resume.viewers import SseViewer, WebSocketViewer, sequence_of, watch

pytestmark = pytest.mark.service

PROTOCOLS = pytest.mark.parametrize("protocol", ["ws", "sse"])


def at(seconds: float) -> str:
    """The time `seconds` after ten o'clock."""
    return utc_text(TEN_O_CLOCK_MS + round(seconds * 1000))


def assert_completed(viewer: WebSocketViewer | SseViewer) -> str:
    """Check that a stream ended because its end was reached; return the cursor it gave."""
    if isinstance(viewer, WebSocketViewer):
        assert viewer.ended is not None
        assert (viewer.ended["code"], viewer.ended["reason"]) == (1000, "completed")
        return str(viewer.ended["cursor"])
    end = viewer.events[-1]
    assert viewer.seen[-1] is end
    assert (end["event"], end["reason"]) == ("end", "completed")
    assert viewer.last_event_id == end["cursor"]
    return str(end["cursor"])


@PROTOCOLS
async def test_from_and_to_bound_a_replay_which_then_ends(relay: str, log: LogWriter, protocol: str) -> None:
    """Both times are inclusive; the rounds of other games in between do not matter."""
    await log.store_many(make_round(game, number) for number in range(300) for game in ("crash", "dice"))

    async with watch(relay, "crash", protocol=protocol, from_=at(100), to=at(200)) as viewer:
        await viewer.to_the_end()

    assert viewer.ids == list(range(100, 201))
    assert viewer.events[0] == {
        "event": "hello",
        "complete": True,
        "first": log.cursor(1),
        "head": log.cursor(600),
    }
    assert viewer.gaps == []
    assert sequence_of(assert_completed(viewer)) >= viewer.sequences[-1]


@PROTOCOLS
async def test_end_is_found_although_other_games_follow_in_the_log(relay: str, log: LogWriter, protocol: str) -> None:
    """Memory holds no more rounds of the game, and the newest is of another game: the replay still ends."""
    await log.store(*(make_round("crash", number) for number in range(5)))
    async with watch(relay, "crash", protocol=protocol, after=log.cursor(0)) as live:
        await live.until_rounds(5)
        await log.store(make_round("crash", 5), make_round("dice", 1))
        await live.until_rounds(6)
        async with watch(relay, "crash", protocol=protocol, after=live.rounds[-2]["cursor"], to=at(10)) as viewer:
            await viewer.to_the_end()

    assert viewer.ids == [5]
    assert assert_completed(viewer) == log.cursor(7)


async def test_end_in_the_future_is_waited_for(relay: str, log: LogWriter) -> None:
    """The stream is live up to its end, and closes soon after."""
    now_ms = time.time_ns() // 1_000_000
    await log.store(make_round("crash", 1, at_ms=now_ms - 2000))
    async with watch(relay, "crash", after=log.cursor(0), to=utc_text(now_ms + 1500)) as viewer:
        await viewer.until_rounds(1)
        await log.store(make_round("crash", 2, at_ms=now_ms), make_round("crash", 3, at_ms=now_ms + 1501))
        await viewer.to_the_end()

    assert viewer.ids == [1, 2]
    assert_completed(viewer)
    assert time.time() * 1000 > now_ms + 1500


@PROTOCOLS
@pytest.mark.parametrize("count", [1, 7, 150])
async def test_last_begins_so_many_rounds_back_and_continues_live(
    relay: str, log: LogWriter, protocol: str, count: int
) -> None:
    """`last` counts rounds of the game, and only rounds are sent: such a client need not handle events."""
    await log.store_many(make_round(game, number) for number in range(200) for game in ("dice", "crash", "plinko"))

    async with watch(relay, "crash", protocol=protocol, last=count) as viewer:
        await viewer.until_rounds(count)
        await log.store(make_round("crash", 200))
        await viewer.until_round(200)

    assert viewer.ids == list(range(200 - count, 201))
    assert viewer.events == []


async def test_last_counts_for_each_game_by_itself(relay: str, log: LogWriter) -> None:
    """A busy game does not displace a quiet one; of a game with fewer rounds, all are sent."""
    await log.store(make_round("crash", 1), make_round("crash", 2))
    await log.store_many(make_round("dice", number) for number in range(100))

    async with watch(relay, "", games="crash,dice,plinko", last=3) as viewer:
        await viewer.until_rounds(5)
        await log.store(make_round("plinko", 1))
        await viewer.until_rounds(6)

    assert [(round_["game_slug"], round_["round_id"]) for round_ in viewer.rounds] == [
        ("crash", 1),
        ("crash", 2),
        ("dice", 97),
        ("dice", 98),
        ("dice", 99),
        ("plinko", 1),
    ]


async def test_last_round_of_every_game_is_in_memory_however_old_it_is(log: LogWriter, start_relay: StartRelay) -> None:
    """The newest round of every game needs no request to the log, though one game has been quiet for long."""
    await log.store(make_round("plinko", 1))
    await log.store_many(make_round(game, number) for number in range(2000) for game in ("crash", "dice"))

    async with (
        start_relay(replay={"ring_rounds": 5}) as relay,
        watch(relay, "", last=1) as viewer,
        aiohttp.ClientSession() as session,
    ):
        await viewer.until_rounds(3)
        await log.store(make_round("double", 1))
        await viewer.until_rounds(4)
        async with session.get(f"{relay}/metrics") as answer:
            metrics = await answer.text()

    assert viewer.sequences == [1, 4000, 4001, 4002]
    assert 'relay_resumes_total{source="memory"} 1.0' in metrics
    assert 'relay_resumes_total{source="log"} 0.0' in metrics


async def test_last_rounds_of_a_quiet_game_are_found_without_reading_other_games(
    log: LogWriter, start_relay: StartRelay
) -> None:
    """Between the quiet game's rounds and now are 40 pages of other games; they are not read."""
    await log.store(make_round("plinko", 1), make_round("crash", 1), make_round("plinko", 2))
    await log.store_many(make_round("dice", number) for number in range(20_000))
    await log.store(make_round("crash", 2), make_round("plinko", 3))

    async with (
        start_relay(replay={"ring_rounds": 5}) as relay,
        watch(relay, "", games="crash,dice,plinko,double", last=700) as viewer,
        aiohttp.ClientSession() as session,
    ):
        await viewer.until_rounds(705)
        await log.store(make_round("double", 1))
        await viewer.until_rounds(706)
        async with session.get(f"{relay}/metrics") as answer:
            metrics = await answer.text()

    assert viewer.sequences == [1, 2, 3, *range(20_004 - 700, 20_007)]
    [requests] = re.findall(r"^relay_log_requests_total ([0-9.]+)$", metrics, re.MULTILINE)
    assert float(requests) < 80


@PROTOCOLS
async def test_paced_replay_keeps_the_cadence_times_its_speed(relay: str, log: LogWriter, protocol: str) -> None:
    """Rounds are sent when they are due, relative to the first: 5 rounds of 4 s take 1.6 s at 2.5 times."""
    offsets_ms = [0, 1000, 1500, 3000, 4000]
    await log.store(
        *(make_round("crash", n, at_ms=TEN_O_CLOCK_MS + offset) for n, offset in enumerate(offsets_ms)),
        make_round("dice", 1, at_ms=TEN_O_CLOCK_MS + 5000),
    )

    came_s = []
    async with watch(relay, "crash", protocol=protocol, from_=at(0), to=at(60), speed=2.5) as viewer:
        for count in range(1, 6):
            await viewer.until_rounds(count)
            came_s.append(time.monotonic())
        await viewer.to_the_end()

    assert viewer.ids == [0, 1, 2, 3, 4]
    assert_completed(viewer)
    for came, due_ms in zip(came_s, offsets_ms, strict=True):
        assert came - came_s[0] == pytest.approx(due_ms / 1000 / 2.5, abs=0.3)


async def test_paced_replay_that_has_caught_up_continues_live(relay: str, log: LogWriter) -> None:
    """After the last round of history, live rounds are sent as they are stored."""
    await log.store(*(make_round("crash", number) for number in range(30)), make_round("dice", 1))

    async with watch(relay, "crash", from_=at(0), speed=1000) as viewer:
        await viewer.until_rounds(30)
        await log.store(make_round("crash", 30))
        await viewer.until_rounds(31)

    assert viewer.ids == list(range(31))


async def test_paced_replay_waits_only_for_rounds_that_are_sent(relay: str, log: LogWriter) -> None:
    """Rounds outside the filter or before the start do not count for the cadence: the first one is sent at once."""
    await log.store(
        make_round("crash", 1, at_ms=TEN_O_CLOCK_MS),
        make_round("crash", 2, at_ms=TEN_O_CLOCK_MS + 3_600_000, point="1.00"),
        make_round("crash", 3, at_ms=TEN_O_CLOCK_MS + 7_200_000),
    )

    async with watch(relay, "crash", from_=at(1), min_point="2", speed=0.01) as viewer:
        await viewer.until_rounds(1)

    assert viewer.ids == [3]


async def test_replay_without_a_start_begins_with_the_oldest_round(relay: str, log: LogWriter) -> None:
    """`to` alone means everything up to that time; `hello` says whether the answer is complete."""
    await log.store(*(make_round("crash", number) for number in range(50)))

    async with watch(relay, "crash", to=at(20)) as viewer:
        await viewer.to_the_end()

    assert viewer.ids == list(range(21))
    assert viewer.events == [{"event": "hello", "complete": True, "first": log.cursor(1), "head": log.cursor(50)}]
    assert_completed(viewer)


async def test_eventsource_that_reconnects_after_the_end_gets_204(relay: str, log: LogWriter) -> None:
    """It sends the id of the end to the same URL, and gets 204, after which it does not reconnect."""
    await log.store(*(make_round("crash", number) for number in range(30)))
    query: dict[str, Any] = {"from": at(10), "to": at(20)}
    async with watch(relay, "crash", protocol="sse", **query) as viewer:
        await viewer.to_the_end()

    async with aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as session:
        again = {"Last-Event-ID": viewer.last_event_id}
        async with session.get(f"{relay}/sse/crash", params=query, headers=again) as answer:
            assert (answer.status, await answer.read()) == (204, b"")


async def test_eventsource_that_was_cut_off_before_the_end_gets_the_rest(relay: str, log: LogWriter) -> None:
    """The answer is 204 only when no round remains; the start in the URL no longer counts."""
    await log.store(*(make_round("crash", number) for number in range(30)))

    async with watch(relay, "crash", protocol="sse", last_event_id=log.cursor(16), from_=at(10), to=at(20)) as viewer:
        await viewer.to_the_end()

    assert viewer.ids == [16, 17, 18, 19, 20]
    assert_completed(viewer)


async def test_eventsource_whose_replay_found_nothing_stops_reconnecting(relay: str, log: LogWriter) -> None:
    """The end event has an id even when no round was sent."""
    await log.store(make_round("crash", 1))
    async with watch(relay, "crash", protocol="sse", from_=at(100), to=at(200)) as viewer:
        await viewer.to_the_end()
    assert viewer.rounds == []

    async with watch(
        relay, "crash", protocol="sse", last_event_id=viewer.last_event_id, from_=at(100), to=at(200)
    ) as again:
        assert again.response.status == 204


async def test_eventsource_of_a_rebuilt_log_gets_the_gap_before_204(relay: str, log: LogWriter) -> None:
    """Its cursor is of a log that is gone: it gets the gap and the rounds of the new log, then 204."""
    lost = log.cursor(7)
    await log.rebuild()
    await log.store(make_round("crash", 1))

    async with watch(relay, "crash", protocol="sse", last_event_id=lost, to=at(60)) as viewer:
        await viewer.to_the_end()
    assert [gap["reason"] for gap in viewer.gaps] == ["rebuilt"]
    assert viewer.ids == [1]

    async with watch(relay, "crash", protocol="sse", last_event_id=viewer.last_event_id, to=at(60)) as again:
        assert again.response.status == 204


@PROTOCOLS
@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ({"after": "nonsense"}, "cursor 'nonsense' is malformed"),
        ({"after": "k3f9a2-18446744073709551616"}, "is malformed"),
        ({"from": "yesterday"}, "from 'yesterday' is not an RFC 3339 time"),
        ({"from": "2026-01-18T11:00:00Z", "to": "2026-01-18T10:00:00Z"}, "is later than to"),
        ({"last": "-1"}, "last '-1' is not a whole number from 1 to 10000"),
        ({"last": "1000000000"}, "last '1000000000' is not"),
        ({"speed": "0"}, "speed '0' is not a number from 0.01 to 10000"),
        ({"last": "5", "after": "k3f9a2-1"}, "after and last were given"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_contradictory_request_is_refused(
    relay: str, protocol: str, query: dict[str, str], sentence: str
) -> None:
    """The answer is 400 and one sentence, before a stream is opened."""
    async with aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as session:
        headers = {"Upgrade": "websocket", "Connection": "Upgrade"} if protocol == "ws" else {}
        async with session.get(f"{relay}/{protocol}/crash", params=query, headers=headers) as answer:
            body = await answer.json()

    assert answer.status == 400
    assert sentence in body["error"]


async def test_rest_finds_rounds_by_their_own_time_even_if_stored_much_later(relay: str, log: LogWriter) -> None:
    """A recording that was stored at once has its own times; REST and streams find the same rounds in it."""
    await log.store_many(make_round("crash", number, at_ms=TEN_O_CLOCK_MS + number * 60_000) for number in range(300))
    begin, end = at(100 * 60), at(110 * 60)

    async with (
        aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as session,
        session.get(f"{relay}/api/history/crash", params={"from": begin, "to": end}) as answer,
    ):
        found = [round_["round_id"] for round_ in await answer.json()]
        assert "Link" not in answer.headers

    assert found == list(range(110, 99, -1))
