"""``/api/games``, ``/api/latest`` and ``/api/history`` over HTTP."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

import aiohttp
import brotli
import pytest
from yarl import URL

from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.key_secret import generate
from roundlog.log_settings import LogSettings
from rounds import Round
from rounds.times import utc_text
from tests.nats import NatsServer
from tests.relay.conftest import KEY_HEADER, StartRelay
from tests.resume.log_writer import TEN_O_CLOCK_MS, LogWriter, make_round

pytestmark = pytest.mark.service

COUNT = 700
"""Rounds of each of two games: more than a page of the log, of which the relay remembers only the last few."""


class RestRelay(NamedTuple):
    """A running relay and its log."""

    url: str
    log: LogWriter

    async def get(self, path: str, headers: Mapping[str, str] = KEY_HEADER, *, method: str = "GET") -> "RestAnswer":
        """Send a request without the default `Accept-Encoding` of the client and without decompression."""
        async with (
            aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Accept-Encoding"]) as session,
            session.request(method, URL(f"{self.url}{path}", encoded=True), headers=headers) as response,
        ):
            return RestAnswer(response.status, response.headers, await response.read(), _next_of(response))

    async def pages(self, path: str) -> list[list[dict[str, Any]]]:
        """Follow ``Link`` to the last page."""
        pages = []
        following: str | None = path
        while following is not None:
            answer = await self.get(following)
            assert answer.status == 200, answer.body
            pages.append(answer.json)
            following = answer.next
        return pages


class RestAnswer(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    next: str | None
    """Path and query of ``Link: rel="next"``."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def _next_of(response: aiohttp.ClientResponse) -> str | None:
    link = response.links.get("next")
    return None if link is None else str(URL(str(link["url"])).relative())


@pytest.fixture
async def log(nats: NatsServer) -> AsyncIterator[LogWriter]:
    async with LogWriter.open(LogSettings(url=nats.url)) as writer:
        yield writer


@pytest.fixture
async def relay(log: LogWriter, start_relay: StartRelay) -> AsyncIterator[RestRelay]:
    """A relay that keeps 20 rounds of a game in memory."""
    async with start_relay(replay={"ring_rounds": 20}) as url:
        yield RestRelay(url, log)


@pytest.fixture
async def full(relay: RestRelay) -> RestRelay:
    """The same with `COUNT` rounds of ``crash`` and ``dice`` in turn; every seventh has the point 7.00."""
    rounds = []
    for number in range(1, COUNT + 1):
        point = "7.00" if number % 7 == 0 else "2.50"
        rounds += [make_round("crash", number, point=point), make_round("dice", number, point=point)]
    await relay.log.store_many(rounds)
    return relay


def ids(rounds: list[dict[str, Any]]) -> list[int]:
    return [round_["round_id"] for round_ in rounds]


def at(number: int) -> str:
    """The time of round `number`, as a query parameter."""
    return utc_text(TEN_O_CLOCK_MS + number * 1000)


# --- paging ---------------------------------------------------------------------------------------------------------


async def test_history_without_parameters_is_the_newest_five_hundred_newest_first(full: RestRelay) -> None:
    """A bare array; the six given fields first and in order, then the cursor."""
    answer = await full.get("/api/history/crash")

    assert ids(answer.json) == list(range(COUNT, COUNT - 500, -1))
    assert list(answer.json[0]) == [
        "round_id",
        "game_slug",
        "game_type",
        "finished_at",
        "extras",
        "timestamp",
        "cursor",
    ]
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"


@pytest.mark.parametrize("limit", [1000, 230, 7])
async def test_link_leads_to_the_oldest_round_with_each_round_once(full: RestRelay, limit: int) -> None:
    """Pages come from memory, then from the log: newest first, without duplicates or gaps."""
    pages = await full.pages(f"/api/history/crash?limit={limit}")

    assert [number for page in pages for number in ids(page)] == list(range(COUNT, 0, -1))
    assert all(len(page) == limit for page in pages[:-2])


