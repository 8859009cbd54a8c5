"""Limits on every protocol: at a limit, over it, after it, by key and by address, and with wrong keys."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from ipaddress import ip_network
from typing import Any, Final, NamedTuple

import aiohttp
import grpc
import pytest
from grpc import aio

from auth.key import Key, Limits
from auth.key_ring import KeyRing
from auth.key_secret import generate, stored
from relay import compose
from relay.admission.limits.limits import ClientLimits
from rounds import datastream_pb2 as pb
from tests.relay.conftest import Publish
from tests.relay.event_stream import stream
from tests.relay.http.test_metrics import samples
from tests.rpc.caller import Caller
from tests.rpc.conftest import GrpcRelay, StartRelay
from tests.rpc.envelopes import elements, envelope
from tests.waiting import until

pytestmark = pytest.mark.service

SENTENCE: Final = "Too many requests, please slow down"
ERROR: Final = {"error": SENTENCE, "success": False, "code": "rate_limited"}
ORIGIN: Final = {"Origin": "https://app.example.com"}
QUOTA: Final = ("X-Ratelimit-Limit", "X-Ratelimit-Remaining", "X-Ratelimit-Reset")
TRUSTED: Final = {"host": "127.0.0.1", "port": 0, "trusted_proxies": "127.0.0.0/8"}


class Answer(NamedTuple):
    """What a client gets, whatever the protocol."""

    limited: bool
    retry_s: float | None
    headers: Mapping[str, str]


Ask = Callable[[GrpcRelay, dict[str, str]], Awaitable[Answer]]
Open = Callable[[GrpcRelay, dict[str, str], AsyncExitStack], Awaitable[Answer]]


async def over_http(response: aiohttp.ClientResponse) -> Answer:
    """Read an answer; one over a limit has the given sentence and is not stored."""
    if response.status != 429:
        assert response.status == 200, await response.text()
        return Answer(False, None, response.headers)
    body = await response.json()
    assert body == ERROR or (body["code"], body["message"]) == ("resource_exhausted", SENTENCE)
    assert response.headers["Cache-Control"] == "no-store"
    return Answer(True, float(response.headers["Retry-After"]), response.headers)


async def rest(relay: GrpcRelay, headers: dict[str, str]) -> Answer:
    async with aiohttp.ClientSession() as http, http.get(f"{relay.url}/api/games", headers=headers) as response:
        return await over_http(response)


async def token(relay: GrpcRelay, headers: dict[str, str]) -> Answer:
    async with aiohttp.ClientSession() as http, http.post(f"{relay.url}/api/auth/token", headers=headers) as response:
        return await over_http(response)


async def connect_unary(relay: GrpcRelay, headers: dict[str, str]) -> Answer:
    async with aiohttp.ClientSession() as http, http.post(relay.proxy("ListGames"), headers=headers, json={}) as answer:
        return await over_http(answer)


async def grpc_web_unary(relay: GrpcRelay, headers: dict[str, str]) -> Answer:
    headers = headers | {"Content-Type": "application/grpc-web+proto"}
    async with (
        aiohttp.ClientSession() as http,
        http.post(relay.proxy("ListGames"), headers=headers, data=envelope(b"")) as response,
    ):
        _, trailers = elements(await response.read())[-1]
        lines = dict(line.split(": ", 1) for line in trailers.decode().split("\r\n") if line)
        limited = lines["grpc-status"] == str(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
        return Answer(limited, int(lines["retry-after-ms"]) / 1000 if limited else None, response.headers)


async def grpc_unary(relay: GrpcRelay, headers: dict[str, str]) -> Answer:
    async with Caller(relay.address, None) as caller:
        caller.metadata = [(name.lower(), value) for name, value in headers.items()]
        try:
            await caller.ask(pb.ListGamesRequest())
        except grpc.aio.AioRpcError as error:
            return status_of(error)
        return Answer(False, None, {})


def status_of(error: grpc.aio.AioRpcError) -> Answer:
    assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, SENTENCE)
    trailers = {str(key): str(value) for key, value in error.trailing_metadata() or ()}
    return Answer(True, int(trailers["retry-after-ms"]) / 1000, {})


async def websocket(relay: GrpcRelay, headers: dict[str, str], opened: AsyncExitStack) -> Answer:
    http = await opened.enter_async_context(aiohttp.ClientSession())
    try:
        socket = await opened.enter_async_context(http.ws_connect(f"{relay.url}/ws/crash", headers=headers))
    except aiohttp.WSServerHandshakeError as error:
        headers = dict(error.headers or {})
        return Answer(error.status == 429, float(headers["Retry-After"]), headers)
    return Answer(False, None, socket._response.headers)


async def sse(relay: GrpcRelay, headers: dict[str, str], opened: AsyncExitStack) -> Answer:
    """Over a limit the answer is 200, a delay and an end, so that an EventSource comes back."""
    http = await opened.enter_async_context(aiohttp.ClientSession())
    response = await opened.enter_async_context(http.get(f"{relay.url}/sse/crash", headers=headers))
    assert response.status == 200
    first = await response.content.readuntil(b"\n")
    limited = response.content.at_eof() or (await response.content.read(1)) in (b"", b"\n")
    return Answer(limited, int(first.removeprefix(b"retry: ")) / 1000 if limited else None, response.headers)


async def connect_stream(relay: GrpcRelay, headers: dict[str, str], opened: AsyncExitStack) -> Answer:
    http = await opened.enter_async_context(aiohttp.ClientSession())
    headers = headers | {"Content-Type": "application/connect+json"}
    data = envelope(b'{"game_slug":"crash"}')
    response = await opened.enter_async_context(http.post(relay.proxy("StreamByGame"), headers=headers, data=data))
    assert response.status == 200
    if "Head-Cursor" in response.headers:
        return Answer(False, None, response.headers)
    [(_, end)] = elements(await response.read())
    error = json.loads(end)
    assert (error["error"]["code"], error["error"]["message"]) == ("resource_exhausted", SENTENCE)
    return Answer(True, int(error["metadata"]["retry-after-ms"][0]) / 1000, response.headers)


async def grpc_stream(relay: GrpcRelay, headers: dict[str, str], opened: AsyncExitStack) -> Answer:
    caller = await opened.enter_async_context(Caller(relay.address, None))
    caller.metadata = [(name.lower(), value) for name, value in headers.items()]
    call = caller.call(pb.StreamByGameRequest(game_slug="crash"))
    opened.callback(call.cancel)
    if (await call.initial_metadata()).get("head-cursor") is None:
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            return status_of(error)
    return Answer(False, None, {})


REQUESTS: Final[Mapping[str, Ask]] = {
    "rest": rest,
    "token": token,
    "connect": connect_unary,
    "grpc-web": grpc_web_unary,
    "grpc": grpc_unary,
}
LINKS: Final[Mapping[str, Open]] = {
    "websocket": websocket,
    "sse": sse,
    "connect": connect_stream,
    "grpc": grpc_stream,
}


class Keys:
    """Keys of one relay, made as they are needed."""

    def __init__(self) -> None:
        self.ring = KeyRing.demo()

    def private(self, **limits: Any) -> dict[str, str]:
        """Make a private key with limits; return the header that has it."""
        return {"X-API-Key": self._made("private", limits)}

    def public(self, **limits: Any) -> dict[str, str]:
        return {"X-API-Key": self._made("public", limits), **ORIGIN}

    def _made(self, kind: Any, limits: dict[str, Any]) -> str:
        secret, _ = generate(kind)
        origins = frozenset(ORIGIN.values()) if kind == "public" else frozenset[str]()
        key = Key(f"k{len(self.ring)}", kind, None, origins, (stored(secret),), limits=Limits(**limits))
        self.ring.change({key.id: key})
        return secret


@pytest.fixture
def keys() -> Keys:
    return Keys()


class Clock:
    """The clock of the limits. It stands still, so that a slow test regains nothing."""

    def __init__(self) -> None:
        self.now_s = 1000.0


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(compose, "ClientLimits", partial(ClientLimits, clock=lambda: clock.now_s))
    return clock


@pytest.fixture
async def relay(start_relay: StartRelay, keys: Keys) -> AsyncIterator[GrpcRelay]:
    """A relay that trusts the proxy on this machine."""
    async with start_relay(keys=keys.ring, http=TRUSTED) as running:
        yield running


@pytest.mark.parametrize("protocol", REQUESTS)
async def test_requests_of_a_key_at_its_limit_and_after(
    relay: GrpcRelay, keys: Keys, clock: Clock, protocol: str
) -> None:
    """As many as the limit are answered at once; one more is refused until the delay that it names has passed."""
    key, ask = keys.private(requests_per_min=60), REQUESTS[protocol]
    for number in range(60):
        answer = await ask(relay, key)
        assert not answer.limited
        if protocol != "grpc":
            assert [int(answer.headers[name]) for name in QUOTA] == [60, 59 - number, number + 1]
    refused = await asyncio.gather(*[ask(relay, key) for _ in range(20)])
    assert {(answer.limited, answer.retry_s) for answer in refused} == {(True, 1.0)}
    if protocol != "grpc":
        assert refused[0].headers["X-Ratelimit-Remaining"] == "0"

    clock.now_s += 0.9
    assert (await ask(relay, key)).limited
    clock.now_s += 0.1
    assert [(await ask(relay, key)).limited for _ in range(2)] == [False, True]
    assert not (await ask(relay, keys.private())).limited, "another key is not concerned"


async def test_all_protocols_count_together(relay: GrpcRelay, keys: Keys) -> None:
    """A key has one limit of requests, and links are none."""
    key = keys.private(requests_per_min=len(REQUESTS))
    async with AsyncExitStack() as opened:
        for ask in REQUESTS.values():
            for open_link in LINKS.values():
                assert not (await open_link(relay, key, opened)).limited
            assert not (await ask(relay, key)).limited

        for ask in REQUESTS.values():
            assert (await ask(relay, key)).limited


WRONG_STREAMS: Final = {
    "sse": "/sse/no-such-game",
    "sse parameter": "/sse/crash?min_point=x",
    "websocket": "/ws/no-such-game",
    "websocket cursor": "/ws/crash?after=x",
}


@pytest.mark.parametrize("path", WRONG_STREAMS.values(), ids=list(WRONG_STREAMS))
async def test_streams_that_are_refused_for_what_they_ask_are_requests(relay: GrpcRelay, keys: Keys, path: str) -> None:
    """Else they would be work without a limit."""
    key = keys.private(requests_per_min=3)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = key | upgrade | {"Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="}
    async with aiohttp.ClientSession() as http:
        statuses = []
        for _ in range(5):
            async with http.get(relay.url + path, headers=headers) as response:
                statuses.append(response.status)

    assert set(statuses[:3]) <= {400, 404}
    assert statuses[3:] == [429, 429]


async def test_calls_of_streams_that_are_refused_are_requests(relay: GrpcRelay, keys: Keys) -> None:
    """Over gRPC and its proxy."""
    key = keys.private(requests_per_min=3)
    request = pb.StreamByGameRequest(game_slug="no-such-game")
    headers = key | {"Content-Type": "application/connect+json"}
    async with Caller(relay.address, key["X-API-Key"]) as caller, aiohttp.ClientSession() as http:

        async def over_grpc() -> str:
            with pytest.raises(aio.AioRpcError) as error:
                await caller.call(request).read()
            return error.value.code().name.lower()

        async def over_the_proxy() -> str:
            data = envelope(b'{"game_slug":"no-such-game"}')
            async with http.post(relay.proxy("StreamByGame"), headers=headers, data=data) as response:
                [(_, end)] = elements(await response.read())
            return str(json.loads(end)["error"]["code"])

        codes = [await ask() for ask in (over_grpc, over_the_proxy, over_grpc, over_grpc, over_the_proxy)]

    assert codes == ["not_found"] * 3 + ["resource_exhausted"] * 2


async def test_default_limits_are_the_given_ones(relay: GrpcRelay, keys: Keys) -> None:
    """1000 a minute for a private key, 100 for a public one."""
    assert (await rest(relay, keys.private())).headers["X-Ratelimit-Limit"] == "1000"
    assert (await rest(relay, keys.public())).headers["X-Ratelimit-Limit"] == "100"


@pytest.mark.parametrize("protocol", REQUESTS)
async def test_viewers_of_a_page_have_limits_of_their_own(relay: GrpcRelay, keys: Keys, protocol: str) -> None:
    """They share a public key: its limit is by address, and the whole key has a far higher one."""
    key, ask = keys.public(requests_per_min=2, key_requests_per_min=5), REQUESTS[protocol]
    viewers = [key | {"X-Forwarded-For": f"192.0.2.{number}"} for number in range(4)]

    seen = [[(await ask(relay, viewer)).limited for _ in range(3)] for viewer in viewers]

    assert seen == [[False, False, True], [False, False, True], [False, True, True], [True, True, True]]


async def test_viewers_of_one_ipv6_network_are_one(relay: GrpcRelay, keys: Keys) -> None:
    """A client chooses the last 64 bits of its address itself."""
    key = keys.public(requests_per_min=1)

    seen = [(await rest(relay, key | {"X-Forwarded-For": at})).limited for at in ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1")]  # fmt: skip  # noqa: E501

    assert seen == [False, True, False]


@pytest.mark.parametrize("protocol", LINKS)
async def test_open_links_of_a_key(relay: GrpcRelay, keys: Keys, protocol: str) -> None:
    """One more than its limit is refused, until one is closed."""
    key, open_link = keys.private(links=2), LINKS[protocol]
    async with AsyncExitStack() as opened:
        one = await opened.enter_async_context(AsyncExitStack())
        assert not (await open_link(relay, key, one)).limited
        assert not (await open_link(relay, key, opened)).limited
        refused = await open_link(relay, key, opened)
        assert refused.limited
        assert refused.retry_s is not None
        assert refused.retry_s >= 1
        await one.aclose()

        async def is_open() -> bool:
            return not (await open_link(relay, key, opened)).limited

        await until(is_open)


@pytest.mark.parametrize("protocol", LINKS)
async def test_new_links_of_a_key(relay: GrpcRelay, keys: Keys, protocol: str) -> None:
    """They are bounded per second, and another key's are not concerned."""
    key, open_link = keys.private(links_per_s=0.001), LINKS[protocol]
    async with AsyncExitStack() as opened:
        first = await open_link(relay, key, opened)
        assert not first.limited
        if protocol != "grpc":
            assert first.headers["X-Ratelimit-Remaining"] == "0"
        assert (await open_link(relay, key, opened)).limited
        assert not (await open_link(relay, keys.private(), opened)).limited


