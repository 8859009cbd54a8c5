"""Rounds over WebSocket: handshake, frames, client messages and close codes, as in the contract."""

import asyncio
import base64
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp
import jwt
import msgspec
import pytest
import websockets
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from auth.key_ring import KeyRing
from auth.key_secret import DEMO_KEY
from auth.tokens import LIFE_S, TokenSigner
from tests.clients.promptness import ATTEMPTS, is_prompt
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, metric, metric_becomes, token_of
from tests.relay.raw_http import Connection, RawAnswer, connection, exchange

pytestmark = pytest.mark.service

DEADLINE_S: Final = 20.0
SECRET: Final = b"a secret that the tests know: 32+"
DEMO: Final = KeyRing.demo().authenticate(DEMO_KEY)
HANDSHAKE: Final = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: " + "A" * 22 + "==",
)

WebSocket = aiohttp.ClientWebSocketResponse


@asynccontextmanager
async def link(client: aiohttp.ClientSession, url: str, path: str, **options: Any) -> AsyncIterator[WebSocket]:
    """Open a WebSocket with a fresh token."""
    token = await token_of(client, url)
    options.setdefault("protocols", [token])
    async with client.ws_connect(f"{url}{path}", **options) as ws:
        yield ws


async def received(ws: WebSocket) -> Any:
    """Read the next message: JSON in a text frame."""
    message = await ws.receive(DEADLINE_S)
    assert message.type is aiohttp.WSMsgType.TEXT, message
    return msgspec.json.decode(message.data)


async def closed(ws: WebSocket) -> tuple[int, dict[str, Any]]:
    """Read up to the close frame; return its code and its reason: JSON of at most 123 bytes."""
    while (message := await ws.receive(DEADLINE_S)).type is not aiohttp.WSMsgType.CLOSE:
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.PING), message
    reason = message.extra or ""
    assert len(reason.encode()) <= 123
    return message.data, msgspec.json.decode(reason)


# --- the handshake -----------------------------------------------------------------------------------------------


async def test_token_is_selected_as_subprotocol(relay: str, client: aiohttp.ClientSession) -> None:
    """Browsers and the Node client fail a handshake that selects none of their subprotocols."""
    token = await token_of(client, relay)
    async with client.ws_connect(f"{relay}/ws/crash", protocols=[token]) as ws:
        assert ws.protocol == token


@pytest.mark.parametrize("order", [1, -1])
async def test_named_protocol_is_selected_when_offered(relay: str, client: aiohttp.ClientSession, order: int) -> None:
    """With `datastream.v1` offered, in either order, the answer does not contain the token."""
    offered = [await token_of(client, relay), "datastream.v1"][::order]
    async with client.ws_connect(f"{relay}/ws/crash", protocols=offered) as ws:
        assert ws.protocol == "datastream.v1"


async def test_key_in_a_header_opens_a_link_without_subprotocol(relay: str, client: aiohttp.ClientSession) -> None:
    """Clients that can set headers need no token."""
    async with client.ws_connect(f"{relay}/ws/crash", headers=KEY_HEADER) as ws:
        assert ws.protocol is None


def claims(**changes: object) -> dict[str, object]:
    """The claims of a valid token, with `changes`."""
    now = int(time.time())
    whole: dict[str, object] = {
        "iss": "stream-relay", "aud": "stream", "sub": "demo", "kind": "private", "games": None, "origins": [],
        "iat": now, "exp": now + LIFE_S, "jti": "1",
    }  # fmt: skip
    return whole | changes


def signed(body: dict[str, object], *, secret: bytes = SECRET, algorithm: str = "HS256") -> str:
    return jwt.encode(body, secret if algorithm != "none" else "", algorithm, headers={"kid": "t"})


