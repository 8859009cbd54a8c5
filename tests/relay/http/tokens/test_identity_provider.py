"""Sign-in by an identity provider: a real server of keys, which rotates them, fails, and answers nonsense."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import aiohttp
import pytest
from aiohttp import web

from relay.config.identity_settings import IdentitySettings
from relay.errors import IdentityUnavailable
from relay.http.tokens.provider_keys import ProviderKeys
from tests.auth.identity.provider import AUDIENCE, ISSUER, Provider, private_key
from tests.relay.conftest import KEY_HEADER, StartRelay
from tests.waiting import until


class KeyServer:
    """Serves the keys of a provider over HTTP, or what a test puts in their place."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.answer: web.Response | None = None
        """What is answered in place of the keys."""
        self.headers: dict[str, str] = {}
        self.asked = 0
        self.gate = asyncio.Event()
        """Cleared: answers wait."""
        self.gate.set()
        self.url = ""

    async def keys(self, _request: web.Request) -> web.Response:
        self.asked += 1
        await self.gate.wait()
        if self.answer is not None:
            return web.Response(status=self.answer.status, body=self.answer.body, headers=self.answer.headers)
        return web.json_response(self.provider.key_set(), headers=self.headers)

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/keys", self.keys)
        app.router.add_get("/elsewhere", self.keys)
        self._runner = web.AppRunner(app, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/keys"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.gate.set()
        await self._runner.cleanup()


def settings_of(url: str, **more: Any) -> IdentitySettings:
    return IdentitySettings(jwks_url=url, issuer=ISSUER, audience=AUDIENCE, **{"keys_again_s": 60} | more)


@pytest.fixture
async def server() -> AsyncIterator[KeyServer]:
    async with KeyServer(Provider(p1=private_key())) as server:
        yield server


@asynccontextmanager
async def keys_of(url: str, **more: Any) -> AsyncIterator[ProviderKeys]:
    async with ProviderKeys(settings_of(url, **more)) as keys:
        yield keys


def again(keys: ProviderKeys) -> None:
    """Let the least time between two fetches have passed."""
    keys._asked_at -= 60


# --- fetching --------------------------------------------------------------------------------------------------------


async def test_keys_are_fetched_once_for_all_that_wait(server: KeyServer) -> None:
    """A thousand JWTs at a start cause one fetch."""
    async with keys_of(server.url) as keys:
        found = await asyncio.gather(*(keys.find("p1", "ES256") for _ in range(1000)))

    assert all(found)
    assert server.asked == 1


async def test_new_key_is_fetched_when_it_is_first_seen(server: KeyServer) -> None:
    """A rotation at the provider needs nothing here, and the old key is forgotten."""
    async with keys_of(server.url) as keys:
        assert await keys.find("p1", "ES256")
        server.provider.keys = {"p2": private_key("EdDSA")}
        again(keys)
        assert await keys.find("p2", "EdDSA")
        assert not await keys.find("p1", "ES256")


async def test_unknown_keys_cause_few_fetches(server: KeyServer) -> None:
    """JWTs with random ids, from a hostile client, do not reach the provider each."""
    async with keys_of(server.url) as keys:
        for number in range(1000):
            assert not await keys.find(f"unknown-{number}", "ES256")

    assert server.asked == 1


async def test_provider_that_is_away_at_the_start_is_asked_again(server: KeyServer) -> None:
    """Until it answers, its JWTs cannot be checked; nothing else waits for it."""
    server.answer = web.Response(status=500)
    async with keys_of(server.url) as keys:
        with pytest.raises(IdentityUnavailable):
            await keys.find("p1", "ES256")
        server.answer = None
        again(keys)
        assert await keys.find("p1", "ES256")


async def test_keys_stay_while_the_provider_is_away(server: KeyServer) -> None:
    """For the stated time; then no JWT is accepted, since the provider could have taken a key back."""
    async with keys_of(server.url, keys_max_age_s=10, keys_stale_s=0) as keys:
        assert await keys.find("p1", "ES256")
        server.answer = web.Response(status=503)
        again(keys)
        keys._fetched_at -= 5
        assert await keys.find("p1", "ES256")
        keys._fetched_at -= 10
        with pytest.raises(IdentityUnavailable):
            await keys.find("p1", "ES256")
    server.answer = None
    async with keys_of(server.url, keys_max_age_s=10, keys_stale_s=3600) as keys:
        assert await keys.find("p1", "ES256")
        server.answer = web.Response(status=503)
        again(keys)
        keys._fetched_at -= 3000
        assert await keys.find("p1", "ES256")


async def test_keys_are_fetched_again_after_their_age(server: KeyServer) -> None:
    """A key that the provider takes back is accepted for that long at most; ``max-age`` shortens it."""
    server.headers = {"Cache-Control": "public, max-age=30"}
    async with keys_of(server.url, keys_max_age_s=600) as keys:
        assert await keys.find("p1", "ES256")
        server.provider.keys = {"p2": private_key()}
        again(keys)
        keys._fetched_at -= 25
        assert await keys.find("p1", "ES256")
        keys._fetched_at -= 10
        assert not await keys.find("p1", "ES256")


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=302, headers={"Location": "/elsewhere"}),
        web.Response(status=204),
        web.Response(status=404),
        web.Response(text="<html>sign in</html>", content_type="text/html"),
        web.Response(text='{"keys":[],"keys":[]}'),
        web.Response(text='{"keys":' + "[" * 100_000),
        web.Response(text=json.dumps({"keys": [{"kid": "x" * 300_000}]})),
        web.Response(body=b"\xff" * 1000),
    ],
    ids=["redirect", "nothing", "not found", "a page", "members twice", "nested", "long", "bytes"],
)
async def test_answer_that_is_no_key_set_changes_nothing(server: KeyServer, answer: web.Response) -> None:
    """Redirects are not followed: one could lead into the operator's own network."""
    async with keys_of(server.url) as keys:
        assert await keys.find("p1", "ES256")
        server.answer = answer
        server.provider.keys = {"p2": private_key()}
        again(keys)
        asked = server.asked
        assert not await keys.find("p2", "ES256")
        assert server.asked == asked + 1
        assert await keys.find("p1", "ES256")