async def test_reconnects_are_not_kept_out_by_new_links(relay: GrpcRelay, keys: Keys, publish: Publish) -> None:
    """A client that continues from a cursor was disconnected, perhaps by a relay: it is not counted with new ones."""
    await publish("crash", 1)
    key = keys.private(links_per_s=0.001)
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{relay.url}/api/latest/crash", headers=key) as response:
            cursor = (await response.json())["cursor"]
        async with AsyncExitStack() as opened:
            assert not (await websocket(relay, key, opened)).limited
            assert (await websocket(relay, key, opened)).limited
            async with http.ws_connect(f"{relay.url}/ws/crash?after={cursor}", headers=key) as socket:
                assert json.loads((await socket.receive()).data)["complete"] is True


async def test_links_of_one_address(start_relay: StartRelay, keys: Keys) -> None:
    """An address has limits over all its keys; that of the client, not of its proxy."""
    limits = {"address_links": 2}
    async with start_relay(keys=keys.ring, http=TRUSTED, limits=limits) as relay, AsyncExitStack() as opened:
        for client, refused in (("192.0.2.1", False), ("192.0.2.1", False), ("192.0.2.1", True), ("192.0.2.2", False)):
            key = keys.private() | {"X-Forwarded-For": client}
            assert (await sse(relay, key, opened)).limited is refused