BAD_TOKENS: dict[str, Callable[[], str]] = {
    "garbage": lambda: "not-a-token",
    "expired_by_a_second": lambda: TokenSigner({"t": SECRET}).issue(DEMO, now=time.time() - LIFE_S - 1)[0],
    "expired_now": lambda: TokenSigner({"t": SECRET}).issue(DEMO, now=int(time.time()) - LIFE_S)[0],
    "from_the_future": lambda: TokenSigner({"t": SECRET}).issue(DEMO, now=time.time() + 3600)[0],
    "wrong_audience": lambda: signed(claims(aud="admin")),
    "wrong_issuer": lambda: signed(claims(iss="somebody")),
    "alg_none": lambda: signed(claims(), algorithm="none"),
    "other_signature": lambda: signed(claims(), secret=b"x" * 32),
    "other_signer": lambda: TokenSigner.ephemeral().issue(DEMO)[0],
    "altered": lambda: TokenSigner({"t": SECRET}).issue(DEMO)[0][:-4] + "AAAA",
    "without_games": lambda: signed({name: value for name, value in claims().items() if name != "games"}),
    "a_key": lambda: DEMO_KEY,
}


async def shake_hands(url: str, path: str, *headers: str) -> RawAnswer:
    return await exchange(url, f"GET {path} HTTP/1.1", *HANDSHAKE, *headers)


async def test_invalid_tokens_are_refused(start_relay: StartRelay) -> None:
    """401 with the error body, which does not repeat the token; a valid one made the same way opens a link."""
    async with start_relay(signer=TokenSigner({"t": SECRET})) as url:
        for name, make in BAD_TOKENS.items():
            token = make()
            answer = await shake_hands(url, "/ws/crash", f"Sec-WebSocket-Protocol: {token}")
            assert answer.status == 401, name
            assert answer.json["success"] is False
            assert answer.json["code"] in ("invalid_token", "invalid_credential")
            assert token.encode() not in answer.body
            assert "sec-websocket-protocol" not in answer.headers
        assert await opens(url, signed(claims()))


def opening(token: str, path: str = "/ws/crash") -> bytes:
    """A whole handshake request."""
    lines = (f"GET {path} HTTP/1.1", "Host: x", *HANDSHAKE, f"Sec-WebSocket-Protocol: {token}", "", "")
    return "\r\n".join(lines).encode()


async def test_link_outlives_its_token(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """A token expires for handshakes only; it does not bound the age of a link."""
    async with start_relay(signer=TokenSigner({"t": SECRET})) as url:
        now = int(time.time())  # now: a relay may take longer to start than this token is valid
        token = signed(claims(iat=now - LIFE_S + 2, exp=now + 2))
        async with client.ws_connect(f"{url}/ws/crash", protocols=[token]) as ws:
            while await opens(url, token):
                pass
            await publish("crash", 1)
            assert (await received(ws))["round_id"] == 1


async def opens(url: str, token: str) -> bool:
    async with connection(url) as attempt:
        await attempt.send(opening(token))
        return (await attempt.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101")


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/ws/no-such-game", 404, "unknown_game"),
        ("/ws/type/no-such-type", 404, "unknown_type"),
        ("/ws?games=crash,,dice", 400, "bad_request"),
        ("/ws?games=crash,nope", 404, "unknown_game"),
        ("/ws/crash?games=dice", 400, "bad_request"),
        ("/ws/crash?min_point=x", 400, "invalid_filter"),
        ("/ws/crash?after=x", 400, "invalid_cursor"),
        ("/ws/crash?minpoint=2", 400, "bad_request"),
        ("/ws?limit=2", 400, "bad_request"),
        ("/ws/crash?last=1&last=2", 400, "bad_request"),
        ("/ws/crash?after=a-1&after=a-1", 400, "bad_request"),
    ],
)
async def test_wrong_requests_are_refused_before_the_handshake(relay: str, path: str, status: int, code: str) -> None:
    """A status and the error body, never an open socket."""
    answer = await shake_hands(relay, path, f"X-API-Key: {DEMO_KEY}")

    assert (answer.status, answer.json["code"], answer.json["success"]) == (status, code, False)


async def test_plain_http_gets_426(relay: str) -> None:
    """426 names the protocol (RFC 9110 section 15.5.22)."""
    answer = await exchange(relay, "GET /ws/crash HTTP/1.1", f"X-API-Key: {DEMO_KEY}")

    assert (answer.status, answer.headers["upgrade"], answer.json["code"]) == (426, "websocket", "upgrade_required")


async def test_handshake_without_sec_websocket_key_is_malformed(relay: str) -> None:
    """400 with the error body."""
    answer = await exchange(relay, "GET /ws/crash HTTP/1.1", *HANDSHAKE[:2], f"X-API-Key: {DEMO_KEY}")

    assert (answer.status, answer.json["success"]) == (400, False)


