"""Corrections over gRPC, Connect and gRPC-Web: for requests with `corrections`, and for no others."""

import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
import pytest
from google.protobuf.message import Message
from grpc import StatusCode

from auth.key_secret import DEMO_KEY
from roundlog.log_settings import LogSettings
from rounds import Round
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.resume.log_writer import LogWriter, make_correction, make_round
from tests.rpc.caller import Caller, read, read_to_end
from tests.rpc.conftest import DICE_KEY, GrpcRelay, StartRelay, keys
from tests.rpc.envelopes import element, envelope

pytestmark = pytest.mark.service

Entry = tuple[str, int, int, bool]
"""A game, a round's id, a revision (0: the round itself), and whether it is voided."""


@pytest.fixture
async def log(nats: NatsServer) -> AsyncIterator[LogWriter]:
    async with LogWriter.open(LogSettings(url=nats.url)) as writer:
        yield writer


@pytest.fixture
async def caller(log: LogWriter, start_relay: StartRelay) -> AsyncIterator[Caller]:
    """grpcio at a relay that holds few rounds in memory."""
    async with start_relay(replay={"ring_rounds": 20}) as relay, relay.caller() as calling:
        yield calling


def seen(messages: Iterable[pb.Round]) -> list[Entry]:
    return [(each.game_slug, each.round_id, each.revision, each.voided) for each in messages]


def entries(stored: Iterable[Round], *, game: str | None = None, corrections: bool = True) -> list[Entry]:
    return [
        (each.game_slug, each.round_id, 0 if each.revision == 1 else each.revision, each.voided)
        for each in stored
        if game in (None, each.game_slug) and (corrections or each.revision == 1)
    ]


def story() -> list[Round]:
    """200 rounds of two games; each tenth is corrected, and then voided."""
    stored: list[Round] = []
    for number in range(1, 101):
        stored += [make_round("crash", number), make_round("dice", number)]
        if number % 10 == 0:
            stored += [make_correction("crash", number - 1), make_correction("crash", number - 1, 3, voided=True)]
            stored.append(make_correction("dice", number))
    return stored


def streams(**fields: Any) -> list[tuple[Message, str | None]]:
    """One request of each streaming method, with these fields."""
    return [
        (pb.StreamByGameRequest(game_slug="crash", **fields), "crash"),
        (pb.StreamByTypeRequest(game_type="multiplier", **fields), None),
        (pb.StreamAllRequest(**fields), None),
        (pb.StreamAllRequest(game_slugs=["dice"], **fields), "dice"),
    ]


async def test_streams_replay_corrections_and_join_live(caller: Caller, log: LogWriter) -> None:
    """After a cursor, of the last rounds, and live; without the field there are none."""
    stored, later = story(), [make_round("crash", 900), make_correction("crash", 1), make_round("dice", 900)]
    await log.store_many(stored)
    starts = ((pb.Start(after=log.cursor(0)), 0), (pb.Start(last=6), len(stored) - 15))
    for start, begin in starts:
        for asks in (True, False):
            for request, game in streams(start=start, corrections=asks):
                expected = entries(stored[begin:], game=game, corrections=asks)
                async with caller.stream(request) as call:
                    assert seen(await read(call, len(expected))) == expected, request

    opened = [
        (caller.call(request), entries(later, game=game, corrections=asks))
        for asks in (True, False)
        for request, game in streams(corrections=asks)
    ]
    for call, _ in opened:
        await call.initial_metadata()
    await log.store_many(later)
    for call, expected in opened:
        assert seen(await read(call, len(expected))) == expected
        call.cancel()


async def test_replay_in_bulk_has_corrections(caller: Caller, log: LogWriter) -> None:
    """Of one game, which is read by itself, and of all; whatever the filter; another program's entries are skipped."""
    stored = story()
    await log.store_many(stored)
    await log.store_raw("rounds.crash~corrections", make_round("crash", 1).to_json())
    await log.store_raw("rounds.crash", make_correction("crash", 1).to_json())

    for asks in (True, False):
        for slugs in (["crash"], []):
            game = slugs[0] if slugs else None
            request = pb.ReplayRequest(game_slugs=slugs, corrections=asks)
            batches, status = await read_to_end(caller.call(request))
            assert status is None
            found = seen(round_ for batch in batches for round_ in batch.rounds)
            assert found == entries(stored, game=game, corrections=asks)
    request = pb.ReplayRequest(game_slugs=["crash"], corrections=True, filter=pb.Filter(min_point=100))
    batches, _ = await read_to_end(caller.call(request))
    assert seen(round_ for batch in batches for round_ in batch.rounds) == [
        entry for entry in entries(stored, game="crash") if entry[2]
    ]


