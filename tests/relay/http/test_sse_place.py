"""The place and the end of event streams: the bytes that each kind of client gets."""

import asyncio
import itertools
from contextlib import AsyncExitStack

import aiohttp
import pytest

from auth.key_secret import DEMO_KEY
from relay.http.sse.sse_client import client_of
from relay.http.sse.sse_link import SseLink
from rounds import Cursor
from tests.relay.conftest import KEY_HEADER, Publish, StartRelay, metric_becomes
from tests.relay.event_stream import stream
from tests.relay.http.test_sse_client import CHROMIUM, NODE_FETCH, R3LABS
from tests.relay.live.recording_link import NeverEnded
from tests.relay.raw_http import Connection, connection, exchange, parse, unchunked

pytestmark = pytest.mark.service

QUICK = {"heartbeat_s": 0.1}


async def opening(link: Connection, headers: dict[str, str], query: str = "") -> dict[str, str]:
    """Ask for a stream; return the headers of the answer."""
    lines = [f"{name}: {value}" for name, value in (KEY_HEADER | headers).items()]
    await link.send("\r\n".join([f"GET /sse/crash{query} HTTP/1.1", "Host: x", *lines, "", ""]).encode())
    return parse(await link.until(b"\r\n\r\n")).headers


async def test_place_at_the_start_as_each_client_takes_it(relay: str, publish: Publish) -> None:
    """The head of the log: as a line, as a block, or with an event. Answers have it as a header, too."""
    await publish("dice", 1)
    came, places = [], set()
    for headers, query, last in (({}, "", b":\n"), (CHROMIUM, "", b":\n"), (NODE_FETCH, "", b"}\n\n")):
        async with connection(relay) as link:
            places.add((await opening(link, headers, query))["head-cursor"])
            came.append(unchunked(await link.until(last + b"\r\n"))[0])

    [place] = places
    epoch = place.partition("-")[0]
    assert came == [
        f"retry: 2000\nid: {place}\n:\n".encode(),
        f"retry: 2000\nid: {place}\n\n:\n".encode(),
        f"retry: 2000\n:\nid: {place}\nevent: hello\n".encode()
        + f'data: {{"event":"hello","complete":true,"first":"{epoch}-1","head":"{place}"}}\n\n'.encode(),
    ]


@pytest.mark.parametrize(("headers", "end"), [({}, b"\n:\n"), (CHROMIUM, b"\n\n:\n")])
async def test_place_of_a_resumed_stream_is_its_own_cursor(
    relay: str, publish: Publish, headers: dict[str, str], end: bytes
) -> None:
    """Not the head: the rounds between the two have not been sent yet."""
    await publish("dice", 1, 2, 3)
    async with connection(relay) as link:
        place = (await opening(link, {}))["head-cursor"]
    cursor = f"{place.partition('-')[0]}-1"
    async with connection(relay) as link:
        answer = await opening(link, headers | {"Last-Event-ID": cursor})
        first, _ = unchunked(await link.until(b":\n\r\n"))

    assert first == b"retry: 2000\nid: " + cursor.encode() + end
    assert "head-cursor" not in answer


@pytest.mark.parametrize(
    ("headers", "form"),
    [
        ({}, "id: {}\n"),
        (CHROMIUM, "id: {}\n\n"),
        (NODE_FETCH, 'id: {0}\nevent: cursor\ndata: {{"event":"cursor","cursor":"{0}"}}\n\n'),
    ],
)
async def test_heartbeats_of_a_quiet_stream_move_its_place(
    start_relay: StartRelay, publish: Publish, headers: dict[str, str], form: str
) -> None:
    """Rounds of other games move it, so that a client that is cut later need not replay them."""
    async with start_relay(links=QUICK) as url, connection(url) as link:
        place = (await opening(link, headers))["head-cursor"]
        await link.until(b":\n\r\n")
        quiet = await link.until(b":\n\r\n") + await link.until(b":\n\r\n")
        [sequence] = await publish("dice", 1)
        moved = f"{place.partition('-')[0]}-{sequence}"
        beat = await link.until(form.format(moved).encode() + b"\r\n")
        after = await link.until(b":\n\r\n") + await link.until(b":\n\r\n")

    assert quiet.endswith(b"2\r\n:\n\r\n2\r\n:\n\r\n")
    assert unchunked(beat)[0].endswith(b":\n" + form.format(moved).encode())
    assert after == b"2\r\n:\n\r\n" * 2


