"""Corrections over WebSocket, SSE and REST: for clients that ask, and for nobody else."""

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import aiohttp
import pytest
from structlog.testing import capture_logs

from auth.key_secret import DEMO_KEY
from rounds import Round
from rounds.times import utc_text
from tests.relay.conftest import metric
from tests.resume.conftest import StartRelay
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_correction, make_round
from tests.resume.viewers import Message, watch
from tests.samples.program_samples import start

pytestmark = pytest.mark.service

HEADERS: Final = {"X-API-Key": DEMO_KEY}

Entry = tuple[str, int, int]
"""A game, a round's id, and a revision."""


def seen(messages: Iterable[Message]) -> list[Entry]:
    return [(each["game_slug"], each["round_id"], each.get("revision", 1)) for each in messages if "event" not in each]


def entries(stored: Iterable[Round], wanted: Callable[[Round], bool] = lambda _: True) -> list[Entry]:
    return [(each.game_slug, each.round_id, each.revision) for each in stored if wanted(each)]


def is_plain(round_: Round) -> bool:
    return round_.revision == 1


def of_crash(round_: Round) -> bool:
    return round_.game_slug == "crash"


def story(count: int) -> list[Round]:
    """Rounds of two games a second apart; each tenth is corrected three rounds later, and then voided."""
    stored: list[Round] = []
    for number in range(count):
        stored += [make_round("crash", number), make_round("dice", number)]
        if number % 10 == 8:
            stored.append(make_correction("crash", number - 3, at_ms=TEN_O_CLOCK_MS + number * 1000))
            stored.append(make_correction("dice", number - 3, at_ms=TEN_O_CLOCK_MS + number * 1000))
        if number % 10 == 9:
            stored.append(make_correction("crash", number - 4, 3, at_ms=TEN_O_CLOCK_MS + number * 1000, voided=True))
    return stored


async def get(url: str, path: str, **query: str) -> tuple[int, Any, str | None]:
    """Return the status, the answer, and the URL of the next page."""
    async with aiohttp.ClientSession() as session, session.get(url + path, params=query, headers=HEADERS) as response:
        following = response.links.get("next")
        return response.status, await response.json(), None if following is None else str(following["url"])


async def pages(url: str, path: str, **query: str) -> list[Message]:
    """Follow history to its very end; return what it holds, oldest first."""
    async with aiohttp.ClientSession(headers=HEADERS) as session:
        found: list[Message] = []
        at: str | None = url + path
        while at is not None:
            async with session.get(at, params=query) as response:
                found += await response.json()
                following = response.links.get("next")
                at, query = (None if following is None else str(following["url"])), {}
    return found[::-1]


PATHS: Final[Sequence[tuple[str, Callable[[Round], bool]]]] = (
    ("crash", of_crash),
    ("type/multiplier", lambda _: True),
    ("", lambda _: True),
)


@pytest.mark.parametrize("protocol", ["ws", "sse"])
async def test_past_of_clients_that_ask_and_of_others(relay: str, log: LogWriter, protocol: str) -> None:
    """A resume, the last rounds, a range of time and a paced replay, of one game, a type and all."""
    stored = story(200)
    await log.store_many(stored)

    def last(count: int) -> Callable[[Round], bool]:
        begin = stored.index(make_round("crash", 200 - count))
        return lambda each: each in stored[begin:]

    moment = TEN_O_CLOCK_MS + 50_000
    starts: list[tuple[dict[str, Any], Callable[[Round], bool]]] = [
        ({"after": log.cursor(0)}, lambda _: True),
        ({"last": 5}, last(5)),
        ({"last": 60}, last(60)),
        ({"from_": utc_text(moment), "to": utc_text(moment + 60_000)}, lambda e: 0 <= e.timestamp - moment <= 60_000),
        ({"from_": utc_text(moment), "speed": 10_000}, lambda each: each.timestamp >= moment),
    ]
    for path, belongs in PATHS:
        for begins, follows in starts:
            wanted = entries(stored, lambda each, f=follows, b=belongs: f(each) and b(each))  # type: ignore[misc]
            plain = [entry for entry in wanted if entry[2] == 1]
            both: list[tuple[dict[str, Any], list[Entry]]] = [({"corrections": 1}, wanted), ({}, plain)]
            for asks, expected in both:
                async with watch(relay, path, protocol=protocol, **asks, **begins) as viewer:
                    await viewer.until_rounds(len(expected))
                assert seen(viewer.seen) == expected, (path, begins, asks)
                assert not viewer.gaps