async def test_link_keeps_filters_and_times_on_every_page(full: RestRelay) -> None:
    """The next page has the same query."""
    pages = await full.pages(f"/api/history/crash?limit=10&min_point=7&from={at(100)}&to={at(600)}")

    assert [number for page in pages for number in ids(page)] == list(range(595, 104, -7))
    assert len(pages) > 5


async def test_history_of_a_type_and_of_everything_mixes_games_in_log_order(full: RestRelay) -> None:
    """Sequences descend, over all games, to the first round of the log."""
    for path in ("/api/history/type/multiplier", "/api/history", "/api/history?games=dice,crash"):
        pages = await full.pages(f"{path}{'&' if '?' in path else '?'}limit=333")

        sequences = [int(round_["cursor"].rpartition("-")[2]) for page in pages for round_ in page]
        assert sequences == list(range(2 * COUNT, 0, -1)), path


async def test_after_and_before_are_exclusive(full: RestRelay) -> None:
    """The rounds between two cursors, without those of the cursors."""
    by_id = {round_["round_id"]: round_["cursor"] for page in await full.pages("/api/history/crash") for round_ in page}

    answer = await full.get(f"/api/history/crash?after={by_id[300]}&before={by_id[310]}")

    assert ids(answer.json) == list(range(309, 300, -1))
    assert answer.next is None
    assert "X-History-Complete" not in answer.headers


async def test_from_and_to_are_inclusive(full: RestRelay) -> None:
    """A round of exactly that millisecond is included, at both ends."""
    assert ids((await full.get(f"/api/history/crash?from={at(300)}&to={at(305)}")).json) == [
        305,
        304,
        303,
        302,
        301,
        300,
    ]
    assert ids((await full.get(f"/api/history/crash?from={at(300)}&to={at(300)}")).json) == [300]
    just_inside = quote("2026-01-18T12:05:00.001+02:00")

    answer = await full.get(f"/api/history/crash?from={just_inside}&to={at(301)}")

    assert ids(answer.json) == [301]


async def test_range_without_rounds_is_an_empty_array(full: RestRelay) -> None:
    """It is no error, and has no next page."""
    answer = await full.get("/api/history/crash?from=2020-01-01T00:00:00Z&to=2020-01-02T00:00:00Z")

    assert (answer.status, answer.json, answer.next) == (200, [], None)


async def test_rounds_published_between_two_pages_do_not_change_the_second(full: RestRelay) -> None:
    """Pages are relative to a sequence of the log, not to its end."""
    first = await full.get("/api/history/crash?limit=50")
    await full.log.store(*(make_round("crash", number) for number in range(COUNT + 1, COUNT + 6)))
    assert first.next is not None

    second = await full.get(first.next)

    assert ids(second.json) == list(range(COUNT - 50, COUNT - 100, -1))


async def test_history_after_a_cursor_whose_rounds_were_purged_says_that_it_is_not_complete(full: RestRelay) -> None:
    """The remaining rounds are answered, and a header says that older ones have expired."""
    await full.log.purge_up_to(2 * COUNT - 200)

    answer = await full.get(f"/api/history/crash?after={full.log.cursor(10)}&limit=1000")

    assert ids(answer.json) == list(range(COUNT, COUNT - 100, -1))
    assert answer.headers["X-History-Complete"] == "false"