async def test_unary_methods_have_corrections(caller: Caller, log: LogWriter) -> None:
    """Pages of history to the end, and the newest revision of the newest round."""
    stored = story()
    await log.store_many(stored)

    for asks in (True, False):
        for fields, game in (({"game_slug": "crash"}, "crash"), ({"game_type": "multiplier"}, None), ({}, None)):
            found, before = [], ""
            while True:
                asked = pb.GetHistoryRequest(limit=50, before=before, corrections=asks, **fields)  # type: ignore[arg-type]
                page = await caller.ask(asked)
                found += page.rounds
                if not (before := page.next_before):
                    break
            assert seen(found[::-1]) == entries(stored, game=game, corrections=asks)
    for game, plain, corrected in (
        ("crash", ("crash", 100, 0, False), ("crash", 100, 0, False)),
        ("dice", ("dice", 100, 0, False), ("dice", 100, 2, False)),
    ):
        assert seen([await caller.ask(pb.GetLatestRequest(game_slug=game))]) == [plain]
        assert seen([await caller.ask(pb.GetLatestRequest(game_slug=game, corrections=True))]) == [corrected]


async def test_key_of_a_game_reads_its_corrections_and_no_others(log: LogWriter, start_relay: StartRelay) -> None:
    """By game, type and all; the log of the links names no other word for the game."""
    stored = story()
    await log.store_many(stored)
    async with start_relay(keys=keys()) as relay, relay.caller(DICE_KEY) as caller:
        expected = entries(stored, game="dice")
        for request in (
            pb.StreamByGameRequest(game_slug="dice", after=log.cursor(0), corrections=True),
            pb.StreamByTypeRequest(game_type="multiplier", after=log.cursor(0), corrections=True),
            pb.StreamAllRequest(after=log.cursor(0), corrections=True),
        ):
            async with caller.stream(request) as call:
                assert seen(await read(call, len(expected))) == expected
        for refused in (
            pb.StreamByGameRequest(game_slug="crash", corrections=True),
            pb.StreamByGameRequest(game_slug="dice~corrections"),
            pb.StreamAllRequest(game_slugs=["dice~corrections"]),
            pb.GetLatestRequest(game_slug="dice~corrections"),
            pb.GetHistoryRequest(game_slug="crash~corrections", corrections=True),
        ):
            assert (await caller.failure(refused)).code is StatusCode.PERMISSION_DENIED
        games = await caller.ask(pb.ListGamesRequest())
        assert [(game.slug, game.last_round) for game in games.games] == [("dice", 100)]


async def test_connect_and_grpc_web(log: LogWriter, start_relay: StartRelay) -> None:
    """As JSON and as protobuf, in answers and in streams; a member that is no flag gets one sentence."""
    stored = [make_round("crash", 1), make_correction("crash", 1), make_correction("crash", 1, 3, voided=True)]
    await log.store_many(stored)
    headers = {"X-API-Key": DEMO_KEY}
    async with start_relay() as relay, aiohttp.ClientSession(headers=headers) as http:
        await _json_over_connect(relay, http, log)
        request = pb.StreamByGameRequest(game_slug="crash", after=log.cursor(0), corrections=True)
        for media in ("application/connect+proto", "application/grpc-web+proto"):
            asked = http.post(relay.proxy("StreamByGame"), headers={"Content-Type": media}, data=envelope(request))
            async with asked as response:
                found = [pb.Round.FromString((await element(response))[1]) for _ in stored]
            assert seen(found) == entries(stored)


async def _json_over_connect(relay: GrpcRelay, http: aiohttp.ClientSession, log: LogWriter) -> None:
    async def ask(method: str, **message: Any) -> Any:
        async with http.post(relay.proxy(method), json=message) as response:
            return await response.json()

    latest = await ask("GetLatest", game_slug="crash", corrections=True)
    assert (latest["round_id"], latest["revision"], latest["voided"]) == ("1", 3, True)
    latest = await ask("GetLatest", game_slug="crash")
    assert not {"revision", "voided"} & latest.keys()
    history = await ask("GetHistory", game_slug="crash", corrections=True)
    assert [(each.get("revision"), each.get("voided")) for each in history["rounds"]] == [
        (3, True),
        (2, None),
        (None, None),
    ]
    refused = await ask("GetLatest", game_slug="crash", corrections="yes")
    assert refused["message"] == 'corrections "yes" is not true or false'
    body = envelope(json.dumps({"game_slug": "crash", "after": log.cursor(0), "corrections": True}).encode())
    media = {"Content-Type": "application/connect+json"}
    async with http.post(relay.proxy("StreamByGame"), headers=media, data=body) as response:
        found = [json.loads((await element(response))[1]) for _ in range(3)]
    assert [each.get("revision", 1) for each in found] == [1, 2, 3]