async def test_history_pages_hold_corrections_for_clients_that_ask(relay: str, log: LogWriter) -> None:
    """To the very end, newest first, for a game, a type and all; other clients get pages without them."""
    stored = story(200)
    await log.store_many(stored)

    for path, belongs in PATHS:
        expected = entries(stored, belongs)
        at = "/api/history" + (path and f"/{path}")
        assert seen(await pages(relay, at, limit="77", corrections="true")) == expected
        assert seen(await pages(relay, at, limit="77")) == [entry for entry in expected if entry[2] == 1]
        assert seen(await pages(relay, at, limit="77", corrections="0")) == [e for e in expected if e[2] == 1]
    after = await pages(relay, "/api/history/crash", after=log.cursor(300), corrections="1", limit="9")
    assert seen(after) == entries(stored[300:], of_crash)


async def test_last_round_comes_with_all_its_corrections(relay: str, log: LogWriter) -> None:
    """Also when memory holds the round, and not all that came since; and with those of older rounds."""
    stored = [make_round("crash", 1), make_round("crash", 2)]
    stored += [make_correction("crash", 1 + revision % 2, revision) for revision in range(2, 50)]
    async with watch(relay, "", corrections=1) as live:
        await log.store_many(stored)
        await live.until_rounds(len(stored))
        for path in ("crash", ""):
            async with watch(relay, path, corrections=1, last=1) as viewer:
                await viewer.until_rounds(len(stored) - 1)
            assert seen(viewer.seen) == entries(stored[1:])
            async with watch(relay, path, last=1) as viewer:
                await viewer.until_rounds(1)
            assert seen(viewer.seen) == [("crash", 2, 1)]


@pytest.mark.parametrize("protocol", ["ws", "sse"])
async def test_live_corrections_come_in_order_whatever_the_filter(relay: str, log: LogWriter, protocol: str) -> None:
    """The client may have got the round as it was. One that did not ask gets the same bytes as ever."""
    low, high = make_round("crash", 1, point="1.50"), make_round("crash", 2, point="5.00")
    lowered = make_correction("crash", 2, point="1.01")
    voided = make_correction("crash", 2, 3, voided=True)
    end = make_round("crash", 9, point="7.00")
    with capture_logs() as logged:
        async with (
            watch(relay, "crash", protocol=protocol, corrections=1, min_point=2) as filtered,
            watch(relay, "", protocol=protocol, corrections="true") as everything,
            watch(relay, "crash", protocol=protocol) as plain,
            watch(relay, "crash", protocol=protocol, corrections=1, min_point=2, after=log.cursor(0)) as resumed,
        ):
            await log.store_many([low, high, lowered, voided, end])
            for viewer in (filtered, everything, plain, resumed):
                await viewer.until_round(9)

    opened = [line["games"] for line in logged if line["event"] == "link_opened"]
    assert [games for games in opened if "~" in games] == []
    assert seen(filtered.seen) == seen(resumed.rounds) == entries([high, lowered, voided, end])
    assert seen(everything.seen) == entries([low, high, lowered, voided, end])
    assert seen(plain.seen) == entries([low, high, end])
    given = ["round_id", "game_slug", "game_type", "finished_at", "extras", "timestamp"]
    assert [list(each) for each in plain.seen] == [[*given, "cursor"]] * 3
    assert [list(each)[6:] for each in filtered.seen] == [
        ["cursor"],
        ["revision", "cursor"],
        ["revision", "voided", "cursor"],
        ["cursor"],
    ]


async def latest(url: str, game: str = "crash", **query: str) -> tuple[int, int, bool | None, str]:
    status, answer, _ = await get(url, f"/api/latest/{game}", **query)
    assert status == 200, answer
    return answer["round_id"], answer.get("revision", 1), answer.get("voided"), answer["value"]


