"""Calls that fail: their code, message, and trailing metadata."""

import asyncio
from typing import Any, Final

import aiohttp
import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from grpc import StatusCode, aio

from auth.key_secret import DEMO_KEY
from relay.history.query import HistoryPage
from relay.rpc import methods
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.rpc.caller import SERVICE, Caller, status_of
from tests.rpc.conftest import DICE_KEY, PUBLIC_KEY, GrpcRelay, Publish, StartRelay, keys

pytestmark = pytest.mark.service

ONE_OF_EACH: Final[list[Message]] = [
    pb.StreamByGameRequest(game_slug="crash"),
    pb.StreamByTypeRequest(game_type="multiplier"),
    pb.StreamAllRequest(),
    pb.ReplayRequest(),
    pb.GetLatestRequest(game_slug="crash"),
    pb.GetHistoryRequest(game_slug="crash"),
    pb.ListGamesRequest(),
]


def name_of(request: Message) -> str:
    return type(request).__name__.removesuffix("Request")


# --- credentials ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", ONE_OF_EACH, ids=name_of)
@pytest.mark.parametrize("key", [None, "sk_live_" + "1" * 64, "nonsense"], ids=["no_key", "wrong_key", "no_key_at_all"])
async def test_call_without_a_valid_key(relay: GrpcRelay, request_: Message, key: str | None) -> None:
    """UNAUTHENTICATED from every method; the message does not repeat the key."""
    async with relay.caller(key) as calling:
        refusal = await calling.failure(request_)

    assert refusal.code is StatusCode.UNAUTHENTICATED
    assert refusal.message
    assert key is None or key not in refusal.message


async def test_key_in_authorization(relay: GrpcRelay) -> None:
    """`authorization: Bearer <key>` is the same as `x-api-key`."""
    async with relay.caller(None) as calling:
        calling.metadata = [("authorization", f"Bearer {DEMO_KEY}")]
        answer = await calling.ask(pb.ListGamesRequest())

    assert "crash" in {game.slug for game in answer.games}


async def test_two_different_keys(relay: GrpcRelay) -> None:
    """The request is ambiguous."""
    async with relay.caller() as calling:
        calling.metadata.append(("authorization", f"Bearer {DICE_KEY}"))
        refusal = await calling.failure(pb.ListGamesRequest())

    assert refusal.code is StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "request_",
    [
        pb.StreamByGameRequest(game_slug="crash"),
        pb.StreamByTypeRequest(game_type="color"),
        pb.ReplayRequest(game_slugs=["dice", "crash"]),
        pb.GetLatestRequest(game_slug="crash"),
        pb.GetHistoryRequest(game_slug="crash"),
    ],
    ids=name_of,
)
async def test_key_for_another_game(start_relay: StartRelay, request_: Message) -> None:
    """PERMISSION_DENIED when the key does not cover a game of the request."""
    async with start_relay(keys=keys()) as relay, relay.caller(DICE_KEY) as calling:
        refusal = await calling.failure(request_)

    assert refusal.code is StatusCode.PERMISSION_DENIED


async def test_key_for_one_game_sees_that_one(start_relay: StartRelay, publish: Publish) -> None:
    """All games are those of the key: in streams, in the list, and in history."""
    async with start_relay(keys=keys()) as relay, relay.caller(DICE_KEY) as calling:
        async with calling.stream(pb.StreamAllRequest()) as call:
            await publish("crash", 1)
            await publish("dice", 2)
            round_ = await call.read()
        games = await calling.ask(pb.ListGamesRequest())
        past = await calling.ask(pb.GetHistoryRequest())

    assert round_.game_slug == "dice"
    assert [game.slug for game in games.games] == ["dice"]
    assert [found.game_slug for found in past.rounds] == ["dice"]


async def test_public_key_without_an_origin(start_relay: StartRelay) -> None:
    """A page's key is valid with its origin only."""
    async with start_relay(keys=keys()) as relay, relay.caller(PUBLIC_KEY) as calling:
        refusal = await calling.failure(pb.ListGamesRequest())
        calling.metadata.append(("origin", "https://example.com"))
        answer = await calling.ask(pb.ListGamesRequest())

    assert refusal.code is StatusCode.PERMISSION_DENIED
    assert answer.games


# --- requests ------------------------------------------------------------------------------------------------------