async def test_provider_that_does_not_answer_is_given_up(server: KeyServer) -> None:
    """After the timeout; a client that leaves before does not end the fetch of the others."""
    server.gate.clear()
    async with keys_of(server.url, timeout_s=0.3) as keys:
        leaving = asyncio.create_task(keys.find("p1", "ES256"))
        await until(lambda: server.asked == 1)
        leaving.cancel()
        with pytest.raises(IdentityUnavailable):
            await keys.find("p1", "ES256")
        server.gate.set()
        again(keys)
        assert await keys.find("p1", "ES256")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"jwks_url": "http://login.example.com/keys"}, "https"),
        ({"jwks_url": "file:///etc/passwd"}, "https"),
        ({"jwks_url": "https://user:word@login.example.com/keys"}, "user or a password"),
        ({"jwks_url": "http://127.0.0.1.example.com/keys"}, "https"),
        ({"issuer": ""}, "must be set together; missing: issuer"),
        ({"audience": " "}, "must be set together; missing: audience"),
        ({"issuer": "stream-relay"}, "that of stream tokens"),
        ({"algorithms": "HS256"}, "algorithms is 'HS256'"),
        ({"algorithms": "none"}, "algorithms is 'none'"),
        ({"algorithms": "RS256,HS256"}, "algorithms is"),
        ({"algorithms": ""}, "algorithms is"),
        ({"default_limits": "links=many"}, "default_limits holds 'links=many'"),
        ({"default_limits": "link=1"}, "default_limits holds 'link=1'"),
    ],
)
def test_wrong_setting_has_its_sentence(changes: dict[str, str], says: str) -> None:
    """It says what is allowed."""
    with pytest.raises(ValueError, match=says):
        IdentitySettings.model_validate(
            {"jwks_url": "https://login.example.com/keys", "issuer": ISSUER, "audience": AUDIENCE} | changes
        )


# --- a relay ---------------------------------------------------------------------------------------------------------


async def sign_in(client: aiohttp.ClientSession, url: str, token: str, **more: Any) -> tuple[int, dict[str, Any]]:
    headers = {"Authorization": f"Bearer {token}"}
    async with client.post(f"{url}/api/auth/token", headers=headers, **more) as answer:
        return answer.status, await answer.json()


async def accepted(client: aiohttp.ClientSession, url: str, token: str) -> bool:
    return (await sign_in(client, url, token))[0] == 200


async def opened(client: aiohttp.ClientSession, url: str, game: str, token: str) -> int:
    async with client.get(f"{url}/sse/{game}?to=2020-01-01T00:00:00Z", params={"token": token}) as answer:
        return answer.status