async def test_latest_is_the_newest_revision_of_the_newest_round(log: LogWriter, start_relay: StartRelay) -> None:
    """Also right after a start, when a burst of corrections of older rounds has come: the log is searched once."""
    await log.store(make_round("dice", 5), make_correction("dice", 4), make_round("plinko", 5))
    await log.store(*(make_round("crash", number) for number in (1, 2)), make_correction("crash", 2, point="3.00"))
    await log.store_many(make_correction("crash", 1, revision) for revision in range(2, 1302))

    async with start_relay(replay={"ring_rounds": 20}) as url, aiohttp.ClientSession() as client:
        both = await asyncio.gather(*(latest(url, corrections="1") for _ in range(10)))
        assert set(both) == {(2, 2, None, "3.00")}
        asked = await metric(client, url, "relay_log_requests_total")
        assert await latest(url) == (2, 1, None, "2.50")
        for _ in range(30):
            assert await latest(url, corrections="true") == (2, 2, None, "3.00")
        assert await latest(url, "dice", corrections="1") == (5, 1, None, "2.50")
        assert await latest(url, "plinko", corrections="1") == (5, 1, None, "2.50")
        assert await metric(client, url, "relay_log_requests_total") < asked + 30  # the feed asks now and then

        async with watch(url, "", corrections=1) as viewer:
            await log.store(make_correction("crash", 1, 2000))
            await viewer.until_rounds(1)
            assert await latest(url, corrections="1") == (2, 2, None, "3.00")
            await log.store(make_correction("crash", 2, 3, voided=True, point="3.00"))
            await viewer.until_rounds(2)
            assert await latest(url, corrections="1") == (2, 3, True, "3.00")
            assert await latest(url, corrections="false") == (2, 1, None, "2.50")
            await log.store(make_round("crash", 3))
            await viewer.until_rounds(3)
            assert await latest(url, corrections="1") == (3, 1, None, "2.50")


async def test_etag_of_latest_changes_with_a_correction(relay: str, log: LogWriter) -> None:
    """For those that ask for it."""
    await log.store(make_round("crash", 1))
    async with watch(relay, "", corrections=1) as viewer, aiohttp.ClientSession(headers=HEADERS) as session:

        async def status(etag: str, **query: str) -> tuple[int, str]:
            asked = session.get(f"{relay}/api/latest/crash", params=query, headers={"If-None-Match": etag})
            async with asked as response:
                return response.status, response.headers["ETag"]

        _, etag = await status("")
        assert await status(etag, corrections="1") == (304, etag)
        await log.store(make_correction("crash", 1))
        await viewer.until_rounds(1)

        assert (await status(etag, corrections="1"))[0] == 200
        assert await status(etag) == (304, etag)


async def test_entry_that_stands_in_the_wrong_place_is_nobodys(relay: str, log: LogWriter) -> None:
    """Corrections among rounds would reach clients that did not ask; live, in a replay and in history."""
    wrong = [
        ("rounds.crash", make_correction("crash", 1)),
        ("rounds.crash", make_correction("crash", 1, 1, voided=True)),
        ("rounds.crash~corrections", make_round("crash", 1)),
        ("rounds.crash~corrections", make_correction("dice", 1)),
        ("rounds.crash~other", make_correction("crash", 1)),
    ]
    with capture_logs() as logged:
        async with watch(relay, "", corrections=1) as asking, watch(relay, "") as plain:
            for subject, round_ in wrong:
                await log.store_raw(subject, round_.to_json())
            await log.store(make_round("crash", 7))
            for viewer in (asking, plain):
                await viewer.until_round(7)

    assert [line["error"] for line in logged if line["event"] == "round_invalid"] == [
        "a correction (revision 2) stands among the rounds of 'crash'",
        "a correction (revision 1) stands among the rounds of 'crash'",
        "revision 1 of a round of 'crash' stands among the corrections of 'crash'",
        "revision 2 of a round of 'dice' stands among the corrections of 'crash'",
    ]
    assert seen(asking.seen) == seen(plain.seen) == [("crash", 7, 1)]
    each_way: list[dict[str, Any]] = [{}, {"corrections": "1"}]
    for asks in each_way:
        async with watch(relay, "", after=log.cursor(0), **asks) as viewer:
            await viewer.until_round(7)
        assert seen(viewer.seen) == [("crash", 7, 1)]
        assert seen(await pages(relay, "/api/history", **asks)) == [("crash", 7, 1)]
        assert seen(await pages(relay, "/api/history/crash", **asks)) == [("crash", 7, 1)]


async def test_flag_that_is_none_is_refused(relay: str, log: LogWriter) -> None:
    """In one sentence, on every path that takes it; paths that do not take it say so."""
    await log.store(make_round("crash", 1))
    for path in ("/api/latest/crash", "/api/history", "/api/history/crash", "/sse/crash", "/sse"):
        for value in ("", "yes", "2", "TRUE"):
            status, answer, _ = await get(relay, path, corrections=value)
            assert (status, answer["error"]) == (400, f"corrections {value!r} is none of 1 and true, 0 and false"), path
    status, answer, _ = await get(relay, "/api/games", corrections="1")
    assert (status, answer["error"]) == (400, "unknown query parameter 'corrections'; this path takes none")