WRONG: Final[list[tuple[Message, StatusCode, str]]] = [
    (pb.StreamByGameRequest(game_slug="nope"), StatusCode.NOT_FOUND, "'nope'"),
    (pb.StreamByTypeRequest(game_type="nope"), StatusCode.NOT_FOUND, "'nope'"),
    (pb.ReplayRequest(game_slugs=["nope"]), StatusCode.NOT_FOUND, "'nope'"),
    (pb.GetLatestRequest(game_slug="nope"), StatusCode.NOT_FOUND, "'nope'"),
    (pb.GetLatestRequest(game_slug="pipa-brazil"), StatusCode.NOT_FOUND, "no round yet"),
    (pb.GetHistoryRequest(game_slug="nope"), StatusCode.NOT_FOUND, "'nope'"),
    (pb.StreamByGameRequest(), StatusCode.INVALID_ARGUMENT, "game_slug"),
    (pb.StreamByTypeRequest(), StatusCode.INVALID_ARGUMENT, "game_type"),
    (pb.GetLatestRequest(), StatusCode.INVALID_ARGUMENT, "game_slug"),
    (pb.ReplayRequest(game_slugs=[""]), StatusCode.INVALID_ARGUMENT, "empty"),
    (pb.StreamAllRequest(after="where I was"), StatusCode.INVALID_ARGUMENT, "'where I was'"),
    (pb.ReplayRequest(after="where I was"), StatusCode.INVALID_ARGUMENT, "'where I was'"),
    (pb.StreamAllRequest(after="a-1", start=pb.Start(after="a-2")), StatusCode.INVALID_ARGUMENT, "differ"),
    (pb.StreamAllRequest(after="a-1", start=pb.Start(last=2)), StatusCode.INVALID_ARGUMENT, "one beginning"),
    (pb.StreamAllRequest(start=pb.Start(last=10_001)), StatusCode.INVALID_ARGUMENT, "10001"),
    (pb.StreamAllRequest(start=pb.Start(speed=-1)), StatusCode.INVALID_ARGUMENT, "-1"),
    (pb.StreamAllRequest(start=pb.Start(speed=float("nan"))), StatusCode.INVALID_ARGUMENT, "nan"),
    (
        pb.StreamAllRequest(start=pb.Start(from_time=Timestamp(seconds=2), to_time=Timestamp(seconds=1))),
        StatusCode.INVALID_ARGUMENT,
        "from_time",
    ),
    (
        pb.GetHistoryRequest(from_time=Timestamp(seconds=2), to_time=Timestamp(seconds=1)),
        StatusCode.INVALID_ARGUMENT,
        "from_time 2",
    ),
    (pb.StreamAllRequest(filter=pb.Filter(min_point=2, max_point=1)), StatusCode.INVALID_ARGUMENT, "min_point 2"),
    (pb.StreamAllRequest(filter=pb.Filter(min_point=float("inf"))), StatusCode.INVALID_ARGUMENT, "'inf'"),
    (pb.GetHistoryRequest(limit=1001), StatusCode.INVALID_ARGUMENT, "1001"),
    (pb.GetHistoryRequest(game_slug="crash", game_type="multiplier"), StatusCode.INVALID_ARGUMENT, "both"),
    (pb.GetHistoryRequest(before="k3f9a2-1"), StatusCode.OUT_OF_RANGE, "k3f9a2-1"),
    (pb.GetHistoryRequest(after="k3f9a2-1"), StatusCode.OUT_OF_RANGE, "k3f9a2-1"),
    (pb.ReplayRequest(after="k3f9a2-1"), StatusCode.OUT_OF_RANGE, "k3f9a2-1"),
]


async def test_invalid_requests(caller: Caller) -> None:
    """The code is that of a client error; the message names the value."""
    for request, code, said in WRONG:
        refusal = await caller.failure(request)

        assert refusal.code is code, f"{request}: {refusal}"
        assert said in refusal.message, f"{request}: {refusal}"
        assert ("first-cursor" in refusal.trailers) is (code is StatusCode.OUT_OF_RANGE), f"{request}: {refusal}"


async def test_request_that_is_no_protobuf(relay: GrpcRelay) -> None:
    """INVALID_ARGUMENT names the expected message."""
    async with relay.caller() as calling:
        call: Any = calling.channel.unary_unary(f"/{SERVICE}/GetLatest")
        with pytest.raises(aio.AioRpcError) as failed:
            await call(b"\xff\xff\xff", metadata=calling.metadata)

    assert failed.value.code() is StatusCode.INVALID_ARGUMENT
    assert failed.value.details() == "the request is no datastream.GetLatestRequest message"