# --- rounds ------------------------------------------------------------------------------------------------------


async def test_every_message_is_a_round_with_the_given_fields_first(
    relay: str, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """Clients without our extensions work: six given fields in the given order, and only rounds."""
    async with link(client, relay, "/ws/crash") as ws:
        await publish("crash", 1, 2**63 - 1)
        first, second = await received(ws), await received(ws)

    assert list(first) == ["round_id", "game_slug", "game_type", "finished_at", "extras", "timestamp", "cursor"]
    assert (first["round_id"], first["game_slug"], first["extras"]) == (1, "crash", '{"point":"2.50"}')
    assert second["round_id"] == 2**63 - 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/ws/crash", ["crash"]),
        ("/ws/type/color", ["double"]),
        ("/ws?games=dice,double", ["dice", "double"]),
        ("/ws", ["crash", "dice", "double"]),
        ("/ws?min_point=2.5", ["crash", "dice", "double"]),
        ("/ws?min_point=2.51", []),
        ("/ws/type/multiplier?max_point=2.50", ["crash", "dice"]),
    ],
)
async def test_link_has_the_requested_rounds(
    relay: str, client: aiohttp.ClientSession, publish: Publish, path: str, expected: list[str]
) -> None:
    """One game, a type, several, all, or a filter; in the order of the log."""
    async with link(client, relay, path) as ws:
        for number, game in enumerate(["crash", "dice", "double"], 1):
            await publish(game, number)
        await ws.send_str('{"action":"ping"}')
        seen: list[str] = []
        while len(seen) < len(expected):
            message = await received(ws)
            if "event" not in message:
                seen.append(message["game_slug"])

    assert seen == expected


@asynccontextmanager
async def inflating(
    client: aiohttp.ClientSession, url: str, **deflate: Any
) -> AsyncIterator[websockets.ClientConnection]:
    """Open a WebSocket of another library, which inflates with exactly the negotiated window."""
    token = websockets.Subprotocol(await token_of(client, url))
    offer = ClientPerMessageDeflateFactory(**deflate)
    async with (
        websockets.connect(
            f"{url.replace('http', 'ws')}/ws/crash", subprotocols=[token], extensions=[offer], compression=None
        ) as ws,
        asyncio.timeout(DEADLINE_S),
    ):
        yield ws


@pytest.mark.parametrize("bits", [9, 10, 12])
async def test_compressed_link_of_each_window_size(
    relay: str, client: aiohttp.ClientSession, publish: Publish, bits: int
) -> None:
    """Frames are compressed for the window of the client, however small."""
    ballast = "".join(f"{number:04x}" for number in range(3000))
    async with inflating(client, relay, server_max_window_bits=bits, client_max_window_bits=True) as ws:
        await publish("crash", *range(1, 21), extras=msgspec.json.encode({"ballast": ballast}).decode())
        rounds = [msgspec.json.decode(await ws.recv()) for _ in range(20)]

    assert ws.response is not None
    assert f"server_max_window_bits={bits}" in ws.response.headers["Sec-WebSocket-Extensions"].replace(" ", "")
    assert [round_["round_id"] for round_ in rounds] == list(range(1, 21))
    assert all(ballast in round_["extras"] for round_ in rounds)


@pytest.mark.parametrize("takeover", [True, False])
async def test_compressed_link_with_and_without_context_takeover(
    relay: str, client: aiohttp.ClientSession, publish: Publish, takeover: bool
) -> None:
    """Shared frames do not depend on earlier ones: clients read them in both modes, and are read."""
    options = {"server_no_context_takeover": not takeover, "client_no_context_takeover": not takeover}
    async with inflating(client, relay, **options) as ws:
        await publish("crash", 1, 2, 3)
        seen = [msgspec.json.decode(await ws.recv())["round_id"] for _ in range(3)]
        await ws.send('{"action":"ping"}')
        assert msgspec.json.decode(await ws.recv()) == {"event": "pong"}

    assert ws.response is not None
    assert "permessage-deflate" in ws.response.headers["Sec-WebSocket-Extensions"]
    assert seen == [1, 2, 3]