async def test_messages_ask_for_corrections_of_games(relay: str, log: LogWriter) -> None:
    """With `corrections`; without it as the link was opened. The answers say which corrections come."""
    number = 0

    async def next_of(viewer: Any) -> list[tuple[str, int]]:
        """Store a round and a correction of both games, and a last one; return which of them came."""
        nonlocal number
        number += 1
        before = len(viewer.seen)
        for game in ("crash", "dice"):
            await log.store(make_round(game, number), make_correction(game, number))
        await log.store(make_round("plinko", number))
        await viewer.until_round(number, game="plinko")
        return [(game, revision) for game, _, revision in seen(viewer.seen[before:]) if game != "plinko"]

    async def say(viewer: Any, **message: object) -> Message:
        await viewer.say(**message)
        answer: Message = await viewer.until(lambda each: each.get("event") == "subscribed")
        return answer

    async with watch(relay, "plinko") as viewer:
        answer = await say(viewer, action="subscribe", games=["crash"])
        assert answer == {"event": "subscribed", "games": ["crash", "plinko"]}
        assert await next_of(viewer) == [("crash", 1)]
        answer = await say(viewer, action="subscribe", games=["crash"], corrections=True)
        assert answer == {"event": "subscribed", "games": ["crash", "plinko"], "corrections": ["crash"]}
        assert await next_of(viewer) == [("crash", 1), ("crash", 2)]
        await say(viewer, action="subscribe", games=["dice"])
        assert await next_of(viewer) == [("crash", 1), ("crash", 2), ("dice", 1)]
        answer = await say(viewer, action="subscribe", games=["crash"], corrections=False)
        assert answer == {"event": "subscribed", "games": ["crash", "dice", "plinko"], "corrections": []}
        assert await next_of(viewer) == [("crash", 1), ("dice", 1)]
        after = log.cursor((await log.info()).last - 5)
        await say(viewer, action="subscribe", games=["dice"], corrections=True, after=after)
        await viewer.until(lambda each: each.get("revision") == 2 and each["game_slug"] == "dice")
        assert await next_of(viewer) == [("crash", 1), ("dice", 1), ("dice", 2)]

    async with watch(relay, "plinko", corrections=1) as viewer:
        answer = await say(viewer, action="subscribe", games=["crash", "dice"])
        assert answer["corrections"] == ["crash", "dice", "plinko"]
        assert await next_of(viewer) == [("crash", 1), ("crash", 2), ("dice", 1), ("dice", 2)]
        answer = await say(viewer, action="unsubscribe", games=["crash"])
        assert answer == {"event": "subscribed", "games": ["dice", "plinko"], "corrections": ["dice", "plinko"]}
        assert await next_of(viewer) == [("dice", 1), ("dice", 2)]
        await viewer.say(action="unsubscribe", games=["dice"], corrections=True)
        await viewer.to_the_end()
        assert viewer.ended["error"] == "corrections is for subscribe; unsubscribe ends games and their corrections"


async def test_sample_keeps_the_newest_state_of_each_round(relay: str, log: LogWriter) -> None:
    """From history and live. What comes a second time, or late, changes nothing."""
    await log.store(make_round("crash", 1), make_round("crash", 2), make_correction("crash", 1, point="3.00"))
    await log.store(make_correction("crash", 3, 5, voided=True), make_correction("crash", 3, 4))
    expected = [
        r'\[crash\] Round 1: {"point":"2.50"}',
        r'\[crash\] Round 2: {"point":"2.50"}',
        r'\[crash\] Round 1: {"point":"3.00"} \(revision 2\)',
        r"\[crash\] Round 3 was taken back",
        r"\[crash\] Round 2 was taken back",
        r"\[crash\] Round 9: .*",
    ]

    def run() -> list[str]:
        with start("corrections/python", {"BASE_URL": relay, "API_KEY": DEMO_KEY}) as sample:
            sample.wait_for(expected[3])
            asyncio.run_coroutine_threadsafe(store_rest(), loop).result()
            sample.wait_for(expected[-1])
        return sample.printed

    async def store_rest() -> None:
        await log.store(make_correction("crash", 2, voided=True), make_correction("crash", 1), make_round("crash", 9))

    loop = asyncio.get_running_loop()
    printed = await asyncio.to_thread(run)

    assert len(printed) == len(expected)
    assert all(re.fullmatch(pattern, line) for pattern, line in zip(expected, printed, strict=True)), printed