async def ended_as(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, Any]:
    """Return the close code of a link that is ended, and the word in its reason."""
    while (received := await socket.receive(timeout=20)).type is aiohttp.WSMsgType.TEXT:
        pass
    return socket.close_code, json.loads(received.extra or "{}")["reason"]


async def test_messages_that_change_a_subscription(relay: GrpcRelay, keys: Keys) -> None:
    """One too many ends the link with 1013; a ping is none."""
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(f"{relay.url}/ws/dice", headers=keys.private(subscribes_per_min=2)) as socket,
    ):
        for _ in range(5):
            await socket.send_json({"action": "ping"})
            assert json.loads((await socket.receive(timeout=20)).data)["event"] == "pong"
        for _ in range(2):
            await socket.send_json({"action": "subscribe", "games": ["crash"]})
            assert json.loads((await socket.receive(timeout=20)).data)["event"] == "subscribed"
        await socket.send_json({"action": "unsubscribe", "games": ["crash"]})
        assert await ended_as(socket) == (1013, "rate_limited")


async def test_replays_of_a_key_that_read_the_log(relay: GrpcRelay, keys: Keys, publish: Publish) -> None:
    """One too many is refused, by a new link as by a message; one that memory answers is none."""
    for number in range(1, 700):  # a second apart, so that a slow replay is slow
        await publish("crash", number, timestamp=1768730430000 + number * 1000)
    key = keys.private(replays=1)
    async with aiohttp.ClientSession() as http, AsyncExitStack() as opened:
        async with http.get(f"{relay.url}/api/history/crash?limit=1000", headers=key) as response:
            newest, *_, oldest = [each["cursor"] for each in await response.json()]
        socket = await opened.enter_async_context(http.ws_connect(f"{relay.url}/ws/dice", headers=key))
        slow = f"{relay.url}/sse/crash?after={oldest}&speed=0.1"
        await opened.enter_async_context(stream(http, slow, headers=key))
        async with http.get(f"{relay.url}/sse/crash?after={oldest}", headers=key) as response:
            assert (await response.read()).startswith(b"retry: ")
        with pytest.raises(aiohttp.WSServerHandshakeError, match="429"):
            await http.ws_connect(f"{relay.url}/ws/crash?after={oldest}", headers=key)
        async with stream(http, f"{relay.url}/sse/crash?after={newest}", headers=key) as events:
            assert (await events.block()).names
        await socket.send_json({"action": "subscribe", "games": ["crash"], "after": oldest})
        assert await ended_as(socket) == (1013, "rate_limited")