# --- client messages ---------------------------------------------------------------------------------------------


async def test_link_changes_its_subscription(relay: str, client: aiohttp.ClientSession, publish: Publish) -> None:
    """`subscribe` adds, `unsubscribe` removes; the answer has the subscription from the next round on."""
    async with link(client, relay, "/ws/crash") as ws:
        await ws.send_json({"action": "subscribe", "games": ["dice", "double"]})
        assert await received(ws) == {"event": "subscribed", "games": ["crash", "dice", "double"]}
        await ws.send_json({"action": "unsubscribe", "games": ["crash", "double"]})
        assert await received(ws) == {"event": "subscribed", "games": ["dice"]}
        await publish("crash", 1)
        await publish("double", 2)
        await publish("dice", 3)
        assert (await received(ws))["round_id"] == 3
        await ws.send_json({"action": "unsubscribe", "games": ["dice"]})
        assert await received(ws) == {"event": "subscribed", "games": []}


async def test_ping_is_answered(relay: str, client: aiohttp.ClientSession) -> None:
    """In JSON for browsers, which cannot send ping frames; ping frames get a pong with their payload."""
    async with link(client, relay, "/ws/crash", autoping=False) as ws:
        await ws.send_json({"action": "ping"})
        assert await received(ws) == {"event": "pong"}
        await ws.ping(b"still there?")
        pong = await ws.receive(DEADLINE_S)

    assert (pong.type, bytes(pong.data)) == (aiohttp.WSMsgType.PONG, b"still there?")


BAD_MESSAGES: dict[str, str | bytes] = {
    "bad_json": "{",
    "no_object": "[]",
    "unknown_action": '{"action":"publish"}',
    "unknown_field": '{"action":"ping","x":1}',
    "unknown_game": '{"action":"subscribe","games":["nope"]}',
    "unknown_game_of_4000_bytes": f'{{"action":"subscribe","games":["{"é" * 1900}"]}}',
    "wildcard": '{"action":"subscribe","games":["*"]}',
    "no_game": '{"action":"subscribe","games":[]}',
    "bad_cursor": '{"action":"subscribe","games":["dice"],"after":"../.."}',
    "binary": b'{"action":"ping"}',
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
async def test_invalid_message_ends_its_link(relay: str, client: aiohttp.ClientSession, name: str) -> None:
    """1008, and a reason in JSON."""
    message = BAD_MESSAGES[name]
    async with link(client, relay, "/ws/crash") as ws:
        await (ws.send_str(message) if isinstance(message, str) else ws.send_bytes(message))
        code, reason = await closed(ws)

    assert (code, reason["reason"]) == (1008, "bad_message")
    assert reason["error"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", 'not JSON; send an object such as {"action":"ping"}'),
        ("[" * 4000, 'not JSON; send an object such as {"action":"ping"}'),
        ("[]", "a message must be a JSON object with an action"),
        ("{}", "action must be subscribe, unsubscribe or ping"),
        ('{"action":"foo"}', "action must be subscribe, unsubscribe or ping"),
        ('{"action":["ping"]}', "action must be subscribe, unsubscribe or ping"),
        (
            '{"action":"subscribe","games":["dice"],"corrections":1}',
            "corrections must be true or false",
        ),
        ('{"action":"ping","game":"crash"}', "unknown member 'game'; allowed: action, games, after, corrections"),
        ('{"action":"subscribe","games":"crash"}', "games must be a list of slugs"),
        ('{"action":"subscribe","games":[1]}', "games must be a list of slugs"),
        ('{"action":"subscribe","games":["crash"],"after":5}', "after must be a cursor"),
        ('{"action":"subscribe"}', "games must be a list of slugs to subscribe"),
    ],
)
async def test_error_of_a_message_is_a_whole_sentence(
    relay: str, client: aiohttp.ClientSession, text: str, sentence: str
) -> None:
    """It says what is allowed, not where the parser failed, and is not truncated in the close reason."""
    async with link(client, relay, "/ws/crash") as ws:
        await ws.send_str(text)
        code, reason = await closed(ws)

    assert (code, reason["error"]) == (1008, sentence)


