"""Two relays on one log, each with its keys in memory; and a link of each protocol to any of them."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import pytest
from grpc import StatusCode

from auth.key import Key
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from auth.revocations import Revocation, Revocations
from auth.tokens import TokenSigner
from relay.config.sections import HttpSettings
from relay.config.settings import Settings
from relay.http.monitoring import scrapes
from relay.serve import running_relay
from roundlog.log_settings import LogSettings
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.relay.conftest import metric_becomes, wait_ready
from tests.resume.log_writer import LogWriter
from tests.rpc.caller import Caller, read_to_end
from tests.rpc.envelopes import elements, end_status, envelope

END_S: Final = 20.0
SECRET: Final = generate("private")[0]
PAGE_SECRET: Final = generate("public")[0]
PAGE: Final = "https://app.example.com"
OTHER_SECRET: Final = generate("private")[0]
OTHER: Final = Key("other", "private", secrets=(stored(OTHER_SECRET),))
_SERVICE: Final = "/api/grpc/datastream.DataStream"


@dataclass(frozen=True, slots=True)
class Instance:
    """One relay."""

    url: str
    grpc_port: int
    keys: KeyRing
    revocations: Revocations

    async def opened(self, links: int) -> None:
        """Wait until this relay has so many links."""
        async with aiohttp.ClientSession() as http:
            await metric_becomes(http, self.url, "relay_links", links)


@dataclass(frozen=True, slots=True)
class Relays:
    """All relays of an installation."""

    instances: tuple[Instance, ...]

    def change(self, *keys: Key) -> None:
        """Change keys on all relays, as a store does."""
        for instance in self:
            instance.keys.change({key.id: key for key in keys})

    def remove(self, key_id: str) -> None:
        """Remove a key from all relays, as a store does."""
        for instance in self:
            instance.keys.change({key_id: None})

    def revoke(self, *revocations: Revocation) -> None:
        """Revoke on all relays, as a store does."""
        for instance in self:
            instance.revocations.change(revocations)

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances)


@dataclass(slots=True)
class OpenLink:
    """A link that a client has open. `ended` is how it ended, in the words of its protocol."""

    protocol: str
    ended: asyncio.Task[tuple[Any, ...]] = field(repr=False)

    async def end(self) -> tuple[Any, ...]:
        async with asyncio.timeout(END_S):
            return await asyncio.shield(self.ended)

    @property
    def is_open(self) -> bool:
        return not self.ended.done()


Open = Callable[..., AbstractAsyncContextManager[OpenLink]]


@asynccontextmanager
async def websocket(
    relay: Instance, secret: str, game: str = "crash", *, headers: Mapping[str, str] | None = None
) -> AsyncIterator[OpenLink]:
    """Open a WebSocket with a token; its end is the close code and the reason."""
    async with aiohttp.ClientSession() as http:
        async with http.post(
            f"{relay.url}/api/auth/token", headers={"X-API-Key": secret, **(headers or {})}
        ) as response:
            token = (await response.json())["token"]
        async with (
            http.ws_connect(f"{relay.url}/ws/{game}", protocols=[token], headers=headers) as ws,
            _until_end("websocket", websocket_end(ws)) as link,
        ):
            yield link


async def websocket_end(ws: aiohttp.ClientWebSocketResponse) -> tuple[Any, ...]:
    """Wait for the close frame; return its code and reason."""
    while (message := await ws.receive()).type is aiohttp.WSMsgType.TEXT:
        pass
    await ws.close()
    return (
        (message.data, json.loads(message.extra or "")) if message.type is aiohttp.WSMsgType.CLOSE else (message.type,)
    )


@asynccontextmanager
async def sse(
    relay: Instance, secret: str, game: str = "crash", *, headers: Mapping[str, str] | None = None
) -> AsyncIterator[OpenLink]:
    """Open an event stream; its end is "complete", and the status of the next attempt."""
    url, sent = f"{relay.url}/sse/{game}", {"X-API-Key": secret, **(headers or {})}
    async with aiohttp.ClientSession() as http, http.get(url, headers=sent) as response:
        assert response.status == 200, await response.text()

        async def ended() -> tuple[Any, ...]:
            body = await response.content.read()
            async with http.get(url, headers=sent) as again:
                assert b"retry: " in body
                return "complete", again.status

        async with _until_end("sse", ended()) as link:
            yield link


@asynccontextmanager
async def grpc_stream(relay: Instance, secret: str, game: str = "crash") -> AsyncIterator[OpenLink]:
    """Open a stream of gRPC; its end is the status, without trailers."""
    async with Caller(f"127.0.0.1:{relay.grpc_port}", secret) as caller:
        call = caller.call(pb.StreamByGameRequest(game_slug=game), timeout_s=END_S * 3)
        await call.initial_metadata()

        async def ended() -> tuple[Any, ...]:
            _, status = await read_to_end(call)
            return ("OK",) if status is None else (status.code, status.trailers)

        async with _until_end("grpc", ended()) as link:
            yield link
        call.cancel()


@asynccontextmanager
async def connect_stream(relay: Instance, secret: str, game: str = "crash") -> AsyncIterator[OpenLink]:
    """Open a stream of the Connect protocol; its end is the status in the last envelope."""
    body = envelope(json.dumps({"gameSlug": game}).encode())

    def status(body: bytes) -> tuple[Any, ...]:
        flags, last = elements(body)[-1]
        assert flags == 2
        found = end_status(last)
        return ("OK",) if found is None else (found.code, found.trailers)

    async with _proxied("connect", relay, secret, "application/connect+json", body, status) as link:
        yield link


@asynccontextmanager
async def grpc_web_stream(relay: Instance, secret: str, game: str = "crash") -> AsyncIterator[OpenLink]:
    """Open a stream of gRPC-Web; its end is the status in the trailers' frame."""
    body = envelope(pb.StreamByGameRequest(game_slug=game))

    def status(body: bytes) -> tuple[Any, ...]:
        flags, last = elements(body)[-1]
        assert flags == 0x80
        lines = [line.split(": ", 1) for line in last.decode().strip().split("\r\n")]
        found = {name.lower(): value for name, value in lines}
        codes = {code.value[0]: code for code in StatusCode}
        return codes[int(found.pop("grpc-status"))], {n: v for n, v in found.items() if n != "grpc-message"}

    async with _proxied("grpc-web", relay, secret, "application/grpc-web+proto", body, status) as link:
        yield link


