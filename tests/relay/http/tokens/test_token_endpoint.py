"""The token endpoint of a running relay: narrowed tokens, our public keys, and what given clients send."""

import json
import time
from typing import Any

import aiohttp
import pytest

from auth.key import Key
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.signing.algorithms import SharedSecret
from auth.signing.signing_keys import SigningKeys
from auth.tokens import TokenSigner
from relay.http.tokens.token_routes import TokenRoutes
from tests.auth.identity.provider import private_key
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay

pytestmark = pytest.mark.service

SECRET, _ = generate("private")
KEY = Key("partner", "private", frozenset({"crash", "dice", "double"}), secrets=(stored(SECRET),))
HEADER = {"X-API-Key": SECRET}


async def ask(client: aiohttp.ClientSession, url: str, body: object = None, **more: Any) -> tuple[int, dict[str, Any]]:
    headers = more.pop("headers", HEADER)
    if body is not None:
        more["json"] = body
    async with client.post(f"{url}/api/auth/token", headers=headers, **more) as answer:
        return answer.status, await answer.json()


async def status_of(client: aiohttp.ClientSession, url: str, path: str, token: str) -> int:
    """Return the status of an event stream that is opened with a token."""
    async with client.get(f"{url}{path}", params={"token": token}) as answer:
        return answer.status


async def test_token_is_narrowed_to_games_and_types(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """A narrowed token opens what its request named; every value of the answer is a string."""
    async with start_relay(keys=KeyRing([KEY])) as url:
        for body, games in (
            ({"games": ["crash"]}, {"crash"}),
            ({"types": ["color"]}, {"double"}),
            ({"types": ["multiplier"]}, {"crash", "dice"}),
            ({"games": ["dice"], "types": ["color"]}, {"dice", "double"}),
        ):
            status, answer = await ask(client, url, body)
            assert status == 200
            assert {type(value) for value in answer.values()} == {str}
            assert set(answer["games"].split(",")) == games
            for game in ("crash", "dice", "double"):
                opened = await status_of(client, url, f"/sse/{game}?to=2020-01-01T00:00:00Z", answer["token"])
                assert (opened == 200) == (game in games), (body, game, opened)


async def test_token_is_never_wider_than_its_key(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """Games that the key does not cover are refused, alone and beside others; so are types without a game of it."""
    async with start_relay(keys=KeyRing([KEY])) as url:
        for body, statuses in (
            ({"games": ["plinko"]}, {403, 404}),
            ({"games": ["crash", "plinko"]}, {403, 404}),
            ({"games": ["no-such-game"]}, {403, 404}),
            ({"games": ["*"]}, {403, 404}),
            ({"types": ["slots"]}, {403}),
            ({"types": ["no-such-type"]}, {403}),  # as for one that it does not cover
            ({"games": ["crash"], "types": ["slots"]}, {403}),
        ):
            status, answer = await ask(client, url, body)
            assert status in statuses, (body, answer)
            assert answer["success"] is False


async def test_token_dies_with_a_narrowed_and_a_disabled_key(
    start_relay: StartRelay, client: aiohttp.ClientSession
) -> None:
    """What counts is what the key allows when the token is used."""
    keys = KeyRing([KEY])
    async with start_relay(keys=keys) as url:
        _, answer = await ask(client, url)
        keys.change({"partner": Key("partner", "private", frozenset({"dice"}), secrets=KEY.secrets)})
        assert await status_of(client, url, "/sse/dice?to=2020-01-01T00:00:00Z", answer["token"]) == 200
        assert await status_of(client, url, "/sse/crash?to=2020-01-01T00:00:00Z", answer["token"]) in (403, 404)
        keys.change({"partner": Key("partner", "private", secrets=(stored(generate("private")[0]),))})
        assert await status_of(client, url, "/sse/dice?to=2020-01-01T00:00:00Z", answer["token"]) == 401
        keys.change({"partner": Key("partner", "private", secrets=KEY.secrets, disabled=True)})
        assert await status_of(client, url, "/sse/dice?to=2020-01-01T00:00:00Z", answer["token"]) == 401
        assert (await ask(client, url))[0] == 401


async def test_life_is_what_was_asked_for(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """Shorter, never longer."""
    async with start_relay(keys=KeyRing([KEY])) as url:
        status, answer = await ask(client, url, {"ttl_s": 5})
        expires = time.strptime(answer["expires_at"], "%Y-%m-%dT%H:%M:%SZ")
        ahead_s = time.mktime(expires) - time.timezone - time.time()

        assert status == 200
        assert 3 < ahead_s <= 5
        assert (await ask(client, url, {"ttl_s": 3600}))[0] == 400


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"json": {}},
        {"data": b"", "headers": HEADER | {"Content-Type": "application/json"}},
        {"data": {"api_key": "x"}},
        {"data": b"x" * 4000},
        {"json": {"client": "given", "version": 1}},
    ],
)
async def test_given_clients_get_the_token_of_their_key(
    start_relay: StartRelay, client: aiohttp.ClientSession, request_: dict[str, Any]
) -> None:
    """No body, an empty one, a form: the answer has the two given members and nothing else."""
    async with start_relay(keys=KeyRing([KEY])) as url:
        status, answer = await ask(client, url, **request_)

        assert status == 200
        assert answer.keys() == {"token", "expires_at"}


