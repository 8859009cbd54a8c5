"""A relay whose keys are in a store: changes reach open doors at once, and a store that is away closes them in time."""

import asyncio
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from pydantic import SecretStr

from auth.key import Key, Limits
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.stores.nats_keys import NatsKeys
from relay.config.sections import AuthSettings
from roundlog.log_settings import LogSettings
from roundlog.tasks import cancel_and_wait
from tests.auth.stores.making import toml_of
from tests.nats import NatsServer
from tests.relay.conftest import StartRelay
from tests.waiting import until

pytestmark = pytest.mark.service


def made(key_id: str, **members: object) -> tuple[str, Key]:
    secret = generate("private")[0]
    return secret, Key(key_id, "private", secrets=(stored(secret),), **members)  # type: ignore[arg-type]


async def status(url: str, secret: str, path: str = "/api/games") -> int:
    async with aiohttp.ClientSession() as http, http.get(url + path, headers={"X-API-Key": secret}) as response:
        return response.status


async def readiness(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(f"{url}/readyz") as response:
        return response.status, await response.text()


async def test_relay_waits_for_the_first_key_and_follows_every_change(
    nats: NatsServer, start_relay: StartRelay
) -> None:
    """Without a bucket it is not ready and says what to do; then keys come, narrow and go while it runs."""
    store = NatsKeys(LogSettings(url=nats.url))
    secret, key = made("partner")
    auth = AuthSettings(store="nats")
    async with start_relay(keys=KeyRing(), follow_stores=True, auth=auth, ready=False) as url:

        async def says_why() -> bool:
            return "stream-relay key create" in (await readiness(url))[1]

        await until(says_why)
        code, text = await readiness(url)
        assert code == 503
        assert "key_store_unavailable" in text
        assert await status(url, secret) == 503  # it may be a key of the store

        revision = await store.write(key, revision=0)
        await until(lambda: _has(status(url, secret), 200))
        assert (await readiness(url))[0] == 200
        assert await status(url, secret, "/api/latest/dice") == 404  # no round yet

        revision = await store.write(replace(key, types=frozenset({"color"})), revision=revision)
        await until(lambda: _has(status(url, secret, "/api/latest/dice"), 403))
        assert await status(url, secret, "/api/latest/double") == 404

        revision = await store.write(replace(key, disabled=True), revision=revision)
        await until(lambda: _has(status(url, secret), 401))

        revision = await store.write(key, revision=revision)
        await until(lambda: _has(status(url, secret), 200))

        await store.delete("partner", revision=revision)
        await until(lambda: _has(status(url, secret), 401))


async def test_store_changes_and_rotation_under_load_refuse_no_client(
    nats: NatsServer, start_relay: StartRelay
) -> None:
    """Clients loop with the newest secret they were given, while keys are added, removed and rotated."""
    store = NatsKeys(LogSettings(url=nats.url))
    secret, key = made("partner", limits=Limits(requests_per_min=10**9))
    revision = await store.write(key, revision=0)
    statuses: list[int] = []
    async with start_relay(keys=KeyRing(), follow_stores=True, auth=AuthSettings(store="nats")) as url:
        current = secret

        async def loop() -> None:
            async with aiohttp.ClientSession(url) as http:
                while True:
                    async with http.get("/api/games", headers={"X-API-Key": current}) as response:
                        statuses.append(response.status)

        clients = [asyncio.create_task(loop()) for _ in range(4)]
        for number in range(15):
            other = made(f"other{number}")[1]
            await store.write(other, revision=0)
            new = generate("private")[0]
            key = replace(key, secrets=(stored(new), *key.secrets[:1]))
            revision = await store.write(key, revision=revision)
            await until(lambda new=new: _has(status(url, new), 200))  # type: ignore[misc]
            current = new  # clients get it while the one before is still valid
            seen = len(statuses)
            await until(lambda seen=seen: len(statuses) > seen + 8)  # type: ignore[misc]
        await cancel_and_wait(*clients)
        assert await status(url, secret) == 401
    assert set(statuses) == {200}
    assert len(statuses) > 100


@pytest.fixture
def file_settings(tmp_path: Path) -> AuthSettings:
    """A file store that may be away for half a second; the smallest that an operator can set is 5 s."""
    return AuthSettings(keys_file=tmp_path / "keys.toml").model_copy(update={"stale_s": 0.5})


async def test_store_that_is_away_too_long_refuses_new_requests_and_links(
    start_relay: StartRelay, file_settings: AuthSettings
) -> None:
    """503 with a code of its own, an event stream that ends with ``retry``, not ready; keys of others still work."""
    assert file_settings.keys_file is not None
    secret, key = made("in-file")
    static_secret, static = made("in-environment")
    file_settings.keys_file.write_text(toml_of(key))
    auth = file_settings.model_copy(update={"keys": SecretStr(f"x={_hash(static)}")})
    ring = KeyRing([key, replace(static, id="x", secrets=(replace(static.secrets[0], prefix=""),))])
    async with start_relay(keys=ring, follow_stores=True, auth=auth) as url, aiohttp.ClientSession(url) as http:
        headers = {"X-API-Key": secret}
        assert await status(url, secret) == 200
        async with http.ws_connect("/ws/crash", headers=headers) as ws:
            file_settings.keys_file.unlink()
            assert await status(url, secret) == 200  # for a while
            await until(lambda: _has(status(url, secret), 503))

            async with http.get("/api/games", headers=headers) as response:
                assert (await response.json())["code"] == "key_store_unavailable"
                assert int(response.headers["Retry-After"]) >= 1
            async with http.post("/api/auth/token", headers=headers) as response:
                assert response.status == 503
            async with http.get("/sse/crash", headers=headers) as response:
                assert (response.status, (await response.text())[:7]) == (200, "retry: ")
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await http.ws_connect("/ws/crash", headers=headers)
            assert caught.value.status == 503
            assert await status(url, static_secret) == 200
            assert "key_store_unavailable" in (await readiness(url))[1]
            async with http.get("/metrics") as response:
                metrics = await response.text()
            assert 'relay_key_store_usable{store="file"} 0.0' in metrics
            assert 'relay_key_store_usable{store="env"} 1.0' in metrics
            assert 'relay_refused_total{protocol="sse",reason="key_store_unavailable"} 1.0' in metrics

            file_settings.keys_file.write_text(toml_of(key))
            await until(lambda: _has(status(url, secret), 200))
            assert (await readiness(url))[0] == 200
            assert not ws.closed  # open links stay


async def test_private_key_of_a_browser_gets_a_warning_in_every_answer(start_relay: StartRelay) -> None:
    """A header that pages can read; refused where the settings say so."""
    secret, key = made("partner")
    headers = {"X-API-Key": secret, "Origin": "https://page.example"}
    async with start_relay(keys=KeyRing([key])) as url, aiohttp.ClientSession(url) as http:
        async with http.get("/api/games", headers=headers) as response:
            assert "private key" in response.headers["X-Key-Warning"]
            assert "X-Key-Warning" in response.headers["Access-Control-Expose-Headers"]
        async with http.get("/sse/crash", headers=headers) as response:
            assert response.status == 200
            assert "X-Key-Warning" in response.headers
        async with http.post("/api/auth/token", headers={"X-API-Key": secret}) as response:
            assert "X-Key-Warning" not in response.headers
            token = (await response.json())["token"]
        async with http.ws_connect("/ws/crash", protocols=[token], origin="https://page.example") as ws:
            assert "X-Key-Warning" not in ws._response.headers
        async with http.ws_connect("/ws/crash", headers=headers) as ws:
            assert "X-Key-Warning" in ws._response.headers
    settings = AuthSettings(private_in_browsers="refuse")
    async with start_relay(keys=KeyRing([key]), auth=settings) as url, aiohttp.ClientSession(url) as http:
        for path in ("/api/games", "/sse/crash", "/ws/crash"):
            async with http.get(path, headers=headers | _UPGRADE) as response:
                assert (response.status, (await response.json())["code"]) == (403, "private_key_in_browser")
        assert await status(url, secret) == 200


_UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def _has(answer: "asyncio.Future[int] | object", wanted: int) -> bool:
    return bool(await answer == wanted)  # type: ignore[misc]


def _hash(key: Key) -> str:
    return f"sha256:{key.secrets[0].digest.hex()}"