@asynccontextmanager
async def _proxied(
    protocol: str,
    relay: Instance,
    secret: str,
    media_type: str,
    body: bytes,
    status: Callable[[bytes], tuple[Any, ...]],
) -> AsyncIterator[OpenLink]:
    headers = {"Content-Type": media_type, "X-API-Key": secret}
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{relay.url}{_SERVICE}/StreamByGame", headers=headers, data=body) as response,
    ):
        assert response.status == 200, await response.text()

        async def ended() -> tuple[Any, ...]:
            return status(await response.content.read())

        async with _until_end(protocol, ended()) as link:
            yield link


@asynccontextmanager
async def _until_end(protocol: str, ended: Any) -> AsyncIterator[OpenLink]:
    link = OpenLink(protocol, asyncio.ensure_future(ended))
    try:
        yield link
    finally:
        link.ended.cancel()
        await asyncio.gather(link.ended, return_exceptions=True)


PROTOCOLS: Final[Mapping[str, Open]] = {
    "websocket": websocket,
    "sse": sse,
    "grpc": grpc_stream,
    "connect": connect_stream,
    "grpc-web": grpc_web_stream,
}
REVOKED: Final[dict[str, tuple[Any, ...]]] = {
    "websocket": (4001, {"reason": "revoked"}),
    "sse": ("complete", 401),
    "grpc": (StatusCode.PERMISSION_DENIED, {}),
    "connect": (StatusCode.PERMISSION_DENIED, {}),
    "grpc-web": (StatusCode.PERMISSION_DENIED, {}),
}
"""How the links of a key end that is no longer valid."""


@pytest.fixture(autouse=True)
def fresh_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics are read at each scrape."""
    monkeypatch.setattr(scrapes, "FRESH_S", 0.0)


@pytest.fixture
async def log(nats: NatsServer) -> AsyncIterator[LogWriter]:
    """A publisher, for the rounds that a test stores."""
    async with LogWriter.open(LogSettings(url=nats.url)) as writer:
        yield writer


@pytest.fixture
def key() -> Key:
    """A private key for all games."""
    return Key("partner", "private", secrets=(stored(SECRET),))


@pytest.fixture
def page_key() -> Key:
    """A public key, for pages of `PAGE`."""
    return Key("page", "public", allowed_origins=frozenset({PAGE}), secrets=(stored(PAGE_SECRET),))


StartRelays = Callable[..., AbstractAsyncContextManager[Relays]]


@pytest.fixture
def start_relays(nats: NatsServer, key: Key, page_key: Key, monkeypatch: pytest.MonkeyPatch) -> StartRelays:
    """Start relays: ``async with start_relays(2) as relays``. Arguments are sections of the settings."""
    monkeypatch.setattr(scrapes, "FRESH_S", 0.0)  # tests wait for metrics

    @asynccontextmanager
    async def start(count: int, **sections: Any) -> AsyncIterator[Relays]:
        signer = TokenSigner({"t": b"s" * 32})
        sections.setdefault("http", HttpSettings(host="127.0.0.1", port=0))
        sections.setdefault("grpc", {"host": "127.0.0.1", "port": 0})
        sections.setdefault("drain", {"grace_s": 1, "margin_s": 1})
        settings = Settings(nats=LogSettings(url=nats.url), **sections)
        async with AsyncExitStack() as stack:
            instances = []
            for _ in range(count):
                keys, revocations = KeyRing((key, page_key, OTHER)), Revocations()
                at = await stack.enter_async_context(running_relay(settings, keys, signer, revocations=revocations))
                await wait_ready(at.url)
                instances.append(Instance(at.url, at.grpc_port, keys, revocations))
            yield Relays(tuple(instances))

    return start


@asynccontextmanager
async def links_of_all_protocols(relays: Relays, secret: str, game: str = "crash") -> AsyncIterator[list[OpenLink]]:
    """Open a link of each protocol to each relay."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_link(relay, secret, game))
            for relay in relays
            for open_link in PROTOCOLS.values()
        ]


def id_of(token: str) -> str:
    """Return the ``jti`` of a token."""
    payload = token.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["jti"])
