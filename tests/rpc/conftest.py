"""A relay in this process with its own gRPC port, rounds to store in its log, and grpcio to call it."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import pytest

from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY
from auth.tokens import TokenSigner
from relay.config.sections import HttpSettings
from relay.config.settings import Settings
from relay.http.monitoring import scrapes
from relay.serve import running_relay
from roundlog.client.connection import connect
from roundlog.log_settings import LogSettings
from roundlog.stream import open_log
from rounds import Round, log_subject
from tests.nats import NatsServer
from tests.relay.conftest import wait_ready
from tests.rpc.caller import Caller
from tests.waiting import until

READY_S: Final = 20.0
DICE_KEY: Final = "sk_live_" + "d" * 64
PUBLIC_KEY: Final = "pk_live_" + "e" * 64

StartRelay = Callable[..., Any]
Publish = Callable[..., Awaitable[list[int]]]
Rebuild = Callable[[], Awaitable[None]]
Outliving = Callable[["GrpcRelay"], Caller]


@dataclass(frozen=True, slots=True)
class GrpcRelay:
    """The addresses of a running relay."""

    url: str
    grpc_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"

    def proxy(self, method: str) -> str:
        """The URL of a method on the proxy."""
        return f"{self.url}/api/grpc/datastream.DataStream/{method}"

    def caller(self, key: str | None = DEMO_KEY) -> Caller:
        """grpcio, with a key."""
        return Caller(self.address, key)

    async def metric(self, name: str) -> float:
        """Read a metric of the relay."""
        async with aiohttp.ClientSession() as http, http.get(f"{self.url}/metrics") as response:
            for line in (await response.text()).splitlines():
                if line.startswith(f"{name} "):
                    return float(line.removeprefix(f"{name} "))
        raise AssertionError(f"no metric {name}")

    async def metric_becomes(self, name: str, value: float, *, within_s: float = READY_S) -> None:
        """Wait until a metric of the relay is `value`."""

        async def has_value() -> bool:
            return await self.metric(name) == value

        await until(has_value, within_s=within_s)


@pytest.fixture
def start_relay(nats: NatsServer, monkeypatch: pytest.MonkeyPatch) -> StartRelay:
    """Start a relay: ``async with start_relay(links={...}) as relay``. Arguments are sections of the settings.

    Metrics are read at each scrape.
    """
    monkeypatch.setattr(scrapes, "FRESH_S", 0.0)

    @asynccontextmanager
    async def start(*, keys: KeyRing | None = None, ready: bool = True, **sections: Any) -> AsyncIterator[GrpcRelay]:
        sections = {
            "http": HttpSettings(host="127.0.0.1", port=0),
            "drain": {"grace_s": 1, "margin_s": 1},
            "limits": {"private_links_per_s": 0},  # tests open hundreds at once
            **sections,
            "grpc": {"host": "127.0.0.1", "port": 0, **sections.get("grpc", {})},
        }
        settings = Settings(nats=LogSettings(url=nats.url), **sections)
        async with running_relay(settings, KeyRing.demo() if keys is None else keys, TokenSigner.ephemeral()) as at:
            if ready:
                await wait_ready(at.url)
            yield GrpcRelay(at.url, at.grpc_port)

    return start


@pytest.fixture
async def relay(start_relay: StartRelay) -> AsyncIterator[GrpcRelay]:
    """A running relay."""
    async with start_relay() as running:
        yield running


@pytest.fixture
async def caller(relay: GrpcRelay) -> AsyncIterator[Caller]:
    """grpcio, with a key."""
    async with relay.caller() as calling:
        yield calling


@pytest.fixture
async def outliving() -> AsyncIterator[Outliving]:
    """Make callers that outlive the relay that they call."""
    async with AsyncExitStack() as stack:

        def make(relay: GrpcRelay) -> Caller:
            calling = relay.caller()
            stack.push_async_callback(calling.channel.close)
            return calling

        yield make


@pytest.fixture
async def publish(nats: NatsServer) -> AsyncIterator[Publish]:
    """Store rounds in the log: ``await publish("crash", 1, 2, 3)``; returns their sequences."""
    settings = LogSettings(url=nats.url)
    async with connect(settings, name="test") as nc:
        await open_log(nc, settings)
        stream = nc.client.jetstream()

        async def put(game: str, *numbers: int, **fields: Any) -> list[int]:
            return [
                (await stream.publish(log_subject(game), make_round(game, number, **fields).to_json())).seq
                for number in numbers
            ]

        yield put


@pytest.fixture
def rebuild(nats: NatsServer) -> Rebuild:
    """Delete the log and create an empty one: ``await rebuild()``."""

    async def again() -> None:
        settings = LogSettings(url=nats.url)
        async with connect(settings, name="test") as nc:
            await nc.client.jetstream().delete_stream(settings.stream)
            await open_log(nc, settings)

    return again


def keys() -> KeyRing:
    """A key for dice only, and a public key for pages of example.com."""
    return KeyRing(
        read_keys(
            file_text=f"""
        [keys.dice]
        hash = "{_hash(DICE_KEY)}"
        games = ["dice"]
        [keys.page]
        hash = "{_hash(PUBLIC_KEY)}"
        kind = "public"
        allowed_origins = ["https://example.com"]
        """
        )
    )


def _hash(key: str) -> str:
    return f"sha256:{hashlib.sha256(key.encode()).hexdigest()}"


def make_round(game: str, number: int, *, extras: str = '{"point":"2.50"}', timestamp: int = 1768730430000) -> Round:
    types = {"double": "color", "wall-street": "trending", "fortune-dragon": "slots"}
    return Round.make(
        round_id=number,
        game_slug=game,
        game_type=types.get(game, "multiplier"),
        finished_at="2026-01-18T10:00:30.123456789Z",
        extras=extras,
        timestamp=timestamp,
    )