@pytest.mark.service
async def test_identity_gets_a_stream_token_for_its_games(
    start_relay: StartRelay, client: aiohttp.ClientSession, server: KeyServer
) -> None:
    """What its claims grant, no more; narrower on request; and through a rotation at the provider."""
    async with start_relay(identity=settings_of(server.url, keys_again_s=0.1)) as url:
        status, answer = await sign_in(client, url, server.provider.token(games=["crash", "dice"]))
        assert status == 200
        assert {type(value) for value in answer.values()} == {str}
        assert [await opened(client, url, game, answer["token"]) == 200 for game in ("crash", "dice", "double")] == [
            True,
            True,
            False,
        ]
        _, narrow = await sign_in(client, url, server.provider.token(types=["color"]), json={"types": ["color"]})
        assert narrow["games"] == "double"
        assert await opened(client, url, "double", narrow["token"]) == 200
        assert await opened(client, url, "crash", narrow["token"]) != 200

        server.provider.keys = {"p2": private_key("RS256")}
        await until(lambda: accepted(client, url, server.provider.token()))
        old = Provider(p1=private_key())
        status, answer = await sign_in(client, url, old.token())
        assert (status, answer["code"]) == (401, "invalid_identity")


@pytest.mark.service
async def test_identity_that_covers_no_game_is_refused(
    start_relay: StartRelay, client: aiohttp.ClientSession, server: KeyServer
) -> None:
    """Games of other installations do not count, nor does a claim that is missing."""
    async with start_relay(identity=settings_of(server.url, keys_again_s=0.1)) as url:
        refused: list[dict[str, Any]] = [
            {"games": ["chess"]},
            {"games": []},
            {"without": "games"},
            {"types": ["no-such-type"], "games": []},
        ]
        for claims in refused:
            status, answer = await sign_in(client, url, server.provider.token(**claims))
            assert (status, answer["code"]) == (403, "not_allowed")
        status, answer = await sign_in(client, url, server.provider.token(), json={"games": ["dice"]})
        assert status in (403, 404)


@pytest.mark.service
@pytest.mark.parametrize("is_forged", [True, False], ids=["forged", "without games"])
async def test_identities_that_are_refused_are_wrong_credentials(
    start_relay: StartRelay, client: aiohttp.ClientSession, server: KeyServer, is_forged: bool
) -> None:
    """Too many of one address get 429; keys and other identities of that address are accepted."""
    limits = {"wrong_credentials_per_min": 5}
    async with start_relay(identity=settings_of(server.url), limits=limits) as url:
        wrong = Provider(p1=private_key()).token() if is_forged else server.provider.token(games=[])
        statuses = [(await sign_in(client, url, wrong))[0] for _ in range(7)]

        assert statuses == [401 if is_forged else 403] * 5 + [429] * 2
        more = await asyncio.gather(*[sign_in(client, url, wrong) for _ in range(60)])
        assert {status for status, _ in more} == {429}
        assert await accepted(client, url, server.provider.token())
        async with client.post(f"{url}/api/auth/token", headers=KEY_HEADER) as answer:
            assert answer.status == 200


@pytest.mark.service
async def test_relay_starts_and_serves_keys_without_its_provider(
    start_relay: StartRelay, client: aiohttp.ClientSession, server: KeyServer
) -> None:
    """JWTs get 503 with a delay until it is back."""
    server.answer = web.Response(status=500)
    async with start_relay(identity=settings_of(server.url, keys_again_s=0.1)) as url:
        async with client.post(f"{url}/api/auth/token", headers=KEY_HEADER) as answer:
            assert answer.status == 200
        async with client.post(
            f"{url}/api/auth/token", headers={"Authorization": f"Bearer {server.provider.token()}"}
        ) as answer:
            assert answer.status == 503
            assert "Retry-After" in answer.headers
            assert (await answer.json())["code"] == "identity_unavailable"
        server.answer = None
        await until(lambda: accepted(client, url, server.provider.token()))


@pytest.mark.service
async def test_jwt_opens_nothing_itself(
    start_relay: StartRelay, client: aiohttp.ClientSession, server: KeyServer
) -> None:
    """It is exchanged first; and a stream token is not exchanged for another one, which would have no end."""
    async with start_relay(identity=settings_of(server.url, keys_again_s=0.1)) as url:
        jwt = server.provider.token()
        _, made = await sign_in(client, url, jwt)
        for headers in ({"X-API-Key": jwt}, {"Authorization": f"Bearer {jwt}"}):
            async with client.get(f"{url}/api/games", headers=headers) as answer:
                assert answer.status == 401
        assert await opened(client, url, "crash", jwt) == 401
        assert (await sign_in(client, url, made["token"]))[0] == 401


@pytest.mark.service
async def test_without_a_provider_a_jwt_is_no_key(relay: str, client: aiohttp.ClientSession) -> None:
    """The sentence is that of a malformed key."""
    status, answer = await sign_in(client, relay, Provider().token())

    assert (status, answer["code"]) == (401, "invalid_credential")