async def test_more_than_a_hundred_messages_between_heartbeats_end_the_link(
    relay: str, client: aiohttp.ClientSession
) -> None:
    """A hundred are answered; the next one ends the link."""
    async with link(client, relay, "/ws/crash") as ws:
        for _ in range(100):
            await ws.send_str('{"action":"ping"}')
        for _ in range(100):
            assert await received(ws) == {"event": "pong"}
        await ws.send_str('{"action":"ping"}')
        code, reason = await closed(ws)

    assert code == 1008
    assert "100" in reason["error"]


async def test_message_over_the_limit_is_too_large(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """1009, at the configured size."""
    async with start_relay(links={"message_bytes": 128}) as url, link(client, url, "/ws/crash") as ws:
        await ws.send_str('{"action":"ping"}'.ljust(128))
        assert await received(ws) == {"event": "pong"}
        await ws.send_str('{"action":"ping"}'.ljust(129))
        message = await ws.receive(DEADLINE_S)

    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1009)


# --- ends --------------------------------------------------------------------------------------------------------


async def test_full_relay_closes_with_a_delay(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """1013 with a delay for this client; a freed permit is given to the next one."""
    async with start_relay(links={"max_links": 1, "retry_ms": 100}) as url:
        async with link(client, url, "/ws/crash"), link(client, url, "/ws/crash") as refused:
            code, reason = await closed(refused)
        await metric_becomes(client, url, "relay_links", 0)
        async with link(client, url, "/ws/crash") as ws:
            await ws.send_str('{"action":"ping"}')
            assert await received(ws) == {"event": "pong"}

    assert (code, reason["reason"]) == (1013, "capacity")
    assert 100 <= reason["retry_ms"] <= 300


async def test_link_over_its_age_is_ended(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """1012 with the cursor of the last round that was sent."""
    async with (
        start_relay(links={"max_age_s": 1, "heartbeat_s": 0.1, "retry_ms": 50}) as url,
        link(client, url, "/ws/crash") as ws,
    ):
        await publish("crash", 1)
        cursor = (await received(ws))["cursor"]
        code, reason = await closed(ws)

    assert (code, reason["reason"], reason["cursor"]) == (1012, "max_age", cursor)
    assert 0 <= reason["retry_ms"] <= 50


async def test_client_that_answers_no_ping_is_ended(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """After two pings without an answer; a client that answers stays."""
    async with (
        start_relay(links={"heartbeat_s": 0.1}) as url,
        link(client, url, "/ws/crash") as alive,
        link(client, url, "/ws/crash", autoping=False) as dead,
    ):
        reading = asyncio.create_task(received(alive))  # the client answers pings while it reads
        code, reason = await closed(dead)
        await metric_becomes(client, url, "relay_links", 1)
        await alive.send_str('{"action":"ping"}')
        assert await reading == {"event": "pong"}

    assert (code, reason["reason"]) == (1011, "unresponsive")


async def test_client_that_sends_no_close_frame_is_cut(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """A closed link waits at most `linger_s` for the close frame of the client."""
    async with start_relay(links={"max_age_s": 1, "heartbeat_s": 1, "linger_s": 0.1}) as url, connection(url) as raw:
        await raw.send(opening(await token_of(client, url)))
        data = await raw.rest()
        await metric_becomes(client, url, "relay_links", 0)

    assert b'"reason":"max_age"' in data


# --- company -----------------------------------------------------------------------------------------------------


async def test_eleventh_client_is_not_delayed_by_ten_bad_ones(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> None:
    """Half-open, not reading, garbage, unfinished handshakes: another client gets rounds as fast as without them."""
    for _ in range(ATTEMPTS):
        alone_s, beside_s = await delays_alone_and_beside_bad_ones(start_relay, client, publish)
        if max(beside_s) < 2 and is_prompt(beside_s, alone_s):
            return
    raise AssertionError(f"delays in s alone: {sorted(alone_s)}; beside bad clients: {sorted(beside_s)}")


async def delays_alone_and_beside_bad_ones(
    start_relay: StartRelay, client: aiohttp.ClientSession, publish: Publish
) -> tuple[list[float], list[float]]:
    """Return how long each round took to a client, from its publication, before and after ten bad ones connect."""
    ballast = msgspec.json.encode({"point": "2.50", "ballast": "x" * 100_000}).decode()
    numbers = itertools.count(1)
    async with start_relay(links={"unsent_bytes": 8 << 20, "linger_s": 0.1}) as url, AsyncExitStack() as stack:
        good = await stack.enter_async_context(link(client, url, "/ws/crash"))

        async def delay_s() -> float:
            number, began = next(numbers), time.monotonic()
            await publish("crash", number, extras=ballast)
            assert (await received(good))["round_id"] == number
            return time.monotonic() - began

        await delay_s()  # the first round includes one-time setup
        alone_s = [await delay_s() for _ in range(40)]
        for misbehave in BAD_CLIENTS:
            bad = await stack.enter_async_context(connection(url))
            await misbehave(bad, await token_of(client, url))
        for _ in range(30):  # fills the kernel buffers of clients that do not read: later bytes wait in the relay
            await delay_s()
        beside_s = [await delay_s() for _ in range(40)]
        # Four of the ten had a link and do not read; each of them is ended, and its memory freed.
        async with asyncio.timeout(DEADLINE_S):
            while await metric(client, url, "relay_links_slow_total") < 4:
                beside_s.append(await delay_s())
    return alone_s, beside_s


Misbehave = Callable[[Connection, str], Any]


async def never_read(bad: Connection, token: str) -> None:
    await bad.send(opening(token))
    await bad.until(b"\r\n\r\n")
    bad.writer.transport.pause_reading()  # type: ignore[attr-defined]


async def never_read_events(bad: Connection, token: str) -> None:
    await bad.send(f"GET /sse/crash?token={token} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await bad.until(b"\r\n\r\n")
    bad.writer.transport.pause_reading()  # type: ignore[attr-defined]


async def connect_only(bad: Connection, token: str) -> None:
    """Connect, and send nothing."""


async def begin_a_handshake(bad: Connection, token: str) -> None:
    await bad.send(opening(token)[:-4])


async def begin_a_header(bad: Connection, token: str) -> None:
    await bad.send(b"GET /ws/crash HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 4000)


async def send_garbage(bad: Connection, token: str) -> None:
    await bad.send(base64.b64decode("FgMBAgABAAH8AwP/") * 50)


async def send_garbage_frames(bad: Connection, token: str) -> None:
    await never_read(bad, token)
    await bad.send(b"\xff" * 64)


async def begin_a_message(bad: Connection, token: str) -> None:
    await never_read(bad, token)
    await bad.send(b"\x01\x85mask\x00")


BAD_CLIENTS: Final[list[Misbehave]] = [
    never_read,
    never_read,
    never_read_events,
    begin_a_message,
    send_garbage_frames,
    connect_only,
    begin_a_handshake,
    begin_a_header,
    send_garbage,
    connect_only,
]


def masked(payload: bytes, *, first_byte: int = 0x81) -> bytes:
    """A short frame of a client; the mask of zeros leaves the payload as it is."""
    return bytes((first_byte, 0x80 | len(payload), 0, 0, 0, 0)) + payload


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (masked(b"", first_byte=0x83), 1002),  # an opcode that does not exist
        (b"\x81\x02hi", 1002),  # not masked
        (masked(b"\xff"), 1007),
        (masked(b'{"action":"pong"}'), 1008),
        (masked(b"\x00", first_byte=0x82), 1008),
    ],
)
async def test_valid_message_in_one_segment_with_a_bad_one_is_handled(
    start_relay: StartRelay, client: aiohttp.ClientSession, bad: bytes, code: int
) -> None:
    """Its answer comes before the close frame; what follows the bad one is not handled."""
    valid = masked(b'{"action":"subscribe","games":["dice"]}')
    async with start_relay(links={"linger_s": 0.1}) as relay, connection(relay) as link:
        await link.send(opening(await token_of(client, relay)))
        await link.until(b"\r\n\r\n")
        await link.send(valid + bad + valid + masked(b"\x03\xe8", first_byte=0x88))
        data = await link.rest()

    answer = b'{"event":"subscribed","games":["crash","dice"]}'
    assert data[2 : 2 + len(answer)] == answer
    assert data.count(b"subscribed") == 1
    assert data[2 + len(answer)] == 0x88
    assert int.from_bytes(data[4 + len(answer) : 6 + len(answer)], "big") == code