async def test_key_is_checked_before_the_request(relay: GrpcRelay) -> None:
    """Whatever else is wrong, the answer is UNAUTHENTICATED."""
    async with relay.caller(None) as calling:
        call: Any = calling.channel.unary_unary(f"/{SERVICE}/GetLatest")
        with pytest.raises(aio.AioRpcError) as failed:
            await call(b"\xff\xff\xff")

    assert failed.value.code() is StatusCode.UNAUTHENTICATED


async def test_request_of_ten_megabytes(relay: GrpcRelay) -> None:
    """It is refused before it was read to its end, and the connection still works."""
    async with relay.caller() as calling:
        refusal = await calling.failure(pb.GetLatestRequest(game_slug="x" * (10 << 20)))
        answer = await calling.ask(pb.ListGamesRequest())

    assert refusal.code is StatusCode.RESOURCE_EXHAUSTED
    assert answer.games


async def test_unknown_method(relay: GrpcRelay) -> None:
    """UNIMPLEMENTED."""
    async with relay.caller() as calling:
        call: Any = calling.channel.unary_unary(f"/{SERVICE}/Nope")
        with pytest.raises(aio.AioRpcError) as failed:
            await call(b"", metadata=calling.metadata)

    assert status_of(failed.value).code is StatusCode.UNIMPLEMENTED


# --- state of the relay --------------------------------------------------------------------------------------------


async def test_full_relay(start_relay: StartRelay) -> None:
    """RESOURCE_EXHAUSTED with a delay for this client; unary calls are still answered."""
    async with (
        start_relay(links={"max_links": 1}) as relay,
        relay.caller() as calling,
        calling.stream(pb.StreamAllRequest()),
    ):
        refusal = await calling.failure(pb.StreamAllRequest())
        replay = await calling.failure(pb.ReplayRequest())
        answer = await calling.ask(pb.ListGamesRequest())

    assert refusal.code is replay.code is StatusCode.RESOURCE_EXHAUSTED
    assert int(refusal.trailers["retry-after-ms"]) >= 2000
    assert answer.games


async def test_too_many_calls_at_a_time(start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unary calls are bounded, over gRPC and the proxy together: RESOURCE_EXHAUSTED with a delay."""
    waiting = asyncio.Event()
    asked = asyncio.Queue[None]()

    async def look_back(*_: object) -> HistoryPage:
        asked.put_nowait(None)
        await waiting.wait()
        return HistoryPage([], None, True)

    monkeypatch.setattr(methods, "look_back", look_back)
    async with (
        start_relay(grpc={"answers": 2}) as relay,
        relay.caller() as calling,
        aiohttp.ClientSession(headers={"X-API-Key": DEMO_KEY}) as http,
    ):
        held = [asyncio.create_task(calling.ask(pb.GetHistoryRequest())) for _ in range(2)]
        for _ in held:
            await asked.get()
        refusal = await calling.failure(pb.ListGamesRequest())
        async with http.post(relay.proxy("ListGames"), json={}) as response:
            proxied = response.status, (await response.json())["code"]
        async with calling.stream(pb.StreamAllRequest()):
            pass
        waiting.set()
        await asyncio.gather(*held)
        answer = await calling.ask(pb.ListGamesRequest())

    assert refusal.code is StatusCode.RESOURCE_EXHAUSTED
    assert int(refusal.trailers["retry-after-ms"]) > 0
    assert proxied == (429, "resource_exhausted")
    assert answer.games


async def test_relay_without_its_log(start_relay: StartRelay, nats: NatsServer) -> None:
    """UNAVAILABLE and a delay, from streams and unary calls."""
    async with start_relay() as relay, relay.caller() as calling:
        await nats.kill()
        await relay.metric_becomes("relay_ready", 0)
        for request in ONE_OF_EACH:
            refusal = await calling.failure(request)

            assert refusal.code is StatusCode.UNAVAILABLE, refusal
            assert int(refusal.trailers["retry-after-ms"]) >= 1000


async def test_deadline_of_a_stream(relay: GrpcRelay) -> None:
    """A stream ends at the deadline of its client, and its permit is free."""
    async with relay.caller() as calling:
        refusal = await calling.failure(pb.StreamAllRequest(), timeout_s=0.3)
        await relay.metric_becomes("relay_links", 0)

    assert refusal.code is StatusCode.DEADLINE_EXCEEDED