async def test_rare_old_rounds_are_found_in_bounded_steps(relay: RestRelay) -> None:
    """One game is read by its subject; for several, each request reads a bounded range and ``Link`` continues it."""
    rare = [make_round("dice", 1), make_round("plinko", 1), make_round("dice", 2)]
    await relay.log.store_many([*rare, *(make_round("crash", number) for number in range(1, 30_001))])

    one = await relay.pages("/api/history/dice?limit=10")
    several = await relay.pages("/api/history?games=dice,plinko&limit=10")

    assert [ids(page) for page in one] == [[2, 1]]
    found = [(round_["game_slug"], round_["round_id"]) for page in several for round_ in page]
    assert found == [("dice", 2), ("plinko", 1), ("dice", 1)]
    assert len(several) > 1


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "code", "names"),
    [
        ("limit=0", "bad_request", "limit '0' is not a whole number from 1 to 1000"),
        ("limit=-1", "bad_request", "limit '-1'"),
        ("limit=1001", "bad_request", "limit '1001'"),
        ("limit=x", "bad_request", "limit 'x'"),
        ("limit=", "bad_request", "limit ''"),
        ("limit=1e2", "bad_request", "limit '1e2'"),
        ("limit=%D9%A1", "bad_request", "limit"),  # a digit, but not one of ours
        ("before=x", "invalid_cursor", "cursor 'x' is malformed"),
        ("after=", "invalid_cursor", "cursor '' is malformed"),
        ("after=a-18446744073709551616", "invalid_cursor", "18446744073709551616"),
        ("after=A-1", "invalid_cursor", "'A-1'"),
        ("after=a-01", "invalid_cursor", "'a-01'"),
        ("from=yesterday", "bad_request", "from 'yesterday' is not an RFC 3339 time"),
        ("to=2026-01-18", "bad_request", "to '2026-01-18'"),
        ("from=2026-01-18T10:00:00", "bad_request", "with a zone"),
        ("from=2026-02-30T10:00:00Z", "bad_request", "2026-02-30"),
        ("from=2026-01-18T10:00:01Z&to=2026-01-18T10:00:00Z", "bad_request", "is later than to"),
        ("min_point=x", "invalid_filter", "min_point 'x'"),
        ("min_point=3&max_point=2", "invalid_filter", "min_point 3 is above max_point 2"),
        ("colors=red,,black", "invalid_filter", "colors 'red,,black'"),
        ("games=dice", "bad_request", "games cannot be given here"),
        (
            "minpoint=2",
            "bad_request",
            "unknown query parameter 'minpoint'; allowed here: before, after, from, to, limit",
        ),
        ("last=5", "bad_request", "unknown query parameter 'last'"),  # of streams; a page has a limit
        ("limit=1&limit=2", "bad_request", "limit is given more than once"),
        ("from=2026-01-18T10:00:00Z&from=2026-01-18T10:00:00Z", "bad_request", "from is given more than once"),
        ("min_point=1&min_point=2", "bad_request", "min_point is given more than once"),
        ("colors=red&colors=", "invalid_filter", "colors 'red,'"),
    ],
)
async def test_invalid_value_is_refused(relay: RestRelay, query: str, code: str, names: str) -> None:
    """400, and one sentence with the parameter, its value and what is allowed."""
    answer = await relay.get(f"/api/history/crash?{query}")

    assert (answer.status, answer.json["code"], answer.json["success"]) == (400, code, False)
    assert names in answer.json["error"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "taken"),
    [("/api/games", "this path takes none"), ("/api/latest/crash", "allowed here: corrections")],
)
async def test_path_with_few_parameters_refuses_unknown_ones(
    relay: RestRelay, path: str, taken: str, method: str
) -> None:
    """`/api/games?type=color` is refused; parameters that tools add are ignored."""
    await relay.log.store(make_round("crash", 1))

    answer = await relay.get(f"{path}?type=color", method=method)
    passed = await relay.get(f"{path}?_=1&utm_source=x", method=method)

    assert (answer.status, passed.status) == (400, 200)
    if method == "GET":
        assert answer.json["code"] == "bad_request"
        assert answer.json["error"] == f"unknown query parameter 'type'; {taken}"


async def test_repeated_lists_are_joined_on_every_page(full: RestRelay) -> None:
    """``games=crash&games=dice`` is ``games=crash,dice``, and `Link` keeps it."""
    pages = await full.pages("/api/history?games=crash&games=dice&limit=1000")

    assert [len(page) for page in pages[:2]] == [1000, 2 * COUNT - 1000]
    assert {round_["game_slug"] for round_ in pages[1]} == {"crash", "dice"}


