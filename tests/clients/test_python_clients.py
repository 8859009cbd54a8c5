"""Third-party Python clients against a running relay: websockets, aiohttp, sseclient-py with requests."""

import asyncio
import json
import re
from itertools import islice

import aiohttp
import pytest
import requests
import sseclient
import websockets

from tests.clients.live_relay import LiveRelay
from tests.clients.rounds_seen import checked, sequence

pytestmark = pytest.mark.service

DEADLINE_S = 30


async def read_rounds(ws: websockets.ClientConnection, count: int) -> list[str]:
    async with asyncio.timeout(DEADLINE_S):
        return [str(await ws.recv()) for _ in range(count)]


async def test_websockets_offers_its_token_and_sees_only_rounds(relay: LiveRelay) -> None:
    """The token is selected, and every message is a round of the game."""
    token = websockets.Subprotocol(relay.token())
    async with websockets.connect(f"{relay.ws_url}/ws/crash", subprotocols=[token]) as ws:
        rounds = [checked(text) for text in await read_rounds(ws, 3)]

    assert ws.subprotocol == token
    assert {round_["game_slug"] for round_ in rounds} == {"crash"}
    assert len({round_["round_id"] for round_ in rounds}) == 3
    assert [sequence(round_) for round_ in rounds] == sorted(sequence(round_) for round_ in rounds)


async def test_websockets_offers_the_named_protocol_beside_its_token(relay: LiveRelay) -> None:
    """`datastream.v1` is selected when it is offered: the answer does not contain the token."""
    offered = [websockets.Subprotocol(name) for name in (relay.token(), "datastream.v1")]
    async with websockets.connect(f"{relay.ws_url}/ws/crash", subprotocols=offered) as ws:
        [text] = await read_rounds(ws, 1)

    assert ws.subprotocol == "datastream.v1"
    checked(text)


@pytest.mark.parametrize("compression", ["deflate", None])
async def test_websockets_with_and_without_compression(relay: LiveRelay, compression: str | None) -> None:
    """Compression is used exactly when the client offers it, and does not change the messages."""
    token = websockets.Subprotocol(relay.token())
    url = f"{relay.ws_url}/ws"
    async with websockets.connect(url, subprotocols=[token], compression=compression) as ws:
        assert ws.response is not None
        extensions = ws.response.headers.get("Sec-WebSocket-Extensions", "")
        for text in await read_rounds(ws, 3):
            checked(text)

    assert ("permessage-deflate" in extensions) == (compression == "deflate")


@pytest.mark.parametrize(
    ("path", "games"),
    [
        ("/ws/type/color", {"double"}),
        ("/ws?games=double,dice", {"double", "dice"}),
        ("/ws/type/slots", {"fortune-dragon"}),
    ],
)
async def test_websockets_asks_for_several_games(relay: LiveRelay, path: str, games: set[str]) -> None:
    """A type and a list of games stream all of those games, and no other."""
    seen: set[str] = set()
    token = websockets.Subprotocol(relay.token())
    async with websockets.connect(f"{relay.ws_url}{path}", subprotocols=[token]) as ws:
        while seen != games:
            [text] = await read_rounds(ws, 1)
            seen.add(checked(text)["game_slug"])
            assert seen <= games


async def test_websockets_changes_its_subscription(relay: LiveRelay) -> None:
    """`subscribe` and `unsubscribe` take effect with their answer."""
    token = websockets.Subprotocol(relay.token())
    async with websockets.connect(f"{relay.ws_url}/ws/crash", subprotocols=[token]) as ws:
        await ws.send('{"action":"subscribe","games":["double"]}')
        await answered(ws, '"games":["crash","double"]')
        await ws.send('{"action":"unsubscribe","games":["crash"]}')
        await answered(ws, '"games":["double"]')

        for text in await read_rounds(ws, 2):
            assert checked(text)["game_slug"] == "double"


async def test_websockets_resumes_with_its_cursor(relay: LiveRelay) -> None:
    """The hello says whether the history is complete; all later rounds follow, once and in order."""
    url = f"{relay.ws_url}/ws"
    async with websockets.connect(url, subprotocols=[websockets.Subprotocol(relay.token())]) as ws:
        [text] = await read_rounds(ws, 1)
        await read_rounds(ws, 5)  # rounds that a client received but did not process
    left = checked(text)

    again = f"{url}?after={left['cursor']}"
    async with websockets.connect(again, subprotocols=[websockets.Subprotocol(relay.token())]) as ws:
        hello, *texts = await read_rounds(ws, 11)

    assert json.loads(hello)["event"] == "hello"
    assert json.loads(hello)["complete"] is True
    sequences = [sequence(checked(text)) for text in texts]
    assert sequences == list(range(sequence(left) + 1, sequence(left) + 11))