async def test_long_body_is_refused(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """As before: nothing over 4 KB is read."""
    async with start_relay(keys=KeyRing([KEY])) as url:
        status, answer = await ask(client, url, {"games": ["crash"] * 1000})

        assert (status, answer["code"]) == (413, "too_large")


async def test_key_set_has_our_public_keys(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """Cacheable, without a credential, without secrets; and a token that a third party verifies with it."""
    key = private_key("EdDSA")
    signer = TokenSigner(SigningKeys.of([("a1", key), ("k1", SharedSecret(b"x" * 32))]))
    async with start_relay(signer=signer) as url:
        async with client.get(f"{url}/.well-known/jwks.json", headers={"Origin": "https://a.example"}) as answer:
            assert answer.status == 200
            assert answer.headers["Cache-Control"] == "public, max-age=300"
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            published = await answer.json()
        _, made = await ask(client, url, headers=KEY_HEADER)
    assert published == {"keys": [{**key.jwk(), "kid": "a1", "alg": "EdDSA", "use": "sig"}]}
    assert "d" not in published["keys"][0]

    import jwt

    verifier = jwt.PyJWKSet.from_dict(published)["a1"]
    claims = jwt.decode(made["token"], verifier, algorithms=["EdDSA"], audience="stream", issuer="stream-relay")
    assert claims["sub"] == "demo"


async def test_key_set_is_empty_with_shared_secrets(relay: str, client: aiohttp.ClientSession) -> None:
    """A set without keys, rather than 404: a verifier then refuses all, and says so."""
    async with client.get(f"{relay}/.well-known/jwks.json") as answer:
        assert (answer.status, await answer.json()) == (200, {"keys": []})


async def test_narrowed_token_opens_a_websocket_to_its_games(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """Without a game in its path, the link has the games of the token; a message cannot add others."""
    await publish("dice", 1)
    await publish("crash", 2)
    async with start_relay(keys=KeyRing([KEY])) as url:
        _, answer = await ask(client, url, {"games": ["crash"]})
        async with client.ws_connect(f"{url}/ws?last=5", protocols=[answer["token"]]) as ws:
            assert json.loads(await ws.receive_str())["game_slug"] == "crash"
            await ws.send_json({"action": "subscribe", "games": ["dice"]})
            closed = await ws.receive()
            while closed.type is aiohttp.WSMsgType.TEXT:
                closed = await ws.receive()
            assert closed.type is aiohttp.WSMsgType.CLOSE
            assert closed.data == 1008


def test_routes_can_be_listed() -> None:
    """Without a relay behind them."""
    nothing: Any = None
    assert [route.path for route in TokenRoutes(nothing, nothing).table()] == [
        "/api/auth/token",
        "/.well-known/jwks.json",
    ]