@pytest.mark.parametrize("name", ["before", "after"])
async def test_cursor_of_another_log_is_lost(relay: RestRelay, name: str) -> None:
    """404: its sequence has another meaning in this log."""
    await relay.log.store(make_round("crash", 1))

    answer = await relay.get(f"/api/history/crash?{name}=other-1")

    assert (answer.status, answer.json["code"]) == (404, "cursor_lost")


async def test_cursor_after_the_end_of_the_log_is_lost(relay: RestRelay) -> None:
    """The log lost its tail: the rounds after that cursor are unknown."""
    await relay.log.store(make_round("crash", 1))

    answer = await relay.get(f"/api/history/crash?after={relay.log.cursor(2**64 - 1)}")

    assert (answer.status, answer.json["code"]) == (404, "cursor_lost")


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/latest/chess", "unknown_game"),
        ("/api/history/chess", "unknown_game"),
        ("/api/history/type/chess", "unknown_type"),
        ("/api/history?games=crash,chess", "unknown_game"),
        ("/api/latest/crash", "no_round_yet"),
        ("/api/latest", "not_found"),
        ("/api/latest/crash/", "not_found"),
        ("/api/latest/%3E", "unknown_game"),
        ("/api/latest/crash%2A", "unknown_game"),
    ],
)
async def test_unknown_games_and_types_are_404(relay: RestRelay, path: str, code: str) -> None:
    """So is a game without a round; each has its own code."""
    answer = await relay.get(path)

    assert (answer.status, answer.json["code"]) == (404, code)


@pytest.mark.parametrize("path", ["/api/games", "/api/latest/crash", "/api/history", "/api/history/crash"])
async def test_every_path_requires_a_key(relay: RestRelay, path: str) -> None:
    """401; a key in the query is for event streams only."""
    for headers, where in (({}, path), ({"X-API-Key": "nonsense"}, path), ({}, f"{path}?api_key={'0' * 64}")):
        assert (await relay.get(where, headers)).status == 401


async def test_key_of_some_games_reads_only_those(log: LogWriter, start_relay: StartRelay) -> None:
    """403 for another game by name; other games are omitted from requests for all."""
    secret, stored = generate("private")
    await log.store(make_round("crash", 1), make_round("dice", 1))
    async with start_relay(keys=KeyRing(read_keys(text=f"k={stored} games=dice"))) as url:
        relay, headers = RestRelay(url, log), {"X-API-Key": secret}

        for path in (
            "/api/latest/crash",
            "/api/history/crash",
            "/api/history?games=dice,crash",
            "/api/history/type/color",
        ):
            answer = await relay.get(path, headers)
            assert (answer.status, answer.json["code"]) == (403, "not_allowed"), path
        assert [game["slug"] for game in (await relay.get("/api/games", headers)).json] == ["dice"]
        for path in ("/api/history", "/api/history/type/multiplier"):
            assert [round_["game_slug"] for round_ in (await relay.get(path, headers)).json] == ["dice"], path


async def test_other_methods_are_refused(relay: RestRelay) -> None:
    """405 with ``Allow``."""
    for method in ("POST", "PUT", "DELETE"):
        answer = await relay.get("/api/history/crash", method=method)
        assert (answer.status, answer.json["code"]) == (405, "method_not_allowed")
        assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}