async def test_rounds_that_a_key_reads_from_the_log(relay: GrpcRelay, keys: Keys, publish: Publish) -> None:
    """Who causes a read pays for what it read, whatever matched: a search over its limit is refused."""
    await publish("crash", *range(1, 1500))
    key = keys.private(log_rounds_per_min=200)
    search = f"{relay.url}/api/history/crash?min_point=1e9"
    async with aiohttp.ClientSession() as http:
        async with http.get(search, headers=key) as response:
            assert (response.status, await response.json()) == (429, ERROR)
            assert 1 <= int(response.headers["Retry-After"]) <= 120
        async with http.get(f"{relay.url}/api/latest/crash", headers=key) as response:
            assert response.status == 200, "memory answers"
        async with http.get(search, headers=keys.private()) as response:
            assert (response.status, await response.json()) == (200, []), "another key is not concerned"


async def test_distinct_filters_of_a_key(relay: GrpcRelay, keys: Keys) -> None:
    """Links with the same filter cost as much as one; another filter is refused over the limit."""
    key = keys.private(filters=1)
    async with aiohttp.ClientSession() as http:

        async def is_open(point: int) -> bool:
            async with http.get(f"{relay.url}/sse/crash?min_point={point}", headers=key) as response:
                head = await response.content.readuntil(b"\n")
                assert head.startswith(b"retry:")
                return bool(await response.content.read(1))

        async with stream(http, f"{relay.url}/sse/crash?min_point=1", headers=key):
            assert await is_open(1)
            assert not await is_open(2)
        await until(lambda: is_open(2))