@pytest.mark.parametrize("cursor", ["k3f9a2-1", "0-0"])
async def test_websockets_resumes_with_a_cursor_of_another_log(relay: LiveRelay, cursor: str) -> None:
    """It gets a gap event."""
    token = websockets.Subprotocol(relay.token())
    url = f"{relay.ws_url}/ws?after={cursor}"
    # Without a queue limit the library reads while it closes: the whole log is being sent.
    async with websockets.connect(url, subprotocols=[token], max_queue=None) as ws:
        hello, gap, text = await read_rounds(ws, 3)

    assert json.loads(hello)["complete"] is False
    assert json.loads(gap)["event"] == "gap"
    assert json.loads(gap)["from"] == cursor
    assert json.loads(text)["round_id"]


async def answered(ws: websockets.ClientConnection, part: str) -> None:
    """Skip messages up to the answer to our message."""
    while True:
        [text] = await read_rounds(ws, 1)
        if "event" in text:
            assert part in text
            return


@pytest.mark.parametrize(
    ("path", "status"), [("/ws/no-such-game", 404), ("/ws/type/no-such-type", 404), ("/ws?games=", 400)]
)
async def test_websockets_with_a_wrong_request(relay: LiveRelay, path: str, status: int) -> None:
    """The handshake gets an HTTP status and the contract's error body, not an open socket."""
    token = websockets.Subprotocol(relay.token())
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(f"{relay.ws_url}{path}", subprotocols=[token])

    assert refusal.value.response.status_code == status
    assert b'"success":false' in refusal.value.response.body


async def test_aiohttp_over_websocket_and_sse_sees_the_same_rounds(relay: LiveRelay) -> None:
    """Both protocols stream the same rounds of all games, in the same order, with the same text."""
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    async with (
        aiohttp.ClientSession(timeout=timeout, headers={"X-API-Key": relay.key}) as session,
        session.ws_connect(f"{relay.url}/ws", compress=15) as ws,
        session.get(f"{relay.url}/sse") as sse,
    ):
        over_ws = [await ws.receive_str() for _ in range(12)]
        over_sse: list[str] = []
        while len(over_sse) < 8:
            line = (await sse.content.readline()).decode()
            if line.startswith("data: "):
                over_sse.append(line.removeprefix("data: ").rstrip("\n"))

    overlap = [text for text in over_ws if sequence(checked(text)) >= sequence(checked(over_sse[0]))]
    assert overlap[:8] == over_sse[: len(overlap[:8])]
    assert overlap


async def test_aiohttp_reads_the_first_bytes_of_a_stream(relay: LiveRelay) -> None:
    """A stream begins with `retry` and a comment; its headers forbid proxies to cache or buffer it."""
    headers = {"X-API-Key": relay.key}
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as session,
        session.get(f"{relay.url}/sse/crash", headers=headers) as response,
    ):
        first = await response.content.readuntil(b"\n:\n")

    assert re.fullmatch(rb"retry: \d+\n(id: [a-z0-9-]+\n)?:\n", first)
    assert response.content_type == "text/event-stream"
    assert "no-cache" in response.headers["Cache-Control"]
    assert response.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("where", ["X-API-Key", "Authorization", "api_key", "token"])
def test_sseclient_with_its_credential_in_each_allowed_place(relay: LiveRelay, where: str) -> None:
    """Key in a header or the URL, token in the URL: `events()` yields rounds with their cursor as id."""
    headers = {"X-API-Key": {"X-API-Key": relay.key}, "Authorization": {"Authorization": f"Bearer {relay.key}"}}.get(
        where
    )
    params = {"api_key": {"api_key": relay.key}, "token": {"token": relay.token()}}.get(where)
    with requests.get(f"{relay.url}/sse", headers=headers, params=params, stream=True, timeout=DEADLINE_S) as response:
        assert response.status_code == 200
        for event in islice(sseclient.SSEClient(iter(response)).events(), 2):
            assert event.event == "message"
            assert event.id == checked(event.data)["cursor"]


def test_requests_without_a_credential(relay: LiveRelay) -> None:
    """401 with one sentence, and a header that names the scheme."""
    response = requests.get(f"{relay.url}/sse/crash", timeout=DEADLINE_S)

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert response.json()["success"] is False
    assert "X-API-Key" in response.json()["error"]


def test_requests_gets_a_token_answer_of_strings_only(relay: LiveRelay) -> None:
    """Given clients decode the token answer into a map of strings."""
    response = requests.post(f"{relay.url}/api/auth/token", headers={"X-API-Key": relay.key}, timeout=DEADLINE_S)

    assert set(response.json()) == {"token", "expires_at"}
    assert all(isinstance(value, str) for value in response.json().values())
    assert response.headers["Cache-Control"] == "no-store"
