"""A key of some games cannot tell, on any protocol, whether another game or type exists."""

from typing import Any

import aiohttp
import grpc
import pytest

from auth.key import Key
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from rounds import datastream_pb2 as pb
from tests.rpc.conftest import GrpcRelay, StartRelay

pytestmark = pytest.mark.service

SECRET = generate("private")[0]
HEADERS = {"X-API-Key": SECRET}
KEYS = (Key("some", "private", frozenset({"crash", "gone"}), secrets=(stored(SECRET),)),)


async def over_http(relay: GrpcRelay, name: str) -> list[Any]:
    """Ask for a game and a type of this name in every way; return all answers, without the name."""
    found: list[Any] = []
    paths = [f"/api/latest/{name}", f"/api/history/{name}", f"/api/history?games=crash,{name}"]
    paths += [f"/api/history/type/{name}"]
    for protocol in ("sse", "ws"):
        paths += [f"/{protocol}/{name}", f"/{protocol}?games={name}", f"/{protocol}/type/{name}"]
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    bodies = [("GetLatest", {"gameSlug": name}), ("GetHistory", {"gameType": name}), ("GetHistory", {"gameSlug": name})]
    async with aiohttp.ClientSession() as http:
        for path in paths:
            headers = HEADERS | (upgrade if path.startswith("/ws") else {})
            async with http.get(f"{relay.url}{path}", headers=headers) as response:
                found.append((path, response.status, await response.text()))
        for method, body in bodies:
            async with http.post(relay.proxy(method), json=body, headers=HEADERS) as response:
                found.append((method, response.status, await response.text()))
        async with http.get(f"{relay.url}/api/games", headers=HEADERS) as response:
            found.append(await response.text())
        async with http.ws_connect(f"{relay.url}/ws/crash", headers=HEADERS) as ws:
            await ws.send_json({"action": "subscribe", "games": [name]})
            message = await ws.receive()
            found.append((message.type, message.data, message.extra))
    return [_without(name, answer) for answer in found]


async def over_grpc(relay: GrpcRelay, name: str) -> list[Any]:
    found: list[Any] = []
    async with relay.caller(SECRET) as caller:
        for request in (
            pb.GetLatestRequest(game_slug=name),
            pb.GetHistoryRequest(game_slug=name),
            pb.GetHistoryRequest(game_type=name),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.ask(request)
            found.append((caught.value.code(), caught.value.details(), str(caught.value.trailing_metadata())))
        for streamed in (
            pb.StreamByGameRequest(game_slug=name),
            pb.StreamByTypeRequest(game_type=name),
            pb.StreamAllRequest(game_slugs=[name]),
            pb.ReplayRequest(game_slugs=["crash", name]),
        ):
            call = caller.call(streamed)
            found.append((await call.code(), await call.details()))
        found.append(str(await caller.ask(pb.ListGamesRequest())))
    return [_without(name, answer) for answer in found]


@pytest.mark.parametrize("over", [over_http, over_grpc])
async def test_game_and_type_of_others_look_like_none(start_relay: StartRelay, over: Any) -> None:
    """``dice`` and ``slots`` exist, ``dino`` and ``slits`` do not: all answers are the same, and list no other game."""
    ring = KeyRing()
    async with start_relay(keys=ring) as relay:
        ring.replace(KEYS)  # as a store does: at the start, a game that is not there would be an error
        answers = {name: await over(relay, name) for name in ("dice", "dino", "slots", "slits")}

        assert answers["dice"] == answers["dino"]
        assert answers["slots"] == answers["slits"]
        for text in map(str, answers.values()):
            assert not [game for game in ("plinko", "double", "fortune-dragon", "multiplier,") if game in text], text


def _without(name: str, answer: Any) -> str:
    return str(answer).replace(name, "NAME")
