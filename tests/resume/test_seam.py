"""Where history joins the live stream: every round once and in order, wherever and whenever that is."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from roundlog.log_settings import LogSettings
from roundlog.tasks import cancel_and_wait
from tests.nats import NatsServer
from tests.resume.conftest import StartRelay, running
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_round
from tests.resume.slow_wire import SlowWire
from tests.resume.viewers import sequence_of, watch

pytestmark = pytest.mark.service

PROTOCOLS = pytest.mark.parametrize("protocol", ["ws", "sse"])


@asynccontextmanager
async def steadily_stored(log: LogWriter, *games: str, every_s: float = 0.003) -> AsyncIterator[list[tuple[str, int]]]:
    """Store rounds of some games while the block runs; yield which, in order, including one not yet acknowledged."""
    stored: list[tuple[str, int]] = []

    async def store() -> None:
        for number in itertools.count(1_000_000):
            game = random.choice(games)
            stored.append((game, number))  # before the acknowledgement, since a client may get it earlier
            await log.store(make_round(game, number))
            await asyncio.sleep(every_s)

    task = asyncio.create_task(store())
    try:
        yield stored
    finally:
        await cancel_and_wait(task)
        if not task.cancelled():
            task.result()


@PROTOCOLS
@pytest.mark.parametrize("games", ["crash", "crash,dice"])
async def test_history_joins_the_live_stream_without_a_seam(
    relay: str, log: LogWriter, protocol: str, games: str
) -> None:
    """A replay of 5,000 rounds while more rounds are stored; another game does not matter."""
    await log.store_many(make_round(game, number) for number in range(2500) for game in ("crash", "dice"))

    async with (
        steadily_stored(log, "crash", "dice", "plinko") as stored,
        watch(relay, "", protocol=protocol, games=games, after=log.cursor(0)) as viewer,
    ):
        await viewer.until(lambda message: message.get("round_id", 0) > 1_000_050)

    wanted = games.split(",")
    expected: list[tuple[str, int]] = [
        (game, number) for number in range(2500) for game in ("crash", "dice") if game in wanted
    ]
    expected += [(game, number) for game, number in stored if game in wanted]
    seen = [(round_["game_slug"], round_["round_id"]) for round_ in viewer.rounds]
    assert seen == expected[: len(seen)]
    assert [event["event"] for event in viewer.events] == ["hello"]


async def test_filter_holds_on_both_sides_of_the_seam(relay: str, log: LogWriter) -> None:
    """The same filter applies to history and to live rounds."""
    await log.store_many(make_round("crash", n, point=f"{n % 10}.00") for n in range(300))

    async with watch(relay, "crash", after=log.cursor(0), min_point="8") as viewer:
        await viewer.until_rounds(60)
        await log.store(*(make_round("crash", n, point=f"{n % 10}.00") for n in range(300, 320)))
        await viewer.until_rounds(64)

    assert viewer.ids == [n for n in range(320) if n % 10 >= 8]


@pytest.mark.timeout(120)
async def test_client_that_hops_between_two_relays(nats: NatsServer, log: LogWriter, start_relay: StartRelay) -> None:
    """200 times, at random, to a relay with little memory or to one that hears of rounds 30 ms later. A cursor from the
    quicker one is ahead of the slower one, which is no gap: it waits until it has come so far itself.
    """
    random.seed(4)
    cursor, seen, hellos = log.cursor(0), list[tuple[str, int]](), list[dict[str, object]]()
    async with (
        SlowWire(nats.port, client="stream-relay", delay_s=0.03).listening() as late_wire,
        start_relay(replay={"ring_rounds": 3}) as quick,
        running(LogSettings(url=late_wire.url)) as late,
        steadily_stored(log, "crash", "dice", "plinko") as stored,
    ):
        for _ in range(200):
            url, protocol = random.choice([quick, late]), random.choice(["ws", "sse"])
            async with watch(url, "", protocol=protocol, games="crash,dice", after=cursor) as viewer:
                await viewer.until_rounds(random.randrange(1, 8))
            hellos += viewer.events
            for round_ in viewer.rounds:
                assert sequence_of(round_["cursor"]) > sequence_of(cursor)
                cursor = round_["cursor"]
                seen.append((round_["game_slug"], round_["round_id"]))

    assert seen == [(game, number) for game, number in stored if game != "plinko"][: len(seen)]
    assert {hello["event"] for hello in hellos} == {"hello"}
    assert {hello["complete"] for hello in hellos} == {True}


async def test_game_subscribed_later_with_a_cursor(relay: str, log: LogWriter) -> None:
    """`subscribe` with `after` sends that game's history beside what is live already, and then its live rounds."""
    await log.store_many(make_round(game, number) for number in range(200) for game in ("crash", "dice"))

    async with watch(relay, "crash") as viewer:
        await viewer.say(action="subscribe", games=["dice"], after=log.cursor(100))
        await viewer.until(lambda message: message.get("event") == "hello")
        await viewer.until_round(199, game="dice")
        await log.store(make_round("crash", 200), make_round("dice", 200))
        await viewer.until_round(200, game="dice")

    assert viewer.events[0] == {"event": "subscribed", "games": ["crash", "dice"]}
    of = {game: [r["round_id"] for r in viewer.rounds if r["game_slug"] == game] for game in ("crash", "dice")}
    assert of == {"crash": [200], "dice": list(range(50, 201))}


async def test_game_unsubscribed_during_its_replay(relay: str, log: LogWriter) -> None:
    """No round of it follows the answer, and the other game of that replay continues."""
    count = 20_000
    await log.store_many(make_round(game, n, at_ms=TEN_O_CLOCK_MS) for n in range(count) for game in ("crash", "dice"))

    async with watch(relay, "", games="crash,dice", after=log.cursor(0)) as viewer:
        await viewer.until_rounds(10)
        await viewer.say(action="unsubscribe", games=["dice"])
        answer = await viewer.until(lambda message: message.get("event") == "subscribed")
        await viewer.until_round(count - 1, game="crash")
        await log.store(make_round("dice", count), make_round("crash", count))
        await viewer.until_round(count, game="crash")

    assert answer["games"] == ["crash"]
    behind = viewer.seen[viewer.seen.index(answer) :]
    assert {message["game_slug"] for message in behind if "event" not in message} == {"crash"}
    assert [r["round_id"] for r in viewer.rounds if r["game_slug"] == "crash"] == list(range(count + 1))


async def test_messages_that_are_no_rounds_are_skipped(relay: str, log: LogWriter) -> None:
    """Data that is no round, empty data, an unknown game: skipped, in history and live."""

    async def store_garbage() -> None:
        await log.store_raw("rounds.crash", b"")
        await log.store_raw("rounds.crash", b'{"round_id": "?"}')
        await log.store_raw("rounds.No_Such_Game", b"{}")

    await log.store(make_round("crash", 1))
    await store_garbage()
    await log.store(*(make_round("crash", number) for number in range(2, 40)))

    async with (
        watch(relay, "crash", after=log.cursor(0)) as one,
        watch(relay, "", after=log.cursor(0)) as every,
    ):
        for viewer in (one, every):
            await viewer.until_round(39)
        await store_garbage()
        await log.store(make_round("crash", 40))
        for viewer in (one, every):
            await viewer.until_round(40)

    assert one.ids == every.ids == list(range(1, 41))
    assert one.gaps == every.gaps == []