# --- the newest ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("game", "kind", "extras", "value"),
    [
        ("crash", "multiplier", '{"point":"2.50"}', "2.50"),
        ("double", "color", '{"color":"red","number":"7"}', "red"),
        ("wall-street", "trending", '{"trend":"up","point":"1.20"}', "1.20"),
        ("fortune-dragon", "slots", '{"symbols":["7","7","bar"],"point":"5.00"}', "5.00"),
        ("dice", "multiplier", '{"point":3.5}', "3.5"),  # not as the contract has it, and a string all the same
        ("dice", "multiplier", '{"other":"1"}', None),
    ],
)
async def test_latest_adds_the_main_figure_of_each_type(
    relay: RestRelay, game: str, kind: str, extras: str, value: str | None
) -> None:
    """``value`` is a string after the fields of the round, or null when there is none."""
    round_ = Round.make(
        round_id=5, game_slug=game, game_type=kind, finished_at=at(0), extras=extras, timestamp=TEN_O_CLOCK_MS
    )
    [sequence] = await relay.log.store(round_)

    answer = await relay.get(f"/api/latest/{game}")

    assert answer.json == {
        **json.loads(round_.to_json()),
        "cursor": relay.log.cursor(sequence),
        "value": value,
    }


async def test_latest_is_the_newest_stored_round(relay: RestRelay) -> None:
    """Every request after a round was stored gets that round."""
    for number in range(1, 4):
        await relay.log.store(make_round("crash", number))
        await _seen(relay, "crash", number)
        assert (await relay.get("/api/latest/crash")).json["round_id"] == number


async def test_games_lists_each_with_its_newest_round(relay: RestRelay) -> None:
    """Games without a round are listed with nulls."""
    await relay.log.store(make_round("crash", 7))
    await _seen(relay, "crash", 7)

    games = {game["slug"]: game for game in (await relay.get("/api/games")).json}

    assert len(games) == 14
    assert games["crash"] == {
        "slug": "crash",
        "name": "Crash",
        "type": "multiplier",
        "last_round": 7,
        "last_update": at(7),
    }
    assert (games["double"]["last_round"], games["double"]["last_update"]) == (None, None)


async def test_known_etag_is_answered_304_until_there_is_a_newer_round(relay: RestRelay) -> None:
    """``If-None-Match`` in every form of RFC 9110."""
    await relay.log.store(make_round("crash", 1))
    first = await relay.get("/api/latest/crash")
    etag = first.headers["ETag"]

    for known in (etag, etag.removeprefix("W/"), f'"other", {etag}', "*"):
        answer = await relay.get("/api/latest/crash", {**KEY_HEADER, "If-None-Match": known})
        assert (answer.status, answer.body) == (304, b""), known
        for name in ("ETag", "Cache-Control", "Vary"):
            assert answer.headers[name] == first.headers[name]
    assert (await relay.get("/api/latest/crash", {**KEY_HEADER, "If-None-Match": '"other"'})).status == 200
    await relay.log.store(make_round("crash", 2))
    await _seen(relay, "crash", 2)
    answer = await relay.get("/api/latest/crash", {**KEY_HEADER, "If-None-Match": etag})
    assert (answer.status, answer.json["round_id"]) == (200, 2)
    assert answer.headers["ETag"] != etag


async def test_known_etag_still_requires_a_key(relay: RestRelay) -> None:
    """Credentials are checked before conditions."""
    await relay.log.store(make_round("crash", 1))

    assert (await relay.get("/api/latest/crash", {"If-None-Match": "*"})).status == 401


@pytest.mark.parametrize("path", ["/api/games", "/api/latest/crash", "/api/history/crash", "/api/history?limit=1"])
async def test_head_has_the_headers_of_get_and_no_body(full: RestRelay, path: str) -> None:
    """``Content-Length``, ``ETag`` and ``Link`` included."""
    got, headed = await full.get(path), await full.get(path, method="HEAD")

    assert (headed.status, headed.body) == (200, b"")
    for name in ("Content-Length", "Content-Type", "ETag", "Link", "Vary"):
        assert headed.headers.get(name) == got.headers.get(name), name


