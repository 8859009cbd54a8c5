"""A relay in this process, on its own port and with the demo key; and rounds to store in its log."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY
from auth.revocations import Revocations
from auth.tokens import TokenSigner
from relay.config.key_stores import FollowedStores
from relay.config.sections import HttpSettings
from relay.config.settings import Settings
from relay.http.monitoring import scrapes
from relay.serve import running_relay
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import open_log
from rounds import Round, log_subject
from tests.nats import NatsServer
from tests.waiting import until

KEY_HEADER = {"X-API-Key": DEMO_KEY}

StartRelay = Callable[..., Any]
Publish = Callable[..., Awaitable[list[int]]]


def make_round(game: str, number: int, *, extras: str = '{"point":"2.50"}') -> Round:
    return Round.make(
        round_id=number,
        game_slug=game,
        game_type="multiplier",
        finished_at="2026-01-18T10:00:30Z",
        extras=extras,
        timestamp=1768730430000,
    )


@pytest.fixture
def start_relay(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> StartRelay:
    """Start a relay: ``async with start_relay(links={...}) as url``. Arguments are sections of the settings.

    `nats_url` is another address of NATS; without `ready` the relay is yielded before it is ready. With
    `follow_stores`, the key stores of the section ``auth`` are followed too. Metrics are read at each scrape.
    """
    monkeypatch.setattr(scrapes, "FRESH_S", 0.0)

    @asynccontextmanager
    async def start(
        *,
        keys: KeyRing | None = None,
        signer: TokenSigner | None = None,
        nats_url: str | None = None,
        ready: bool = True,
        follow_stores: bool = False,
        **sections: Any,
    ) -> AsyncIterator[str]:
        sections.setdefault("http", HttpSettings(host="127.0.0.1", port=0))
        sections.setdefault("grpc", {"host": "127.0.0.1", "port": 0})
        sections.setdefault("drain", {"grace_s": 1, "margin_s": 1})
        settings = Settings(nats=LogSettings(url=nats_url or nats.url), **sections)
        ring = KeyRing.demo() if keys is None else keys
        revocations = Revocations()
        stores = FollowedStores(ring, settings.auth, settings.nats, revocations) if follow_stores else None
        async with running_relay(
            settings, ring, signer or TokenSigner.ephemeral(), revocations=revocations, stores=stores
        ) as at:
            if ready:
                await wait_ready(at.url)
            yield at.url

    return start


@pytest.fixture
async def relay(start_relay: StartRelay) -> AsyncIterator[str]:
    """The URL of a running relay."""
    async with start_relay() as url:
        yield url


@pytest.fixture
async def publish(nats: NatsServer) -> AsyncIterator[Publish]:
    """Store rounds in the log: ``await publish("crash", 1, 2, 3)``; returns their sequences."""
    settings = LogSettings(url=nats.url)
    async with connect(settings, name="test") as nc:
        await open_log(nc, settings)
        stream = nc.client.jetstream()

        async def put(game: str, *numbers: int, extras: str = '{"point":"2.50"}') -> list[int]:
            return [
                (await stream.publish(log_subject(game), make_round(game, number, extras=extras).to_json())).seq
                for number in numbers
            ]

        yield put


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP client."""
    async with aiohttp.ClientSession() as session:
        yield session


async def wait_ready(url: str, *, within_s: float = 20) -> None:
    """Wait until the relay is ready."""
    async with aiohttp.ClientSession() as session:

        async def is_ready() -> bool:
            async with session.get(f"{url}/readyz") as response:
                return response.status == 200

        await until(is_ready, within_s=within_s)


async def token_of(client: aiohttp.ClientSession, url: str, key: str = DEMO_KEY) -> str:
    async with client.post(f"{url}/api/auth/token", headers={"X-API-Key": key}) as response:
        assert response.status == 200, await response.text()
        token = (await response.json())["token"]
        assert isinstance(token, str)
        return token


async def metric(client: aiohttp.ClientSession, url: str, name: str) -> float:
    """Read a metric of the relay."""
    async with client.get(f"{url}/metrics") as response:
        for line in (await response.text()).splitlines():
            if line.startswith(f"{name} "):
                return float(line.removeprefix(f"{name} "))
    raise AssertionError(f"no metric {name}")


async def metric_becomes(
    client: aiohttp.ClientSession, url: str, name: str, value: float, *, within_s: float = 20
) -> None:
    """Wait until a metric of the relay is `value`."""

    async def has_value() -> bool:
        return await metric(client, url, name) == value

    await until(has_value, within_s=within_s)