@pytest.mark.parametrize(
    ("headers", "form", "is_whole"),
    [
        ({}, "id: {}\nretry: 0\n", True),
        (CHROMIUM, "id: {}\n\nretry: 0\n\n", True),
        (NODE_FETCH, 'id: {0}\nevent: cursor\ndata: {{"event":"cursor","cursor":"{0}"}}\n\nretry: 0\n', True),
        (R3LABS, "id: {}\nretry: 0\n", False),
    ],
)
async def test_place_before_the_end(
    start_relay: StartRelay,
    client: aiohttp.ClientSession,
    publish: Publish,
    headers: dict[str, str],
    form: str,
    is_whole: bool,
) -> None:
    """The last bytes are the client's place and delay; for Go clients the body stays incomplete, and loses nothing."""
    async with AsyncExitStack() as stack:
        async with start_relay(links={"heartbeat_s": 55, "retry_ms": 0}) as url:
            link = await stack.enter_async_context(connection(url))
            place = (await opening(link, headers))["head-cursor"]
            opened = await link.until(b":\n\r\n")
            [sequence] = await publish("dice", 1)
            await metric_becomes(client, url, "relay_head_sequence", sequence)
        content, complete = unchunked(opened + await link.rest())

    assert content.endswith(form.format(f"{place.partition('-')[0]}-{sequence}").encode())
    assert complete is is_whole


@pytest.mark.parametrize(("agent", "is_whole"), [("Go-http-client/1.1", False), ("curl/8", True)])
async def test_refused_client_gets_the_end_that_suits_it(start_relay: StartRelay, agent: str, is_whole: bool) -> None:
    """200 and `retry` without a blank line, at a full relay."""
    async with start_relay(links={"max_links": 1, "retry_ms": 0}) as url, connection(url) as holder:
        await opening(holder, {})
        answer = await exchange(url, "GET /sse/crash HTTP/1.1", f"X-API-Key: {DEMO_KEY}", f"User-Agent: {agent}")

    assert (answer.status, unchunked(answer.body)) == (200, (b"retry: 0\n", is_whole))


async def test_refused_client_of_http_1_0(start_relay: StartRelay) -> None:
    """It gets no chunks."""
    async with start_relay(links={"max_links": 1, "retry_ms": 0}) as url, connection(url) as holder:
        await opening(holder, {})
        answer = await exchange(url, "GET /sse/crash HTTP/1.0", f"X-API-Key: {DEMO_KEY}")

    assert (answer.status, answer.body) == (200, b"retry: 0\n")


async def test_client_asks_for_more_frequent_comments(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """OkHttp gives up after 10 s of silence by default. Others keep the configured interval."""
    async with start_relay(links={"heartbeat_s": 55}) as url, stream(client, f"{url}/sse/crash?heartbeat=1") as quick:
        comments = [await quick.opening() for _ in range(3)]

    assert comments == [[("", "")]] * 3


async def test_wheel_stops_when_its_last_link_leaves(start_relay: StartRelay, client: aiohttp.ClientSession) -> None:
    """A later client with the same interval gets its comments again."""
    async with start_relay(links={"heartbeat_s": 55}) as url:
        for _ in range(2):
            async with stream(client, f"{url}/sse/crash?heartbeat=1") as quick:
                await quick.opening()
            await metric_becomes(client, url, "relay_links", 0)


class Written(asyncio.Transport):
    """Collects what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.data += data

    def get_write_buffer_size(self) -> int:
        return 0


async def test_ids_of_a_stream_that_stays_quiet_are_bounded() -> None:
    """Parsers that wait for a blank line take 64 KB at most: after a time there are comments only."""
    transport, client = Written(), client_of({}, {}, end="auto")
    link = SseLink(transport, client, NeverEnded(), chunked=False, max_age_s=60)
    places = (Cursor("k3f9a2", sequence) for sequence in itertools.count(1000))
    link.cursor = lambda: next(places)
    for _ in range(5000):
        link.heartbeat()

    assert transport.data.count(b"id: ") > 500
    assert len(transport.data) < 30_000
    assert transport.data.endswith(b":\n:\n")