# --- compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accepted", "used"),
    [
        (None, None),
        ("identity", None),
        ("gzip", "gzip"),
        ("br", "br"),
        ("gzip, deflate, br", "br"),
        ("gzip;q=1, br;q=0.5", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("*", "gzip"),
        ("gzip;q=0, *", None),
        ("deflate, zstd", None),
    ],
)
async def test_answer_is_compressed_only_as_accepted(full: RestRelay, accepted: str | None, used: str | None) -> None:
    """The same rounds in every coding; ``Vary`` names the headers that choose the answer."""
    plain = await full.get("/api/history/crash")

    answer = await full.get(
        "/api/history/crash", KEY_HEADER | ({} if accepted is None else {"Accept-Encoding": accepted})
    )

    assert answer.headers.get("Content-Encoding") == used
    body = {None: bytes, "gzip": gzip.decompress, "br": brotli.decompress}[used](answer.body)
    assert body == plain.body
    assert "Accept-Encoding" in answer.headers["Vary"]


async def test_small_answer_is_not_compressed(relay: RestRelay) -> None:
    """Below a kilobyte it would only grow."""
    await relay.log.store(make_round("crash", 1))

    assert (
        "Content-Encoding"
        not in (await relay.get("/api/latest/crash", KEY_HEADER | {"Accept-Encoding": "gzip"})).headers
    )


# --- the log is away -------------------------------------------------------------------------------------------------


async def test_without_the_log_memory_answers_and_the_rest_is_503(full: RestRelay, nats: NatsServer) -> None:
    """No request hangs: rounds in memory are answered, other requests get a retry delay."""
    await full.get("/api/latest/crash")
    await nats.kill()

    away = await full.get("/api/history/crash?limit=1000")
    latest = await full.get("/api/latest/crash")

    assert (away.status, away.json["code"]) == (503, "log_unavailable")
    assert int(away.headers["Retry-After"]) >= 1
    assert (latest.status, latest.json["round_id"]) == (200, COUNT)
    await nats.start()


async def test_relay_that_never_reached_the_log_answers_503_at_once(
    start_relay: StartRelay, log: LogWriter, client: aiohttp.ClientSession
) -> None:
    """On every path that reads rounds."""
    async with start_relay(nats_url="nats://127.0.0.1:9", ready=False) as url:
        relay = RestRelay(url, log)
        for path in ("/api/games", "/api/latest/crash", "/api/history", "/api/history/crash"):
            answer = await relay.get(path)
            assert (answer.status, answer.json["code"], answer.headers["Retry-After"]) == (503, "log_unavailable", "1")


async def test_frozen_log_ends_in_503(full: RestRelay, nats: NatsServer) -> None:
    """Connections to it stay open and it does not answer: the wait has a deadline."""
    await full.get("/api/latest/crash")
    begun = time.monotonic()
    nats.freeze()
    try:
        answers = await asyncio.gather(*(full.get("/api/history/crash?limit=1000") for _ in range(10)))
    finally:
        nats.thaw()

    assert {(answer.status, answer.json["code"]) for answer in answers} == {(503, "log_unavailable")}
    assert time.monotonic() - begun < 30  # many wait no longer than one


async def test_requests_do_not_queue_for_a_frozen_log(
    full: RestRelay, nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two read at a time; requests without a turn fail at the same time as those two."""
    monkeypatch.setattr("relay.history.reading.pages.TURN_S", 0.5)
    deep = f"/api/history/crash?limit=10&before={full.log.cursor(700)}"
    await full.get(deep)
    begun = time.monotonic()
    nats.freeze()
    try:
        answers = await asyncio.gather(*(full.get(deep) for _ in range(8)))
    finally:
        nats.thaw()

    assert {(answer.status, answer.json["code"]) for answer in answers} == {(503, "log_unavailable")}
    assert time.monotonic() - begun < 15  # in a queue it would take 20 s


async def _seen(relay: RestRelay, game: str, number: int) -> None:
    """Wait until the relay has round `number` of a game; asks repeatedly."""
    while (await relay.get(f"/api/latest/{game}")).json.get("round_id") != number:
        pass