async def test_many_wrong_keys_and_a_good_one_of_the_same_address(relay: GrpcRelay, keys: Keys) -> None:
    """Wrong ones over the limit get 429 on a connection that is closed; a good key is accepted at any time."""
    good, wrong = keys.private(), {"X-API-Key": generate("private")[0]}
    connector = aiohttp.TCPConnector(limit=1)
    async with aiohttp.ClientSession(connector=connector) as http:
        statuses = []
        for _ in range(100):
            async with http.get(f"{relay.url}/api/games", headers=wrong) as response:
                statuses.append(response.status)
                await response.read()
                if response.status == 429:
                    assert await response.json() == ERROR
                    assert response.headers["Connection"] == "close"
                    assert int(response.headers["Retry-After"]) >= 1
        assert statuses == [401] * 60 + [429] * 40
        for ask in REQUESTS.values():
            assert not (await ask(relay, good)).limited
            assert (await ask(relay, wrong)).limited
        async with AsyncExitStack() as opened:
            for name, open_link in LINKS.items():
                assert not (await open_link(relay, good, opened)).limited
                if name != "sse":  # a 429 there, too: an EventSource with a wrong key is not to come back
                    assert (await open_link(relay, wrong, opened)).limited
            async with http.get(f"{relay.url}/sse/crash", headers=wrong) as response:
                assert response.status == 429
        limited = await samples(http, relay.url, "relay_limited_total")
        assert limited['{limit="wrong_credentials"}'] == 40 + len(REQUESTS) + len(LINKS)


