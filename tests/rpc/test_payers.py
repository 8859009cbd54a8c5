"""What each protocol reads of the log is charged to the key that asked, and takes the turns of that key."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import aiohttp
import pytest

from auth.key_forms import read_keys
from auth.key_ring import KeyRing
from auth.key_secret import digest_of
from relay.history.reading.payer import Payer
from roundlog.log_settings import LogSettings
from rounds import datastream_pb2 as pb
from tests.nats import NatsServer
from tests.relay.conftest import token_of
from tests.resume.log_writer import LogWriter, make_round
from tests.rpc.caller import Caller
from tests.rpc.conftest import GrpcRelay, StartRelay
from tests.rpc.envelopes import envelope

pytestmark = pytest.mark.service

ROUNDS: Final = 1200
NEWEST: Final = 20
"""Rounds of a game that the relay has in memory."""
FIRST: Final = {"private": "sk_live_", "public": "pk_live_"}
JSON: Final = {"Content-Type": "application/json"}
STREAM: Final = {"Content-Type": "application/connect+proto"}

Read = Callable[[GrpcRelay, str, str, str], Awaitable[None]]
"""Reads rounds of the past: of a relay, with a key, before and after a cursor."""


@pytest.fixture
async def log(nats: NatsServer) -> AsyncIterator[LogWriter]:
    async with LogWriter.open(LogSettings(url=nats.url)) as writer:
        await writer.store_many(make_round("crash", number) for number in range(1, ROUNDS + 1))
        yield writer


async def rest(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del after
    headers = {"X-API-Key": key, "Origin": "https://a.example"}
    url = f"{relay.url}/api/history/crash?limit=5&before={before}"
    async with aiohttp.ClientSession(headers=headers) as http, http.get(url) as response:
        assert response.status == 200, await response.text()


async def sse(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del before
    headers = {"X-API-Key": key, "Origin": "https://a.example"}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.get(f"{relay.url}/sse/crash?after={after}") as response,
    ):
        await response.content.readuntil(b'data: {"round_id"')


async def websocket(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del before
    async with aiohttp.ClientSession(headers={"Origin": "https://a.example"}) as http:
        token = await token_of(http, relay.url, key)
        async with http.ws_connect(f"{relay.url}/ws/crash?after={after}", protocols=[token]) as link:
            while "round_id" not in await link.receive_json():
                pass


async def websocket_message(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del before
    async with aiohttp.ClientSession(headers={"Origin": "https://a.example"}) as http:
        token = await token_of(http, relay.url, key)
        async with http.ws_connect(f"{relay.url}/ws/dice", protocols=[token]) as link:
            await link.send_json({"action": "subscribe", "games": ["crash"], "after": after})
            while "round_id" not in await link.receive_json():
                pass


def caller(relay: GrpcRelay, key: str) -> Caller:
    calling = Caller(relay.address, key)
    calling.metadata.append(("origin", "https://a.example"))
    return calling


async def grpc_stream(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del before
    async with caller(relay, key) as calling:
        call = calling.call(pb.StreamByGameRequest(game_slug="crash", after=after))
        await call.read()
        call.cancel()


async def grpc_history(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del after
    async with caller(relay, key) as calling:
        await calling.ask(pb.GetHistoryRequest(game_slug="crash", limit=5, before=before))


async def grpc_replay(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del before
    async with caller(relay, key) as calling:
        call = calling.call(pb.ReplayRequest(after=after))
        await call.read()
        call.cancel()


async def proxied(relay: GrpcRelay, key: str, method: str, headers: dict[str, str], body: bytes) -> None:
    headers = {"X-API-Key": key, "Origin": "https://a.example", **headers}
    async with (
        aiohttp.ClientSession(headers=headers) as http,
        http.post(relay.proxy(method), data=body) as response,
    ):
        assert response.status == 200
        await response.content.readexactly(100)


async def proxy_stream(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del before
    body = envelope(pb.StreamByGameRequest(game_slug="crash", after=after))
    await proxied(relay, key, "StreamByGame", STREAM, body)


async def proxy_history(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del after
    body = f'{{"gameSlug":"crash","limit":5,"before":"{before}"}}'.encode()
    await proxied(relay, key, "GetHistory", JSON, body)


async def proxy_replay(relay: GrpcRelay, key: str, before: str, after: str) -> None:
    del before
    await proxied(relay, key, "Replay", STREAM, envelope(pb.ReplayRequest(after=after)))


READS: Final[tuple[Read, ...]] = (
    rest,
    sse,
    websocket,
    websocket_message,
    grpc_stream,
    grpc_history,
    grpc_replay,
    proxy_stream,
    proxy_history,
    proxy_replay,
)


@pytest.mark.parametrize("kind", ["private", "public"])
async def test_each_protocol_charges_the_key_that_asked(
    start_relay: StartRelay, log: LogWriter, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a public key, the client's address as well. Each reads pages that no other one has read."""
    charged, charge = Counter[tuple[str, str]](), Payer.charge

    def counted(payer: Payer, rounds: int) -> None:
        charged[payer.key_id, payer.address] += rounds
        charge(payer, rounds)

    monkeypatch.setattr(Payer, "charge", counted)
    secrets = {read.__name__: f"{FIRST[kind]}{number:064x}" for number, read in enumerate(READS, 10)}
    members = " kind=public allowed_origins=*" if kind == "public" else ""
    line = "; ".join(f"{name}=sha256:{digest_of(secret).hex()}{members}" for name, secret in secrets.items())
    keys = KeyRing(read_keys(text=line))
    async with start_relay(keys=keys, replay={"ring_rounds": NEWEST}) as relay:
        for number, read in enumerate(READS):
            before, after = log.cursor(ROUNDS - 500 + number * 40), log.cursor(1 + number * 7)
            await read(relay, secrets[read.__name__], before, after)

    address = "127.0.0.1" if kind == "public" else ""
    paid = {who for who, rounds in charged.items() if rounds} - {("", "")}  # the relay itself
    assert paid == {(read.__name__, address) for read in READS}