@pytest.mark.parametrize("where", ["origin", "address"])
async def test_key_that_is_used_from_elsewhere_is_a_wrong_credential(relay: GrpcRelay, keys: Keys, where: str) -> None:
    """It is not counted against the key, so that its holder does not pay; nor is it without a limit."""
    if where == "origin":
        good = keys.public()
        stolen = good | {"Origin": "https://evil.example"}
    else:
        secret, _ = generate("private")
        network = ip_network("192.0.2.0/24")
        keys.ring.change({"inside": Key("inside", "private", secrets=(stored(secret),), addresses=(network,))})
        stolen = {"X-API-Key": secret}
        good = stolen | {"X-Forwarded-For": "192.0.2.1"}
    async with aiohttp.ClientSession() as http:
        statuses = []
        for path in ["/api/games", "/sse/crash"] * 40:
            async with http.get(relay.url + path, headers=stolen) as response:
                statuses.append(response.status)
        assert statuses == [403] * 60 + [429] * 20
        async with http.get(f"{relay.url}/api/games", headers=good) as response:
            assert response.status == 200


async def test_wrong_tokens_are_counted_as_wrong_keys_are(relay: GrpcRelay, keys: Keys) -> None:
    """And a good token is still accepted."""
    async with aiohttp.ClientSession() as http:
        statuses = []
        for _ in range(100):
            async with http.get(f"{relay.url}/sse/crash?token=a.b.c") as response:
                statuses.append(response.status)
        assert statuses == [401] * 60 + [429] * 40
        async with http.post(f"{relay.url}/api/auth/token", headers=keys.private()) as response:
            good = (await response.json())["token"]

        async def status_of(token: str) -> int:
            async with http.get(f"{relay.url}/sse/crash?token={token}") as response:
                return response.status

        wrong = [status_of(good[:-4] + "AAAA") for _ in range(100)]
        assert set(await asyncio.gather(*wrong)) == {429}
        assert await status_of(good) == 200


async def test_answers_that_are_refusals_show_the_limit_too(relay: GrpcRelay, keys: Keys) -> None:
    """Whatever follows the credential: an unknown game, a bad parameter, 304; on streams as well."""
    key = keys.private()
    async with aiohttp.ClientSession() as http:
        for path, status in (
            ("/api/latest/chess", 404),
            ("/api/history/crash?limit=0", 400),
            ("/sse/chess", 404),
            ("/sse/crash?after=x", 400),
        ):
            async with http.get(f"{relay.url}{path}", headers=key) as response:
                assert response.status == status
                assert all(int(response.headers[name]) >= 0 for name in QUOTA), path
        async with http.get(f"{relay.url}/api/games", headers=key | ORIGIN) as response:
            exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
            assert {*QUOTA, "Retry-After"} <= set(exposed)
        async with http.get(f"{relay.url}/readyz") as response:
            assert not set(QUOTA) & set(response.headers)


async def test_a_limit_that_is_changed_applies_at_once(relay: GrpcRelay, keys: Keys) -> None:
    """To a key that is over it, too."""
    key = keys.private(requests_per_min=1)
    assert [(await rest(relay, key)).limited for _ in range(2)] == [False, True]
    [changed] = [each for each in keys.ring if each.limits.requests_per_min == 1]
    keys.ring.change(
        {changed.id: Key(changed.id, "private", secrets=changed.secrets, limits=Limits(requests_per_min=0))}
    )

    assert [(await rest(relay, key)).limited for _ in range(3)] == [False] * 3
